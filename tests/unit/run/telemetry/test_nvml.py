"""GPUs of this machine by NVIDIA's library, which is not installed here: one of the same names stands in."""

import sys
import types

import pytest

from harness.run.telemetry.nvml import Nvml, Unavailable


class NVMLError(Exception):
    pass


def library(**changes: object) -> types.ModuleType:
    def clock(handle: int, kind: str) -> int:
        if handle == 1:
            raise NVMLError("not supported")
        assert kind == "SM"
        return 1755

    found = types.ModuleType("pynvml")
    functions = {
        "NVMLError": NVMLError,
        "NVML_CLOCK_SM": "SM",
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        # Versions before 12 answer bytes.
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}".encode() if handle else f"GPU-{handle}",
        "nvmlDeviceGetClockInfo": clock,
    }
    for name, function in {**functions, **changes}.items():
        setattr(found, name, function)
    return found


def test_clocks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())
    assert Nvml.open().clocks_mhz() == {"GPU-0": 1755.0}


def test_no_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlInit=fails))
    with pytest.raises(Unavailable, match="NVIDIA's driver does not answer: Driver Not Loaded"):
        Nvml.open()


def test_no_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Unavailable, match="the package nvidia-ml-py is not installed"):
        Nvml.open()
