"""Making the page of a results folder."""

import logging
from pathlib import Path

from harness import recorded_run
from harness.report import page

logger = logging.getLogger(__name__)


def write(path: Path) -> Path:
    """Write report.html into the folder of a run, and return it.

    Raises:
        ConfigError: that is no run (see `recorded_run.read`).
        OSError: it cannot be written.
    """
    run = recorded_run.read(path)
    file = run.folder / page.REPORT_NAME
    partial = file.with_suffix(".partial")
    with recorded_run.understood(run.folder / recorded_run.RESULTS_NAME):
        content = page.render(run)
    # File names may hold what UTF-8 does not.
    partial.write_text(content, encoding="utf-8", errors="replace")
    partial.rename(file)
    return file


def write_or_warn(folder: Path) -> None:
    """Write the report of a run that has just ended; whatever goes wrong, the result stays."""
    try:
        write(folder)
    except Exception as error:  # results.json is there, and the run counts
        logger.warning("no report.html: %s", error or type(error).__name__)
        logger.debug("traceback", exc_info=True)
