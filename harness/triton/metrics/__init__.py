"""A server's metrics: where they are, and what they say."""
