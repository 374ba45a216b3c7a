"""The entry of a run: made by the converters, in a process of their own, or as another machine made it."""
