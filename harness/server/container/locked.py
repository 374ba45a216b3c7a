"""While an image is built: of requirements.lock, some packages and all that they need.

    python3 locked.py LOCK REQUIREMENTS

Standard library only, and nothing of ours: an image has it before it has pip's packages.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

_CUDA = "# PyTorch's CUDA build"
"""Begins the last part of what `./run.sh lock` writes; images take the CPU build."""

_ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==.*\\\n(?: .*\n)*", re.MULTILINE)
_NEEDED_BY = re.compile(r"^    #(?: via|  ) +([a-z0-9-]+)", re.MULTILINE)
_NAME = re.compile(r"^[\w.-]+", re.MULTILINE)


def locked(names: Iterable[str], lock: str) -> str:
    """The lines of a lock for some packages and all that they need, for pip with --no-deps.

    Raises:
        ValueError: it has no such package.
    """
    entries = {found["name"]: found[0] for found in _ENTRY.finditer(lock.partition(_CUDA)[0])}
    wanted = {re.sub(r"[._]", "-", name).lower() for name in names}
    if missing := wanted - entries.keys():
        raise ValueError(f"the lock has no {', '.join(sorted(missing))}; make it anew: ./run.sh lock")
    chosen: set[str] = set()
    while wanted - chosen:
        chosen |= wanted
        wanted = {name for name, text in entries.items() if chosen.intersection(_NEEDED_BY.findall(text))}
    return "".join(text for name, text in entries.items() if name in chosen)


if __name__ == "__main__":
    lock_file, requirements = map(Path, sys.argv[1:])
    sys.stdout.write(locked(_NAME.findall(requirements.read_text()), lock_file.read_text()))
