"""Where things are kept. The only module that reads MODEL_DIR, DATA_DIR, TRITON_URL and MLPERF_TRITON_HOME.

All that is made is kept in one folder: that of $MLPERF_TRITON_HOME, else the checkout's own, else, where that
cannot be written or pip made it, one of the user's (`run.sh` has the same rule for .venv).
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from harness.errors import ConfigError

logger = logging.getLogger(__name__)

PROJECT_ROOT = Path(__file__).resolve().parents[2]
BACKENDS_DIR = PROJECT_ROOT / "backends"
HOME_VARIABLE = "MLPERF_TRITON_HOME"
_STATE, _RESULTS, _REPOSITORY = ".state", "results", "model_repository"


def home_of(checkout: Path, environment: Mapping[str, str]) -> Path:
    """The folder of all that is made.

    Args:
        checkout: where this project is.
        environment: its variables.
    """
    if given := environment.get(HOME_VARIABLE):
        # Not `absolute`, whose errors nobody would catch where this is asked first.
        return Path(os.path.expanduser(given)).absolute()  # noqa: PTH111 - leaves an unknown user's as it is
    places = (checkout / name for name in (_STATE, _RESULTS, _REPOSITORY))
    if not _is_installed(checkout) and all(map(_is_writable, places)):
        return checkout
    # XDG Base Directory Specification 0.8: what is not absolute counts for nothing.
    state = Path(environment.get("XDG_STATE_HOME") or "")
    if not state.is_absolute():
        state = Path(os.path.expanduser("~/.local/state"))  # noqa: PTH111 - where there is no home, too
    return state / "mlperf-triton-vision"


def _is_installed(checkout: Path) -> bool:
    """Whether this is no checkout but was installed as a package."""
    return checkout.name in ("site-packages", "dist-packages")


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made in the one above."""
    return os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK)


HOME_DIR = home_of(PROJECT_ROOT, os.environ)
STATE_DIR = HOME_DIR / _STATE
"""Everything that this tool makes and that is not a result: server state, weights, data, caches."""

RESULTS_DIR = HOME_DIR / _RESULTS
MODEL_REPOSITORY = HOME_DIR / _REPOSITORY
SERVER_STATE_DIR = STATE_DIR / "server"
VARIABLES = ("MODEL_DIR", "DATA_DIR", "TRITON_URL")
"""Of the environment, that are read here."""
CACHE_DIR = STATE_DIR / "cache"
"""Preprocessed samples and the source framework's predictions; always safe to delete."""


def make_home() -> None:
    """Make the folders, and say where they are if that is neither the checkout nor what was asked for.

    Raises:
        ConfigError: they cannot be written.
    """
    for folder in (STATE_DIR, MODEL_REPOSITORY):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            reason = "" if _is_writable(folder) else "it belongs to somebody else, or is read-only"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            raise ConfigError(
                f"cannot write {folder} ({reason}): set {HOME_VARIABLE} to a folder that can be written"
            )
    is_expected = HOME_DIR == PROJECT_ROOT or _is_installed(PROJECT_ROOT)
    if not is_expected and not os.environ.get(HOME_VARIABLE):
        logger.warning(
            "%s cannot be written: models, state and results are in %s ($%s names another folder)",
            *(PROJECT_ROOT, HOME_DIR, HOME_VARIABLE),
        )


def absolute(text: str | Path, folder: Path | None = None) -> Path:
    """An absolute path, as the user wrote it: `~` is a home, other paths are relative to `folder`.

    Args:
        text: what was written.
        folder: what it is relative to; the working directory if not given.

    Raises:
        ConfigError: no file can have that name, or nobody that home.
    """
    try:
        # LoadGen takes paths in UTF-8 only.
        if b"\0" in str(text).encode():
            raise ConfigError(f"{str(text)!r} is no path: it has a null character")
        path = Path(text).expanduser()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{str(text)!r} is no path that can be used: it is not UTF-8") from error
    except RuntimeError as error:
        raise ConfigError(f"{text}: there is no such user, so no such home") from error
    return (folder / path if folder else path).absolute()


def weights_dir() -> Path:
    """Folder of published and seeded weights: $MODEL_DIR (as the MLPerf reference), else ours."""
    return absolute(os.environ.get("MODEL_DIR") or STATE_DIR / "weights")


def weights_dir_origin() -> str:
    """Where that folder's name comes from."""
    return "MODEL_DIR" if os.environ.get("MODEL_DIR") else "default"


def data_dir() -> Path | None:
    """Folder of the real data set: $DATA_DIR (as the MLPerf reference), or None where it is not set."""
    value = os.environ.get("DATA_DIR")
    return absolute(value) if value else None


def server_urls() -> str | None:
    """GRPC addresses of the servers to measure: $TRITON_URL, as in a container beside one, or None."""
    return os.environ.get("TRITON_URL") or None
