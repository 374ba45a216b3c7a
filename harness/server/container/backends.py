"""While the server's image is built: give Triton those of our backends that it has no native one for.

    python3 -m harness.server.container.backends SOURCE TARGET LOCK

Release 25.02 lacks only TensorFlow Lite; later ones lack TensorFlow too, NVIDIA's smaller images still more.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from harness.server.container.locked import locked

PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow-cpu",),
    "tflite": ("ai-edge-litert", "flatbuffers"),
}
"""What each of our backends imports, beside numpy."""

_SHARED = "batching.py"


def lacking(present: Collection[str]) -> list[str]:
    """Those of our backends that are not among Triton's."""
    return [name for name in PACKAGES if name not in present]


def pins(names: Iterable[str], lock: str) -> str:
    """What pip shall install for some of our backends, in the versions and with the digests of a lock.

    Raises:
        ValueError: a package is not locked.
    """
    # With numpy 2, Python backends of some releases answer with empty tensors.
    return locked(["numpy", *(package for name in names for package in PACKAGES[name])], lock)


def add(source: Path, target: Path, lock: Path) -> None:
    """Copy what is lacking, and install what it imports.

    Raises:
        OSError: a folder is missing or cannot be written.
        ValueError: a package is not locked.
        CalledProcessError: pip failed, and said why.
    """
    names = lacking({folder.name for folder in target.iterdir()})
    sys.stdout.write(f"backends of ours: {', '.join(names) or 'none'}\n")
    sys.stdout.flush()
    for name in names:
        shutil.copytree(source / name, target / name)
    shutil.copy2(source / _SHARED, target / _SHARED)
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--require-hashes"]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as chosen:
        chosen.write(pins(names, lock.read_text(encoding="utf-8")))
        chosen.flush()
        subprocess.run([*pip, "--only-binary=:all:", f"--requirement={chosen.name}"], check=True)


def main(arguments: Sequence[str]) -> int:
    """Carry out the command line; returns the exit code."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python3 -m harness.server.container.backends SOURCE TARGET LOCK\n")
        return 2
    source, target, lock = map(Path, arguments)
    try:
        add(source, target, lock)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
