"""A system shared memory segment that nothing can leak.

Not `multiprocessing.shared_memory`, whose resource tracker warns about, and at exit removes, what another
process has mapped. The segment has a name only while servers map it (see `Segment.named`).
"""

import contextlib
import mmap
import os
from collections.abc import Iterator

from harness.errors import ServerError
from harness.machine import kernel
from harness.machine.kernel import SHM_DIR


class Segment:
    """`size` zeroed bytes in /dev/shm, mapped into this process."""

    def __init__(self, name: str, size: int) -> None:
        """Create and map the segment, which is to be /dev/shm/`name` while it is `named`.

        Raises:
            ServerError: /dev/shm is absent, full or not writable.
        """
        self.name = name
        self.size = size
        try:
            self._descriptor = os.open(SHM_DIR, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError as error:
            raise ServerError(
                f"cannot create a file in {SHM_DIR}: {error.strerror}; use --transport grpc"
            ) from error
        try:
            # Reserve the pages now: a full /dev/shm is an error here and a bus error at the first write.
            os.posix_fallocate(self._descriptor, 0, size)
            self.buffer = mmap.mmap(self._descriptor, size)
        except OSError as error:
            os.close(self._descriptor)
            raise ServerError(
                f"{SHM_DIR} has no room for {size / 1e6:.0f} MB of samples ({error.strerror}); "
                "enlarge it (docker: shm_size), lower --count, or use --transport grpc"
            ) from error

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Give it its name for as long as servers need to map it: mapped memory needs none any more.

        Raises:
            ServerError: there is such a name.
        """
        path = SHM_DIR / self.name
        with kernel.death_with_parent_put_off():
            try:
                # Only linkat(2), which takes folders' descriptors, follows the link; link(2) does not.
                os.link(f"/proc/self/fd/{self._descriptor}", path, src_dir_fd=self._descriptor)
            except OSError as error:
                raise ServerError(f"cannot create {path}: {error.strerror}; use --transport grpc") from error
            try:
                yield
            finally:
                path.unlink()

    def close(self) -> None:
        """Unmap it, unless arrays still point into the memory."""
        os.close(self._descriptor)
        with contextlib.suppress(BufferError):
            self.buffer.close()
