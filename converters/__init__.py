"""Weights to model repository entries: every export is compared with its source before it is published."""
