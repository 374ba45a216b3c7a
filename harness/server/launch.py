"""How the tritonserver inside the nvidia-pytriton wheel is started: files, environment, ports, command line.

Only that server is used, none of pytriton's Python API. Every rule here is a trap that was met; the comments
say which.
"""

import functools
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, ServerError
from harness.machine.environment import cpu_count
from harness.machine.extras import how_to_install
from harness.machine.kernel import SHM_DIR
from harness.machine.paths import BACKENDS_DIR
from harness.server.flags import EMBEDDED, flags

logger = logging.getLogger(__name__)

Ports = tuple[int, int, int]
"""HTTP, gRPC, metrics."""

DEFAULT_PORTS: Ports = (8000, 8001, 8002)
PORT_OPTIONS = ("--http-port", "--grpc-port", "--metrics-port")

# Folder and link inside the state folder, which is the server's working directory. Triton starts its stubs
# through an unquoted `bash -c`, so that the paths it is given must have no spaces: these have none.
BACKENDS = "backends"
REPOSITORY = "repository"

_STUB = "triton_python_backend_stub"

_SHM_WANTED_BYTES = 256 << 20


@dataclass(frozen=True)
class Wheel:
    """Where the wheel keeps what we start."""

    server: Path
    libraries: Path
    python_backend: tuple[Path, ...]
    """The three files that must lie side by side in `backends/python/`."""

    @property
    def stub(self) -> Path:
        """The process that runs a Python backend's code."""
        return self.python_backend[-1]


def find_wheel() -> Wheel:
    """Locate the server in this interpreter's site-packages.

    Raises:
        ServerError: it is not installed, or not for this Python version.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"{how_to_install('pytriton')}; or name a server with --url HOST:PORT")
    package = Path(spec.submodule_search_locations[0])
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    root = package / "tritonserver"
    stub = root / "python_backend_stubs" / version / _STUB
    if not stub.exists():
        raise ServerError(f"nvidia-pytriton has no server for Python {version}; use Python 3.11 or 3.12")
    python = root / "backends" / "python"
    return Wheel(
        server=root / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        python_backend=(python / "libtriton_python.so", python / "triton_python_backend_utils.py", stub),
    )


def environment(wheel: Wheel) -> dict[str, str]:
    """Environment variables of the server and, through it, of its stubs."""
    # A stub embeds CPython, which takes its packages from the interpreter first on PATH, and needs the shared
    # libpython of its version, of which the wheel brings only 3.13's.
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    env["PATH"] = _joined(Path(sys.executable).parent, env.get("PATH"))
    libdir = sysconfig.get_config_var("LIBDIR")
    env["LD_LIBRARY_PATH"] = _joined(wheel.libraries, libdir, env.get("LD_LIBRARY_PATH"))
    env["PYTHONNOUSERSITE"] = "1"
    if not gpu_backends():
        # KIND_AUTO would pick a GPU that none of the installed frameworks can use.
        env["CUDA_VISIBLE_DEVICES"] = "-1"
    return env


def _joined(*folders: Path | str | None) -> str:
    return os.pathsep.join(str(folder) for folder in folders if folder)


@functools.cache
def gpu_backends() -> frozenset[str]:
    """Those of our backends whose framework is installed in a build for GPUs, by Triton's names of them."""
    installed = {(dist.metadata["Name"] or "").lower() for dist in importlib.metadata.distributions()}
    has_cudnn = any(name.startswith("nvidia-cudnn") for name in installed)
    # Builds for CPUs: torch's depends on none of NVIDIA's packages, the others' have other names.
    is_for_gpus = {
        "pytorch": has_cudnn and "torch" in installed and _depends_on_nvidia("torch"),
        "tensorflow": has_cudnn and "tensorflow" in installed,
        "onnxruntime": "onnxruntime-gpu" in installed,
    }
    return frozenset(name for name, is_so in is_for_gpus.items() if is_so)


def _depends_on_nvidia(package: str) -> bool:
    wanted = importlib.metadata.requires(package) or ()
    return any(line.lower().startswith(("nvidia-", "cuda-")) for line in wanted)


def check_python(wheel: Wheel, env: dict[str, str]) -> None:
    """Check that the stub can run in this environment.

    Raises:
        ServerError: says what to install.
    """
    numpy = importlib.metadata.version("numpy")
    if not numpy.startswith("1."):
        # Triton 2.51 then answers with well-shaped, error-free tensors of zero bytes.
        raise ServerError(f"numpy {numpy} breaks this server's Python backend; run ./run.sh setup (numpy<2)")
    # Without arguments it prints its usage and exits with 1; 127 is the dynamic linker's.
    probe = subprocess.run([wheel.stub], env=env, capture_output=True, text=True, check=False)
    if probe.returncode == 127:
        library = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
        reason = " ".join(probe.stderr.split("error while loading ")[-1].split())
        raise ServerError(
            f"Triton's Python backend does not start ({reason}); install {library}"
            f" (Debian: apt-get install {library}; pyenv: build Python with --enable-shared)"
        )


def check_shared_memory() -> None:
    """Warn where /dev/shm is as small as a container's default, in which batches of images do not fit."""
    free = shutil.disk_usage(SHM_DIR).free
    if free < _SHM_WANTED_BYTES:
        logger.warning("/dev/shm has %d MB free; large batches may fail (docker: --shm-size=1g)", free >> 20)


def assemble_backends(folder: Path, wheel: Wheel) -> None:
    """Lay out Triton's backend directory anew: the wheel's Python backend and ours beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BACKENDS_DIR, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for copied in (folder, *folder.rglob("*")):
        # Of a checkout that cannot be written, neither could the copies, nor be removed.
        copied.chmod(0o755 if copied.is_dir() else 0o644)
    python = folder / "python"
    python.mkdir()
    for file in wheel.python_backend:
        # Copied: Triton refuses a library that is a link to outside its backend directory.
        shutil.copy2(file, python / file.name)


def choose_ports(host: str, requested: Ports | None) -> Ports:
    """The requested ports, or for each that is 0 (or None for all) the default if free, else another.

    Raises:
        ConfigError: two of those requested are one.
        ServerError: a requested port is taken, or the host is not an address of this machine.
    """
    _any_free_port(host)  # so that a wrong host is not taken for taken ports
    asked = dict(zip(PORT_OPTIONS, requested or (0, 0, 0), strict=True))
    _check_differ(asked)
    chosen: list[int] = []
    for (option, port), default in zip(asked.items(), DEFAULT_PORTS, strict=True):
        if port and (why := _refusal(host, port)):
            raise ServerError(f"port {port} on {host} {why}; choose another with {option}")
        if not port and default not in (*chosen, *asked.values()) and not _refusal(host, default):
            port = default
        chosen.append(port or _any_free_port(host))
    return chosen[0], chosen[1], chosen[2]


def _check_differ(asked: Mapping[str, int]) -> None:
    """See that each port that was asked for, by its option, is another."""
    first: dict[int, str] = {}
    for option, port in asked.items():
        if port and first.setdefault(port, option) != option:
            raise ConfigError(f"{first[port]} and {option} are both {port}: give each a port of its own")


def _refusal(host: str, port: int) -> str:
    """Why nothing can listen there, or an empty string."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return "is privileged, and you are not root"
        except OSError:
            return "is taken"
    return ""


def _any_free_port(host: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ServerError(f"cannot listen on {host}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def command(wheel: Wheel, host: str, ports: Ports, shm_prefix: str, *, auto_complete: bool) -> list[str]:
    """Command line of tritonserver; to be run in the state folder."""
    http, grpc, metrics = ports
    return [
        str(wheel.server),
        f"--model-repository={REPOSITORY}",
        f"--backend-directory={BACKENDS}",
        # Triton's own default is every interface.
        f"--http-address={host}",
        f"--grpc-address={host}",
        f"--metrics-address={host}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        *flags(EMBEDDED, cpu_count(), auto_complete=auto_complete),
    ]
