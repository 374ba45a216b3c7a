"""How close serving comes to the hardware: the bare framework, this harness and a plain client."""
