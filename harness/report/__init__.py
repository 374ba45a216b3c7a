"""A finished run on one self-contained page."""
