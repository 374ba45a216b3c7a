"""The pictures of README: a page in headless Chromium, and a terminal."""
