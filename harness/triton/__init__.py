"""Triton as a client sees it: connections, messages, control."""
