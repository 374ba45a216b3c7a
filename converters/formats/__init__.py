"""Doors: a file of one framework, opened, run, written; no network is known here."""
