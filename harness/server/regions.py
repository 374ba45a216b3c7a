"""The shared memory of our servers' stubs: whose it is, and its removal once nobody uses it any more.

Each server has a prefix of its own for the names of its regions. Beside them lies `<prefix>lock`, an empty
file that the server's supervisor holds locked for as long as it lives. What was killed all at once (a
container, a control group), or stopped by somebody who sees another /dev/shm, can clear up nothing; that its
lock is free then proves to the next server's start that it is gone. A pid would prove nothing: two containers
can share /dev/shm and number their processes each for itself.

Standard library only: the supervisor imports it.
"""

import contextlib
import fcntl
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

from harness.machine.kernel import SHM_DIR

START = "triton_python_backend_"
_LOCK = "lock"
_LOCK_NAME = re.compile(rf"({START}[0-9a-f]{{12}}_){_LOCK}")


def new_prefix() -> str:
    """Unlike Triton's own, a prefix that no other server has: what carries it is ours to remove."""
    return f"{START}{uuid.uuid4().hex[:12]}_"


def own(prefix: str) -> int:
    """Say that the regions with a prefix are in use, until the descriptor that is returned is closed.

    Raises:
        OSError: /dev/shm is absent, full or not writable.
    """
    # It has no name before it is locked: nobody can take it for a dead server's.
    lock = os.open(SHM_DIR, os.O_TMPFILE | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only linkat(2), which takes folders' descriptors, follows the link; link(2) does not.
    os.link(f"/proc/self/fd/{lock}", SHM_DIR / f"{prefix}{_LOCK}", src_dir_fd=lock)
    return lock


def clear(prefix: str) -> None:
    """End the stubs of one server, of which nothing else may live any more, and remove its shared memory."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        # Each has its region's name on its command line.
        with contextlib.suppress(OSError):
            arguments = file.read_bytes().decode(errors="replace").split("\0")
            if any(argument.startswith(prefix) for argument in arguments):
                os.kill(int(file.parent.name), signal.SIGKILL)
    remove(prefix)


def remove(prefix: str) -> None:
    """Remove the shared memory of the one server that was started with this prefix, the lock last."""
    for region in sorted(SHM_DIR.glob(f"{prefix}*"), key=lambda file: file.name == f"{prefix}{_LOCK}"):
        region.unlink(missing_ok=True)


def sweep() -> list[str]:
    """Clear up behind all servers of this user that are dead; returns their prefixes."""
    swept = []
    for prefix in _of_dead_servers():
        clear(prefix)
        swept.append(prefix)
    return swept


def _of_dead_servers() -> Iterator[str]:
    """Their prefixes; each lock is ours until the next one is asked for."""
    for file in SHM_DIR.glob(f"{START}*_{_LOCK}"):
        found = _LOCK_NAME.fullmatch(file.name)
        with contextlib.suppress(OSError):  # in use, or swept by somebody else meanwhile
            if found and file.stat(follow_symlinks=False).st_uid == os.geteuid():
                lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield found[1]
                finally:
                    os.close(lock)
