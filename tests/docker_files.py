"""Reading what is in docker/, and laying an image out as a folder: no engine, the same commands and paths."""

import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.machine.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docker"
_TOP_FOLDERS = re.compile(r"(?<![\w.:/-])/(?=(?:opt|models|weights|data|host|control|mnt)\b)")
"""The root folder, before one that our images have."""


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions and their arguments, lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, rest in (line.split(" ", 1) for line in joined)]


def interpolated(node: Any, environment: Mapping[str, str]) -> Any:
    """Fill in ${VAR:-default} and ${VAR:+alternative}, all that our files use."""
    if isinstance(node, dict):
        return {key: interpolated(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, environment) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        given = environment.get(match[1], "")
        return (given or match[3]) if match[2] == "-" else (match[3] if given else "")

    return re.sub(r"\$\{(\w+):([-+])([^}]*)\}", value, node)


def services(name: str, environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services of one compose file."""
    document = yaml.safe_load((FOLDER / name).read_text())
    return dict(interpolated(document, environment or {})["services"])


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """By target: the source of a mount, and whether it is read-only."""
    found = {}
    for volume in service["volumes"]:
        source, target = volume.removesuffix(":ro").rsplit(":", 1)
        found[target] = source, volume.endswith(":ro")
    return found


@dataclass
class Image:
    """A folder that has what an image has."""

    root: Path
    workdir: Path
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def words(self, words: list[str]) -> list[str]:
        """A command line of the image's, for this folder and this interpreter."""
        moved = [_TOP_FOLDERS.sub(f"{self.root}/", word) for word in words]
        return [sys.executable, *moved[1:]] if moved[0] in ("python", "python3") else moved

    def mount(self, target: str, source: Path) -> None:
        """Put a folder of the machine's into the image."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            place.rmdir()  # fails if the mount hid something
        place.symlink_to(source, target_is_directory=True)


def lay_out(dockerfile: Path, root: Path) -> Image:
    """Carry out a Dockerfile in a folder: copies for real, commands by the shell, pip without installing."""
    image = Image(root, root)
    for instruction, rest in instructions(dockerfile):
        match instruction:
            case "WORKDIR":
                image.workdir = root / rest.lstrip("/")
                image.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(rest.split(), image.workdir)
            case "RUN":
                _run(rest, image)
            case "USER":
                image.user = rest
            case "ENTRYPOINT":
                image.entrypoint = yaml.safe_load(rest)
            case "CMD":
                image.command = yaml.safe_load(rest)
            case "FROM" | "ARG":
                pass
            case _:
                raise AssertionError(f"{dockerfile}: {instruction} is not known here")
    return image


def _copy(words: list[str], workdir: Path) -> None:
    *sources, target = words
    for name in sources:
        source, place = PROJECT_ROOT / name, workdir / target
        if source.is_dir():
            # Docker copies a folder's contents.
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif target.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / source.name)
        else:
            raise AssertionError(f"COPY {name} {target}: two files of one name?")


def _run(script: str, image: Image) -> None:
    """Run a build step; only what would change this machine is kept from doing so."""
    tools = image.root / "build tools"
    tools.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    for name, line in {
        "python": f"exec {python}",
        "python3": f"exec {python}",
        "pip": f"exec {python} -m pip",
        "useradd": "exec echo useradd",
    }.items():
        (tools / name).write_text(f'#!/bin/sh\n{line} "$@"\n')
        (tools / name).chmod(0o755)
    script = _TOP_FOLDERS.sub(f"{image.root}/", script)
    script = re.sub(r"--owner=\w+", f"--owner={getpass.getuser()}", script)
    arguments = {"EXTRA_INDEX_URL": "https://index.invalid"}
    subprocess.run(
        ["sh", "-ec", script],
        cwd=image.workdir,
        # Every pin of ours is installed here already, so that pip has nothing to ask an index for.
        env={**os.environ, **arguments, "PATH": f"{tools}:{os.environ['PATH']}", "PIP_DRY_RUN": "1"},
        check=True,
    )
