"""Where things are kept. The only module that reads MODEL_DIR and DATA_DIR."""

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
STATE_DIR = PROJECT_ROOT / ".state"
"""Everything that this tool makes and that is not a result: server state, weights, data, caches."""

RESULTS_DIR = PROJECT_ROOT / "results"
MODEL_REPOSITORY = PROJECT_ROOT / "model_repository"
BACKENDS_DIR = PROJECT_ROOT / "backends"
SERVER_STATE_DIR = STATE_DIR / "server"
CACHE_DIR = STATE_DIR / "cache"
"""Preprocessed samples and the source framework's predictions; always safe to delete."""


def weights_dir() -> Path:
    """Folder of published and seeded weights: $MODEL_DIR (as the MLPerf reference), else ours."""
    return Path(os.environ.get("MODEL_DIR") or STATE_DIR / "weights").expanduser().absolute()


def data_dir() -> Path | None:
    """Folder of the real data set: $DATA_DIR (as the MLPerf reference), or None where it is not set."""
    value = os.environ.get("DATA_DIR")
    return Path(value).expanduser().absolute() if value else None
