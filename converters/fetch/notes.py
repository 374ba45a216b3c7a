"""The `.sha256` note beside a file or folder: what was put there, and from what; `sha256sum -c` reads it."""

from collections.abc import Mapping
from pathlib import Path

from harness.machine.files import whole


def note_of(target: Path) -> Path:
    """Where the note is."""
    return target.with_name(f"{target.name}.sha256")


def write(target: Path, checksums: Mapping[str, str], origin: str = "") -> None:
    """Write the note; the caller holds a lock.

    Args:
        target: the file or the folder.
        checksums: sha256 by path, from the target's own folder on.
        origin: what the target was made from, if that is to be compared too.
    """
    head = [f"# {origin}"] if origin else []
    lines = [f"{sha256}  {name}" for name, sha256 in sorted(checksums.items())]
    with whole(note_of(target), is_locked=True) as partial:
        partial.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


def read(target: Path, origin: str = "") -> dict[str, str]:
    """sha256 by path; empty where there is no note, or one of another origin."""
    note = note_of(target)
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    if origin and lines[:1] != [f"# {origin}"]:
        return {}
    pairs = (line.partition("  ") for line in lines if not line.startswith("#"))
    return {name: sha256 for sha256, _, name in pairs}
