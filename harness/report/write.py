"""Making the page of a results folder, and the one over several."""

import logging
from collections.abc import Sequence
from pathlib import Path

from harness.machine import files
from harness.report import index, links, page
from harness.run.results import recorded_run

logger = logging.getLogger(__name__)


def write(path: Path) -> Path:
    """Write report.html into the folder of a run, and return it.

    Raises:
        ConfigError: that is no run (see `recorded_run.read`), or the page cannot be written.
    """
    run = recorded_run.read(path)
    file = run.result.folder / links.REPORT_NAME
    files.write(file, page.render(run))
    return file


def write_or_warn(folder: Path) -> None:
    """Write the report of a run that has just ended; whatever goes wrong, the result stays."""
    try:
        write(folder)
    except Exception as error:  # results.json is there, and the run counts
        logger.warning("no report.html: %s", error or type(error).__name__)
        logger.debug("traceback", exc_info=True)


def write_all_or_warn(folders: Sequence[Path]) -> Path | None:
    """Once a command has ended: a page over all runs beside its own; and these again, as they know it now.

    Returns:
        That page; None where there is one run only, or it could not be written.
    """
    found = None
    try:
        found = index.write(folders[0].parent)
    except Exception as error:  # as for a page
        logger.warning("no %s: %s", links.INDEX_NAME, error or type(error).__name__)
        logger.debug("traceback", exc_info=True)
    for folder in folders if len(folders) > 1 else ():
        write_or_warn(folder)
    return found
