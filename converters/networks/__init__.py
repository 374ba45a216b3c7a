"""The networks, said once, and written in each framework."""
