"""Which version of this tool it is: the project's number, and git's commit."""

import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from harness.machine.paths import PROJECT_ROOT

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Tool:
    """This tool; None where it does not tell, as a copy without git's folder."""

    version: str | None = None
    commit: str | None = None
    is_dirty: bool | None = None
    """Whether a file that git knows is not as in the commit."""


def tool(root: Path = PROJECT_ROOT) -> Tool:
    """What the checkout in a folder tells of itself."""
    head = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
    # A copy inside somebody's own repository has that one's commit, which says nothing of us.
    if len(head) != 2 or Path(head[0]).resolve() != root.resolve():
        return Tool(_version(root))
    # `-c`: no program that the repository's own settings name is to be run for this.
    changed = _git(root, "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no")
    return Tool(_version(root), head[1], bool(changed))


def _version(root: Path) -> str | None:
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(project.get("project", {}).get("version") or "") or None


def _git(root: Path, *words: str) -> str:
    """What git prints; nothing where there is no git, or no repository."""
    # Inside a hook, git's own variables name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            # Whoever it belongs to: its programs are those that run right now.
            ["git", "-C", str(root), "-c", f"safe.directory={root}", *words],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout
