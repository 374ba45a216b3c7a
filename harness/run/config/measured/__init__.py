"""What was measured to be best, and of which server."""
