"""One entry: its weights, export, comparison, publication."""
