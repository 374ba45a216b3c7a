"""Finished runs side by side, and whether they can be compared."""
