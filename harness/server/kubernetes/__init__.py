"""Many servers on a cluster: `python -m harness.server.kubernetes render|up|bench|down`."""
