"""A TCP proxy that a test can have misbehave, or take turns between servers."""

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

_NO_LINGER = struct.pack("ii", 1, 0)
"""Closing sends a reset instead of what is unsent."""


class Proxy:
    """Stands before ports of 127.0.0.1, at `url`; each connection is one to the next of them in `turns`."""

    def __init__(self, *ports: int) -> None:
        self.turns: Iterator[int] = itertools.cycle(ports)
        self._flows = threading.Event()
        self._flows.set()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits for a connection keeps a socket that is merely closed.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        self.reset()

    def reset(self) -> None:
        """Reset every connection there is; new ones are welcome."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                # Wakes the thread that reads from it.
                end.shutdown(socket.SHUT_RD)
            end.close()

    def stall(self) -> None:
        """Pass nothing on any more: half-open connections, as both sides see none end."""
        self._flows.clear()

    def resume(self) -> None:
        """Pass on what has come meanwhile, and what comes."""
        self._flows.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours = self._listener.accept()[0]
                theirs = socket.create_connection(("127.0.0.1", next(self.turns)))
                self._ends += (ours, theirs)
                for source, target in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
