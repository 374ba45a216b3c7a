"""While the server's image is built: give Triton those of our backends that it has no native one for.

    python3 -m harness.server.container.backends SOURCE TARGET REQUIREMENTS

Release 25.02 lacks only TensorFlow Lite; later ones lack TensorFlow too, NVIDIA's smaller images still more.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

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


def pins(names: Iterable[str], requirements: str) -> list[str]:
    """What pip shall install for some of our backends, in the versions of requirements.txt.

    Raises:
        ValueError: a package is not pinned there.
    """
    # With numpy 2, Python backends of some releases answer with empty tensors.
    packages = ["numpy", *(package for name in names for package in PACKAGES[name])]
    found = dict(re.findall(r"^([\w-]+)==(\S+)", requirements, re.MULTILINE))
    missing = [package for package in packages if package not in found]
    if missing:
        raise ValueError(f"requirements.txt pins no {', '.join(missing)}")
    return [f"{package}=={found[package]}" for package in packages]


def add(source: Path, target: Path, requirements: Path) -> None:
    """Copy what is lacking, and install what it imports.

    Raises:
        OSError: a folder is missing or cannot be written.
        ValueError: a package is not pinned.
        CalledProcessError: pip failed, and said why.
    """
    names = lacking({folder.name for folder in target.iterdir()})
    sys.stdout.write(f"backends of ours: {', '.join(names) or 'none'}\n")
    sys.stdout.flush()
    for name in names:
        shutil.copytree(source / name, target / name)
    shutil.copy2(source / _SHARED, target / _SHARED)
    packages = pins(names, requirements.read_text(encoding="utf-8"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-cache-dir", *packages], check=True)


def main(arguments: Sequence[str]) -> int:
    """Carry out the command line; returns the exit code."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python3 -m harness.server.container.backends SOURCE TARGET REQUIREMENTS\n")
        return 2
    source, target, requirements = map(Path, arguments)
    try:
        add(source, target, requirements)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
