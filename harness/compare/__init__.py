"""`python -m harness.compare RUN RUN …`: finished runs side by side, and whether they can be compared."""
