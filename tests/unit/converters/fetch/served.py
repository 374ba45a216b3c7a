"""What tests of downloads share: a server on this machine, archives, and what a folder has at the end."""

import contextlib
import io
import stat
import threading
import zipfile
from collections.abc import Collection, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Answer in a thread until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def zipped(
    members: Mapping[str, bytes] | Collection[tuple[str, bytes]], links: Collection[str] = ()
) -> bytes:
    """A .zip of names and contents; those of `links` are symbolic links."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in dict(members).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644
            info.external_attr <<= 16
            archive.writestr(info, content)
    return buffer.getvalue()


def left_in(folder: Path) -> list[str]:
    """All that is in a folder, however deep."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
