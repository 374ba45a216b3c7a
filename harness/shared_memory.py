"""A system shared memory segment that nothing can leak.

Not `multiprocessing.shared_memory`, whose resource tracker warns about, and at exit removes, what another
process has mapped. The segment's name exists only until the server has mapped it (see `unlink`).
"""

import contextlib
import mmap
import os
from pathlib import Path

from harness.errors import ServerError

SHM_DIR = Path("/dev/shm")


class Segment:
    """`size` zeroed bytes under /dev/shm/`name`, mapped into this process."""

    def __init__(self, name: str, size: int) -> None:
        """Create and map the segment.

        Raises:
            ServerError: /dev/shm is absent, full or not writable.
        """
        self.name = name
        self.size = size
        self._path = SHM_DIR / name
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise ServerError(
                f"cannot create {self._path}: {error.strerror}; use --transport grpc"
            ) from error
        try:
            # Reserve the pages now: a full /dev/shm is an error here and a bus error at the first write.
            os.posix_fallocate(descriptor, 0, size)
            self.buffer = mmap.mmap(descriptor, size)
        except OSError as error:
            self.unlink()
            raise ServerError(
                f"{SHM_DIR} has no room for {size / 1e6:.0f} MB of samples ({error.strerror}); "
                "enlarge it (docker: shm_size), lower --count, or use --transport grpc"
            ) from error
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        """Remove the name; the memory lives on until everyone who mapped it has let go. Can be repeated."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Remove the name and unmap, unless arrays still point into the memory."""
        self.unlink()
        with contextlib.suppress(BufferError):
            self.buffer.close()
