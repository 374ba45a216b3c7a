"""Whether memory, descriptors and threads stay where they are while a server is asked for long."""
