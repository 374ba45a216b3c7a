"""What the servers' own metrics said while a test ran."""
