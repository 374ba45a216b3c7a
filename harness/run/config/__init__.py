"""Words in; the whole resolved configuration out, each value with its origin; nothing is touched."""
