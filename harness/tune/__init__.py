"""The best server settings of this machine."""
