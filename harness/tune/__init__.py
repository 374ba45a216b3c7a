"""The best settings of a server."""
