"""Several null servers on this machine, and what their figures come to past one box."""
