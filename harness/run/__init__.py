"""One run: asked for, prepared, measured, judged."""
