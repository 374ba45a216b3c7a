"""Preprocessed samples on disk, read one by one.

A memory map would do, but every page that was ever touched would count as this process's memory, and the
samples of a whole data set may be many times what the machine has.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class SampleFile:
    """A .npy file of samples: indexing reads one of them."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not a .npy file, or shorter than it says.
        """
        header = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape: tuple[int, ...] = header.shape
        self.dtype = header.dtype
        self._offset = int(header.offset)
        self._sample_bytes = header[:1].nbytes
        # The file may be replaced meanwhile; what was opened stays.
        self._descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __len__(self) -> int:
        """Number of samples."""
        return self.shape[0]

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        """Read one sample.

        Raises:
            IndexError: there is no such sample.
            OSError: the file was cut short meanwhile, or the disk fails.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample = np.empty(self.shape[1:], self.dtype)
        target, done = sample.data.cast("B"), 0
        while done < self._sample_bytes:
            start = self._offset + index * self._sample_bytes + done
            read = os.preadv(self._descriptor, [target[done:]], start)
            if not read:
                raise OSError(f"sample {index} is cut off")
            done += read
        return sample
