"""Where things are kept. The only module that reads MODEL_DIR, DATA_DIR and TRITON_URL."""

import os
from pathlib import Path

from harness.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
STATE_DIR = PROJECT_ROOT / ".state"
"""Everything that this tool makes and that is not a result: server state, weights, data, caches."""

RESULTS_DIR = PROJECT_ROOT / "results"
MODEL_REPOSITORY = PROJECT_ROOT / "model_repository"
BACKENDS_DIR = PROJECT_ROOT / "backends"
SERVER_STATE_DIR = STATE_DIR / "server"
VARIABLES = ("MODEL_DIR", "DATA_DIR", "TRITON_URL")
"""Of the environment, that are read here."""
CACHE_DIR = STATE_DIR / "cache"
"""Preprocessed samples and the source framework's predictions; always safe to delete."""


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
