"""Clocks of this machine's GPUs, which Triton's metrics lack: by NVIDIA's nvidia-ml-py.

It is optional: nothing of a run depends on it.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Unavailable(Exception):
    """There is no such library, driver or GPU here; says which."""


@dataclass(frozen=True)
class Nvml:
    """The GPUs of this machine."""

    _library: Any = field(repr=False)
    _handles: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls) -> "Nvml":
        """Look for them; the library stays open as long as this process.

        Raises:
            Unavailable: there are none to be found.
        """
        try:
            import pynvml
        except ImportError as error:
            raise Unavailable("the package nvidia-ml-py is not installed") from error
        try:
            pynvml.nvmlInit()
            found = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            handles = {_text(pynvml.nvmlDeviceGetUUID(one)): one for one in found}
            return cls(pynvml, handles)
        except pynvml.NVMLError as error:
            raise Unavailable(f"NVIDIA's driver does not answer: {error}") from error

    def clocks_mhz(self) -> dict[str, float]:
        """Of the processors now, by UUID; without a GPU that does not tell."""
        found = {}
        for uuid, handle in self._handles.items():
            with contextlib.suppress(self._library.NVMLError):
                clock = self._library.nvmlDeviceGetClockInfo(handle, self._library.NVML_CLOCK_SM)
                found[uuid] = float(clock)
        return found


def _text(value: str | bytes) -> str:
    """Older versions of the package answer bytes."""
    return value.decode() if isinstance(value, bytes) else value
