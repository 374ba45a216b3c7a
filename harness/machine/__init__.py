"""This machine: folders, files, locks, threads, processes, terminal."""
