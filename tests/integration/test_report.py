"""The reports of real runs, in a real browser: complete, readable on a telephone, and nothing is fetched."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from harness.errors import ConfigError
from harness.machine import paths
from harness.report.screenshots.browser import NAMES, find
from harness.report.write import write
from tests import kinds_of_runs
from tests.integration import browser
from tests.integration.browser import Tab

PHONE_PX, DESKTOP_PX = 390, 1280
WIDTHS_PX = (360, 390, 768, 1200)
CHARTS = {
    # name: fewest elements that are drawn of figures; of a run that is answered at once, too.
    "batch-sizes": 1,
    "request-time": 3,
    "bottleneck": 1,
    "accuracy": 1,
    "load": 1,
}
CHARTS_OF = {
    "mobilenet": {**CHARTS, "latency-histogram": 1, "latency-percentiles": 1, "latency-over-time": 2},
    "ssd-mobilenet": {**CHARTS, "throughput": 2, "batch-times": 1, "batches-over-time": 2},
}
NO_METRICS = "http://127.0.0.1:9/metrics"
DRAWN = """
Object.fromEntries([...document.querySelectorAll("svg")].map(svg => [svg.id,
    [...svg.querySelectorAll("path, rect.bar, circle")].map(e => e.getBoundingClientRect())
        .filter(box => box.width + box.height > 1).length]))
"""
"""A rate that never changes is a flat line, whose box has no height: it is drawn all the same."""


@pytest.fixture(scope="module")
def runs(repository_server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of short runs, by model: a classifier in SingleStream, a detector in Offline.

    The server's metrics are read in the first, and nowhere to be found in the second.
    """
    output = tmp_path_factory.mktemp("reported")
    for model, scenario, length, metrics in (
        ("mobilenet", "SingleStream", ("--count", "32", "--time", "4"), repository_server.metrics_url),
        ("ssd-mobilenet", "Offline", ("--count", "8", "--time", "2"), NO_METRICS),
    ):
        ended = module(
            *("harness", "--model", model, "--platform", "onnxruntime", "--weights", "seeded"),
            *("--dataset", "synthetic", "--scenario", scenario, "--accuracy", *length),
            *("--url", repository_server.grpc_url, "--metrics-url", metrics, "--output", output),
        )
        assert ended.returncode in (0, 1), ended.stderr
        assert (f"no metrics at {metrics}" in ended.stderr) == (metrics == NO_METRICS)
        assert "no report.html" not in ended.stderr
    return {model: next(output.glob(f"*_{model}_onnxruntime_*")) for model in ("mobilenet", "ssd-mobilenet")}


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    found = find()
    if found is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)}): apt-get install chromium")
    with browser.tab(found) as one:
        yield one


def test_a_browser_that_dies_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigError, match="ended by itself"), browser.tab(str(program)):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def opened(tab: Tab, file: Path, **shown: object) -> None:
    """Open a page; nothing may be complained of, and nothing but the page itself may be asked for."""
    tab.show_as(**{"width_px": DESKTOP_PX, **shown})
    tab.open(file)
    asked = [event["request"]["url"] for method, event in tab.events if method == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    complaints = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for method, event in tab.events if method in complaints] == []


def wider_than_the_page(tab: Tab) -> list[str]:
    """What reaches beyond the right edge, but for tables that scroll by themselves."""
    return tab.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && "
        "e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)"
        ".map(e => e.tagName + ' ' + (e.textContent || '').slice(0, 40))"
    )


OVERLAPPING = """
[...document.querySelectorAll("svg")].flatMap(svg => {
    const words = [...svg.querySelectorAll("text")].map(e => [e.textContent, e.getBoundingClientRect()]);
    return words.flatMap(([one, a], at) => words.slice(at + 1)
        .filter(([_, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > a.height / 4)
        .map(([other]) => svg.id + ": " + one + " / " + other));
})
"""
"""A quarter of a line's height is the room above and below its letters."""
CROSSED = """
[...document.querySelectorAll("svg")].flatMap(svg => {
    const lines = [...svg.querySelectorAll("circle, path.curve, path[class^=series], path.dot, line.limit")];
    const points = lines.flatMap(e => {
        const [length, to] = [e.getTotalLength(), e.getScreenCTM()];
        const steps = Math.ceil(length / 2);
        return Array.from({length: steps + 1}, (_, at) => e.getPointAtLength(at / Math.max(steps, 1) * length)
            .matrixTransform(to));
    });
    return [...svg.querySelectorAll("text")].filter(e => {
        const box = e.getBoundingClientRect();
        return points.some(p => p.x > box.left + 1 && p.x < box.right - 1
            && p.y > box.top + box.height / 4 && p.y < box.bottom - box.height / 4);
    }).map(e => svg.id + ": " + e.textContent);
})
"""
"""Words that a curve, a dot or a bound's line runs through."""


@pytest.mark.parametrize("kind", kinds_of_runs.KINDS)
def test_the_page_of_every_kind_of_run_fits_every_screen_in_both_themes(
    tab: Tab, tmp_path: Path, kind: str
) -> None:
    page = write(kinds_of_runs.write(kind, tmp_path / "run"))
    for width_px in WIDTHS_PX:
        for theme in ("light", "dark"):
            opened(tab, page, width_px=width_px, theme=theme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
            assert wider_than_the_page(tab) == []
            assert tab.evaluate(OVERLAPPING) == []
            assert tab.evaluate(CROSSED) == []


ROWS = """
(grid => {
    const rows = {};
    for (const e of grid.children) {
        const box = e.getBoundingClientRect();
        rows[Math.round(box.top)] = (rows[Math.round(box.top)] || 0) + box.width / grid.clientWidth;
    }
    return Object.values(rows);
})(document.querySelector("#load").closest(".plots"))
"""


@pytest.mark.parametrize("kind", ["SingleStream", "Server, found", "Offline", "detection", "peak, not found"])
def test_no_row_of_server_and_machine_is_mostly_empty(tab: Tab, tmp_path: Path, kind: str) -> None:
    folder = kinds_of_runs.write(kind, tmp_path / "run")
    if kind == "SingleStream":
        # Where nothing waits, nothing is drawn of it.
        (folder / "performance/run_1/telemetry.json").unlink()
    page = write(folder)
    for width_px in WIDTHS_PX:
        opened(tab, page, width_px=width_px)
        # All but the gaps.
        assert min(tab.evaluate(ROWS)) > 0.9
    opened(tab, page, width_px=710, medium="print")
    assert min(tab.evaluate(ROWS)) > 0.9


@pytest.mark.parametrize(
    "kind",
    [
        *("SingleStream", "MultiStream", "Server, found", "Server, offered", "Server, hopeless", "Offline"),
        *("detection", "peak", "quick"),
    ],
)
def test_an_ordinary_run_is_printed_on_two_pages(tab: Tab, tmp_path: Path, kind: str) -> None:
    opened(tab, write(kinds_of_runs.write(kind, tmp_path / "run")), medium="print")
    printed = tab.call("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"]))) in (1, 2)


@pytest.mark.parametrize("model", ["mobilenet", "ssd-mobilenet"])
@pytest.mark.parametrize(("width_px", "theme"), [(PHONE_PX, "dark"), (DESKTOP_PX, "light")])
def test_a_page_fits_and_each_chart_shows_something(
    tab: Tab, runs: dict[str, Path], model: str, width_px: int, theme: str
) -> None:
    opened(tab, runs[model] / "report.html", width_px=width_px, theme=theme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
    assert wider_than_the_page(tab) == []
    drawn = tab.evaluate(DRAWN)
    # Only what waited or what GPUs did is drawn, in lines that may be level; with one query in flight nothing
    # waits, and of the other run no metrics are known.
    has_metrics_of_gpus = drawn.pop("telemetry", None) is not None
    assert not (has_metrics_of_gpus and model == "ssd-mobilenet")
    assert set(drawn) == set(CHARTS_OF[model])
    assert {name: count for name, count in drawn.items() if count < CHARTS_OF[model][name]} == {}
    letters = tab.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height))"
    )
    assert letters > 10, "labels are too small to be read"


def test_a_detectors_page_shows_what_it_found(tab: Tab, runs: dict[str, Path]) -> None:
    opened(tab, runs["ssd-mobilenet"] / "report.html")
    widths = tab.evaluate("[...document.querySelectorAll('.pictures img')].map(e => e.naturalWidth)")
    assert len(widths) == 4
    assert min(widths) > 0


def test_the_themes_differ_and_print_is_black_on_white_in_both(tab: Tab, runs: dict[str, Path]) -> None:
    colours = "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
    file = runs["mobilenet"] / "report.html"
    seen = {}
    for theme in ("light", "dark"):
        for medium in ("screen", "print"):
            opened(tab, file, theme=theme, medium=medium)
            seen[theme, medium] = tab.evaluate(colours)
    assert luma(seen["light", "screen"][0]) > 230
    assert luma(seen["dark", "screen"][0]) < 40
    assert luma(seen["dark", "screen"][1]) > 200
    for theme in ("light", "dark"):
        assert seen[theme, "print"] == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]


def luma(colour: str) -> float:
    red, green, blue = map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(tab: Tab, runs: dict[str, Path], theme: str) -> None:
    """WCAG 2 AA: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    opened(tab, runs["mobilenet"] / "report.html", theme=theme)
    names = ("ground", "ink", "muted", "accent", "alarm", *(f"series-{number}" for number in range(1, 7)))
    style = "getComputedStyle(document.documentElement)"
    values = tab.evaluate(f"{json.dumps(names)}.map(n => {style}.getPropertyValue('--' + n).trim())")
    palette = dict(zip(names, values, strict=True))
    for name in names[1:5]:
        assert contrast(palette[name], palette["ground"]) >= 4.5, name
    for name in names[5:]:
        assert contrast(palette[name], palette["ground"]) >= 3.0, name


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_comparison_fits_a_telephone_and_has_a_curve_for_each_run(
    tab: Tab, runs: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(runs["mobilenet"], tmp_path / "again")
    file = tmp_path / "compare.html"
    ended = module("harness.compare", runs["mobilenet"], copy, "--output", file)
    assert ended.returncode == 0, ended.stderr
    assert "1.000" in ended.stdout
    opened(tab, file, width_px=PHONE_PX)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE_PX
    assert wider_than_the_page(tab) == []
    assert tab.evaluate("document.querySelectorAll('path.series-1, path.series-2').length") == 4


def test_long_names_and_several_scenarios_are_compared_on_a_telephone_and_on_paper(
    tab: Tab, tmp_path: Path
) -> None:
    compared = ("own model", "Server, offered", "Offline", "Server, found")
    folders = [kinds_of_runs.write(kind, tmp_path / f"{kinds_of_runs.LONG}_{kind}") for kind in compared]
    file = tmp_path / "compare.html"
    ended = module("harness.compare", *folders, "--output", file)
    assert ended.returncode == 0, ended.stderr
    for width_px in WIDTHS_PX:
        opened(tab, file, width_px=width_px)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
        assert wider_than_the_page(tab) == []
        assert tab.evaluate(OVERLAPPING) == []
    opened(tab, file, width_px=PHONE_PX)
    scrolled = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth > e.clientWidth)"
    assert tab.evaluate(scrolled) == [True, True]
    # What does not scroll on paper must not be cut there.
    opened(tab, file, width_px=700, medium="print")
    assert tab.evaluate(scrolled) == [False, False]


def test_a_screenshot_is_as_wide_as_asked_for_as_long_as_the_page_and_in_the_theme(
    tab: Tab, runs: dict[str, Path], tmp_path: Path
) -> None:
    def picture(*options: object) -> npt.NDArray[np.uint8]:
        file = tmp_path / "page.png"
        ended = module("harness.report", runs["mobilenet"], "--screenshot", file, *options)
        assert ended.returncode == 0, ended.stderr
        return cv2.imread(str(file))

    assert picture("--width", 800, "--height", 600).shape == (600, 800, 3)
    height, width, _ = picture("--width", 800).shape
    assert width == 800
    assert height > 1500
    # As the browser that these tests drive lays it out; a telephone has two pixels for one of CSS.
    opened(tab, runs["mobilenet"] / "report.html", width_px=PHONE_PX)
    laid_out = tab.evaluate("document.documentElement.scrollHeight")
    phone = picture("--width", PHONE_PX, "--theme", "dark")
    assert phone.shape == (pytest.approx(2 * laid_out, abs=8), 2 * PHONE_PX, 3)
    assert phone[0].max() < 40
    # Nothing but the ground below the last line, and the last line is there.
    assert (phone[-40:] == phone[-1, 0]).all()
    assert (phone[-200:] != phone[-1, 0]).any()


def module(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)],
        cwd=paths.PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
