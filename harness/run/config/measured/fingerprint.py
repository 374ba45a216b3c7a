"""What a server is, as far as that decides with which settings it is fastest, and as far as it tells."""

import contextlib
import functools
from dataclasses import dataclass

from harness.errors import ServerError
from harness.machine import environment
from harness.server.flags import EMBEDDED, parse_version
from harness.triton.address import Address
from harness.triton.client import TritonClient, is_on_this_host
from harness.triton.metrics import endpoint
from harness.triton.metrics.text import parse

THIS_MACHINE = "this machine"
_NOT_TOLD = "not told"


@dataclass(frozen=True)
class Fingerprint:
    """Two servers of which all is equal are taken for one, tuned once. Empty: not known, or there is none."""

    where: str
    """Whose cores and memory it has: `THIS_MACHINE`, or its address as it was given."""
    gpus: str
    """How many it computes with, and how large."""
    cpu: str
    """The processor's name."""
    cores: int
    """CPU threads that it may use; 0 where they are not ours to count."""
    triton: str
    """Its version, such as 2.51."""

    @property
    def devices(self) -> int:
        """How many a model has instances on: the GPUs, or the one CPU."""
        count, _, _ = self.gpus.partition(" of ")
        return int(count) if count.isdecimal() else 1


@dataclass(frozen=True)
class _Told:
    """What a server says of itself."""

    triton: str = ""
    gpus: str = ""


def fingerprint(server: Address | None, device: str, cores: int, *, is_cpu_only: bool) -> Fingerprint:
    """Ask a server.

    Args:
        server: None for one of our own that does not run yet.
        device: that it was asked to use: auto, cpu or gpu.
        cores: CPU threads that it may use; 0 where they are not ours to count.
        is_cpu_only: whether the model's framework has no use for GPUs.
    """
    told = _told_by(server) if server else _Told(f"{EMBEDDED[0]}.{EMBEDDED[1]}")
    is_here = server is None or is_on_this_host(server)
    gpus = "" if is_cpu_only or device == "cpu" else told.gpus
    if device == "gpu" and not gpus:
        gpus = _NOT_TOLD
    cpu = environment.cpu_name() if is_here else ""
    return Fingerprint(THIS_MACHINE if is_here or not server else server.url, gpus, cpu, cores, told.triton)


@functools.cache
def _told_by(server: Address) -> _Told:
    """Asked once; nothing where it does not answer."""
    with contextlib.suppress(ServerError, ValueError), TritonClient(server) as client:
        major, minor = parse_version(str(client.check_is_triton().get("version", "")))
        gpus = ""
        with contextlib.suppress(ServerError):
            gpus = gpus_in(endpoint.read(server.metrics_url))
        return _Told(f"{major}.{minor}", gpus)
    return _Told()


def gpus_in(metrics: str) -> str:
    """How many GPUs a server's metrics list, and how large they are: names are not among them."""
    known = (gpu.memory_total_bytes for gpu in parse(metrics).gpus)
    sizes = sorted(f"{size / 2**30:.0f} GiB" for size in known if size is not None)
    return f"{len(sizes)} of {', '.join(dict.fromkeys(sizes))}" if sizes else ""
