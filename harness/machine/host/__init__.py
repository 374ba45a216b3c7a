"""The machine itself: what it is made of, who else uses it, and which version of this tool is on it."""
