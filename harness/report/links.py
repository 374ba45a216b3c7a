"""What is beside a run's page: its own files, and the other runs of the same command."""

import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.report.charts.scale import number
from harness.report.pictures import PICTURES_NAME
from harness.run.mlperf import logs
from harness.run.results.result import RESULTS_NAME, SEARCH_FOLDER, Result, test_folder
from harness.run.results.shelf import results_in
from harness.run.worker import timeline

REPORT_NAME = "report.html"
INDEX_NAME = "index.html"


@dataclass(frozen=True)
class Link:
    """A place, relative to the page."""

    title: str
    href: str
    note: str = ""


def content(result: Result) -> dict[str, list[Link]]:
    """For the page: the files that there are, and what else was measured by the run's command."""
    return {"files": list(_files(result)), "siblings": list(_siblings(result))}


def _files(result: Result) -> Iterator[Link]:
    yield Link(RESULTS_NAME, RESULTS_NAME, "everything")
    for mode in result.tests:
        folder = test_folder(result.folder, mode)
        for name, note in (
            (logs.SUMMARY_LOG, "LoadGen's verdict"),
            (logs.DETAIL_LOG, "LoadGen's figures"),
            (logs.ACCURACY_LOG, "the answers"),
            (timeline.FILE_NAME, "each request"),
        ):
            if (folder / name).is_file():
                yield to(folder / name, result.folder, note=f"{mode}: {note}")
    for name, note in ((SEARCH_FOLDER, "tests of the search"), (PICTURES_NAME, "pictures with boxes")):
        if (result.folder / name).is_dir():
            yield to(result.folder / name, result.folder, note=note)
    folder = result.folder.parent
    if (folder / INDEX_NAME).is_file():
        yield Link(f"{folder.name}/{INDEX_NAME}", f"../{INDEX_NAME}", "all runs in that folder")


def _siblings(result: Result) -> Iterator[Link]:
    if not result.invocation:
        return
    for other in results_in(result.folder.parent, result.invocation):
        if other.folder != result.folder:
            page = to(other.folder / REPORT_NAME, result.folder)
            yield Link(title(other), page.href, figure(other))


def to(place: Path, page_in: Path, *, note: str = "") -> Link:
    """A link from a page in one folder to a place in another."""
    relative = os.path.relpath(place, page_in)
    return Link(relative, urllib.parse.quote(relative), note)


def title(result: Result) -> str:
    """What was measured, in a few words."""
    return f"{result.model} on {result.platform}, {result.label}"


def figure(result: Result) -> str:
    """What came of it: `59.46 samples/s, VALID`."""
    metric, accuracy = None if result.is_of_answers else result.metric, result.accuracy
    words = [f"{number(metric.value)} {metric.unit}"] if metric else []
    words += [f"{accuracy.metric} {accuracy.value:.2%}"] if accuracy and not metric else []
    return ", ".join([*words, result.word])
