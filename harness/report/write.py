"""Making the page of a results folder."""

import logging
from pathlib import Path

from harness.machine import files
from harness.report import page
from harness.run.results import recorded_run

logger = logging.getLogger(__name__)


def write(path: Path) -> Path:
    """Write report.html into the folder of a run, and return it.

    Raises:
        ConfigError: that is no run (see `recorded_run.read`), or the page cannot be written.
    """
    run = recorded_run.read(path)
    file = run.result.folder / page.REPORT_NAME
    files.write(file, page.render(run))
    return file


def write_or_warn(folder: Path) -> None:
    """Write the report of a run that has just ended; whatever goes wrong, the result stays."""
    try:
        write(folder)
    except Exception as error:  # results.json is there, and the run counts
        logger.warning("no report.html: %s", error or type(error).__name__)
        logger.debug("traceback", exc_info=True)
