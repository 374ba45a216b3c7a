"""report.html: what is said of a run, and what is made of a folder that is none."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.errors import ConfigError
from harness.report import __main__ as command
from harness.report import facts, pictures
from harness.report.screenshots import browser
from harness.report.write import write, write_or_warn
from harness.run.results import recorded_run
from harness.run.telemetry import record
from harness.run.telemetry.record import Course
from tests import kinds_of_runs

LATENCIES_US = np.linspace(20_000, 180_000, 800)


def page_of(folder: Path) -> str:
    return write(folder).read_text(encoding="utf-8")


def test_a_page_says_the_verdict_why_and_what_deviates(write_run) -> None:
    page = page_of(write_run("a", latencies_us=LATENCIES_US))
    for words in (
        "INVALID",
        "180.0<small>ms p99 of 100 ms, at 39.50 queries/s offered</small>",
        "MLPerf&#39;s metric, completed samples, is 40.00/s",
        'lower <span class="option">--qps</span> below 40.0 &lt;&amp;&gt;.',
        "<li>P99 latency is 180.00 ms",
        "not an official MLPerf result",
        "Seeded weights; 8 s instead of 600 s.",
        "252 of 256 samples are right",
        "server-bound",
        '<span class="word">bench</span> <span class="word">--model</span>',
    ):
        assert words in page, words
    assert page.count("<svg") == 8
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_one_of_anything_is_in_the_singular(write_run) -> None:
    one = {"requests": 1, "samples": 2, "executions": 1, "executions_by_batch_size": {"2": 1}}
    test = {"statistics": one, "telemetry": [told(readings=1, gpus=[])]}
    document = {"dataset": {"samples": 1}, "accuracy": {"good": 1, "total": 1}}
    document["search"] = {"probes": PROBES[:1]}
    page = page_of(write_run("a", tests={"PerformanceOnly": test}, rate_origin="found", **document))
    for words in (
        ", 2 (1 time).",
        "Share of 1 batch by size",
        "batch of 2: 1 execution,",
        "/metrics, 1 reading<",
        "synthetic, 1 sample<",
        "1 of 1 sample is right",
        "in 1 test.",
    ):
        assert words in page, words


def test_the_percentiles_are_loadgens_whatever_the_timeline_says(write_run) -> None:
    page = page_of(write_run("a", latencies_us=LATENCIES_US / 2))
    assert "p99 latency</dt><dd>180.0 <small>ms" in page


def test_a_run_without_a_timeline_says_that_plots_are_missing(write_run) -> None:
    page = page_of(write_run("a"))
    assert "no record of its requests" in page
    assert 'id="batch-sizes"' in page
    assert 'id="latency-histogram"' not in page


def test_a_run_of_accuracy_only_has_a_page(write_run) -> None:
    folder = write_run("a", metric=None)
    document = json.loads((folder / "results.json").read_text())
    document["tests"]["AccuracyOnly"] = document["tests"].pop("PerformanceOnly")
    document["TestScenario.Server"] = {"total_items": 256}
    (folder / "results.json").write_text(json.dumps(document))
    page = page_of(folder)
    assert "Only accuracy was tested" in page
    assert "98.44%" in page
    assert "<dt>Right</dt><dd>252</dd>" in page
    assert "<h2>Performance</h2>" not in page


def test_a_failed_run_has_a_page(write_run) -> None:
    broken = {
        "PerformanceOnly": {"plan": None, "statistics": None, "error": "the server is gone", "test_s": 0}
    }
    folder = write_run("a", tests=broken, verdict="FAILED", metric=None, accuracy=None)
    document = json.loads((folder / "results.json").read_text())
    document["TestScenario.Server"] = {}
    (folder / "results.json").write_text(json.dumps(document))
    page = page_of(folder)
    assert "Why it is FAILED</h3>" in page
    assert 'class="strip"' not in page


@pytest.mark.parametrize(
    ("kind", "word", "is_void", "why"),
    [("quick", "right", False, ""), ("quick, wrong", "wrong", True, "Why it is wrong</h3>")],
)
def test_a_run_that_asks_for_the_answers_only_tells_of_these_only(
    tmp_path, kind: str, word: str, is_void: bool, why: str
) -> None:
    page = page_of(kinds_of_runs.write(kind, tmp_path / "run"))
    top = page.partition("<h2>Performance</h2>")[0]
    assert f'">{word}</span>' in top
    assert f"Server: {word}</title>" in top
    value = "93.75%" if is_void else "100.00%"
    assert f'<p class="metric{" is-void" if is_void else ""}">{value}<small>top-1 agreement</small>' in top
    assert "This run asks whether the answers are right: so few queries show no speed" in top
    assert ("Why it is" in top, why in top) == (bool(why), True)
    assert "p99" not in top
    assert "INVALID" not in page
    assert "bound 100" not in page


def test_a_run_for_the_answers_that_failed_says_why(write_run) -> None:
    page = page_of(write_run("a", args={"is_quick": True}, verdict="FAILED", reasons=["the server is gone"]))
    assert ">FAILED</span>" in page
    assert "server is gone" in page


def test_only_a_short_run_is_called_quick(write_run) -> None:
    heading = "an official MLPerf result</h3>"
    assert f"Quick run: not {heading}" in page_of(write_run("a"))
    assert f"<h3>Not {heading}" in page_of(write_run("b", kind="unofficial"))


def test_the_machine_of_a_server_elsewhere_is_not_the_clients(write_run) -> None:
    here, elsewhere = (
        dict(facts.machine(recorded_run.read(write_run(name, server={"is_on_this_machine": is_here}))))
        for name, is_here in (("a", True), ("b", False))
    )
    assert here["CPU"] == "a CPU, 2 usable"
    assert "CPU" not in elsewhere
    assert elsewhere["CPU, memory and GPU"] == "not known"
    assert elsewhere["CPU of the client"] == "a CPU, 2 usable"
    assert elsewhere["Memory of the client"] == "16.0 GiB"


def told(**changes: object) -> dict[str, object]:
    """What a server's metrics said, as results.json has it."""
    gpu = {
        "uuid": "GPU-1",
        "memory_total_bytes": 80 * 2**30,
        "utilisation": {"mean": 0.85, "most": 0.9},
        "power_w": {"mean": 612.0, "most": 700.0},
        "energy_j": 400.0,
        "clock_mhz": {"mean": 1755.0, "most": 1980.0},
    }
    server = {"url": "127.0.0.1:8001", "source": "http://127.0.0.1:8002/metrics", "readings": 20}
    memory = {"memory_total_bytes": 125 * 2**30, "cpu": {"mean": 0.5, "most": 0.75}}
    return {**server, **memory, "gpus": [gpu], **changes}


def with_metrics(write_run, name: str, *servers: dict[str, object], **changes: object) -> Path:
    return write_run(name, tests={"PerformanceOnly": {"telemetry": list(servers)}}, **changes)


def test_gpus_and_energy_are_told_by_the_servers_metrics(write_run) -> None:
    folder = with_metrics(write_run, "a", told(), server={"is_on_this_machine": False})
    machine = dict(facts.machine(recorded_run.read(folder)))
    assert machine["CPU of the server"] == "not known"
    assert machine["Server's metrics"] == "http://127.0.0.1:8002/metrics, 20 readings"
    assert machine["Server's memory"] == "125.0 GiB"
    assert machine["GPU 0"] == "GPU-1, 80 GiB: 85% busy, 612 W, 1755 MHz"
    # 400 J for 800 samples.
    assert "<dt>Energy of a sample</dt><dd>0.500 <small>J, all GPUs" in page_of(folder)


def test_what_is_known_of_this_machine_is_not_told_again_by_its_servers_metrics(write_run) -> None:
    gpu = {"name": "NVIDIA H100 80GB HBM3", "driver": "550.54.15", "uuid": "GPU-1"}
    folder = with_metrics(write_run, "a", told(), environment={"gpus": [gpu], "memory_bytes": 125 * 2**30})
    machine = dict(facts.machine(recorded_run.read(folder)))
    assert machine["GPU"] == "1 x NVIDIA H100 80GB HBM3, driver 550.54.15"
    assert machine["Use of GPU 0"] == "80 GiB: 85% busy, 612 W, 1755 MHz"
    assert not {"GPU 0", "Server's memory"} & machine.keys()


def test_metrics_that_are_missing_are_said_to_be_for_each_server(write_run) -> None:
    why = "no metrics at http://b:8002/metrics (timed out): see --metrics-url"
    unnamed = {"url": "c:8001", "gpus": [{"uuid": "GPU-1"}], "nvml": "not here"}
    folder = with_metrics(
        write_run, "a", told(gpus=[]), told(url="b:8001", readings=0, missing=why), told(**unnamed)
    )
    machine = dict(facts.machine(recorded_run.read(folder)))
    assert machine["GPU of 127.0.0.1:8001"] == "none in its metrics"
    assert machine["Server's metrics of b:8001"] == f"none: {why}"
    assert machine["GPU 0 of c:8001"] == "GPU-1"
    assert machine["Clocks of GPUs of c:8001"] == "not known: not here"
    assert "Energy of a sample" not in page_of(folder)


def test_the_course_of_the_metrics_is_drawn_where_there_is_one(write_run) -> None:
    folder = write_run("a", latencies_us=LATENCIES_US)
    without = page_of(folder)
    assert 'id="telemetry"' not in without
    course = Course("127.0.0.1:8001", (0.0, 1.0), (0.5, 0.75), (0.0, 3.0), (None, None), (None, None))
    record.save([course], folder / "performance" / "run_1")
    page = page_of(folder)
    assert page.count("<svg") == without.count("<svg") + 1
    assert "CPUs 62% busy on average; up to 3.00 requests waiting." in page
    assert "How busy its machine&#39;s CPUs were, and below it the requests" in page
    (folder / "performance" / "run_1" / record.FILE_NAME).write_text("[")
    with pytest.raises(ConfigError, match=r"telemetry\.json is damaged"):
        page_of(folder)


def test_cpus_that_the_machines_own_load_tells_are_not_drawn_again(write_run) -> None:
    load = {"cpus": 2, "others": 0.1, "ours": 1.0, "steal": 0.0, "series": {"span_s": 1.0, "ours": [1.0]}}
    folder = write_run("a", tests={"PerformanceOnly": {"load": load}}, server={"is_on_this_machine": True})
    course = Course("127.0.0.1:8001", (0.0, 1.0), (0.5, 0.75), (0.0, 3.0), (None, None), (None, None))
    record.save([course], folder / "performance" / "run_1")
    page = page_of(folder)
    assert "In all: " not in page.partition('id="telemetry"')[2].partition("</svg>")[0]
    assert "Up to 3.00 requests waiting." in page
    assert "The requests that waited in Triton&#39;s queue; read once a second." in page


def test_a_server_with_settings_of_its_own_and_its_self_test_are_told(write_run) -> None:
    folder = write_run("a")
    document = json.loads((folder / "results.json").read_text())
    document["server"] |= {"entry": "prod/3", "is_config_ours": False, "not_applied": ["--threads 1"]}
    document["tests"]["PerformanceOnly"]["self_test"] = {"samples": 4, "agreement": 0.75, "shortfall": 0.031}
    document["args"]["tolerance"] = 0.05
    (folder / "results.json").write_text(json.dumps(document))
    page = page_of(folder)
    for words in (
        "prod/3",
        "the server&#39;s own; not applied: --threads 1",
        "75.0% of the answers are the source framework&#39;s, others score up to 0.031 deviations less there "
        "(--tolerance 0.05)",
    ):
        assert words in page, words


def test_several_servers_have_a_table_and_a_line_of_how_evenly_they_shared(write_run) -> None:
    statistics = {"requests": 400, "failures": 0, "samples": 400, "executions": 200}
    times = {
        "queue_ns": 800_000_000,
        "compute_input_ns": 0,
        "compute_infer_ns": 10**9,
        "compute_output_ns": 0,
    }
    shares = [
        {
            "url": url,
            "transport": transport,
            "statistics": {**statistics, **times, "executions_by_batch_size": {"2": 200}},
        }
        for url, transport in (("10.0.0.1:8001", "shm"), ("10.0.0.2:8001", "grpc"))
    ]
    page = page_of(write_run("a", tests={"PerformanceOnly": {"shares": shares}}))
    assert "Balance: 2 servers answered 50.0% to 50.0% of the samples each (even is 50.0%)." in page
    row = '<th scope="row">10.0.0.2:8001</th>' + "".join(
        f'<td class="figure">{value}</td>' for value in ("400", "50.0%", "2.00", "2", "2.5")
    )
    assert f"{row}<td>grpc</td>" in page
    assert "Each server" not in page_of(write_run("b"))


def test_a_test_that_never_ran_has_no_duration(write_run) -> None:
    assert "<dt>Duration</dt>" in page_of(write_run("a"))
    assert "<dt>Duration</dt>" not in page_of(write_run("b", tests={"PerformanceOnly": {"test_s": 0.0}}))


PROBES = [
    {"rate": rate, "p99_ms": p99_ms, "is_kept": p99_ms < 100, "is_confirming": p99_ms == 95.0}
    for rate, p99_ms in ((30.0, 50.0), (50.0, 900.0), (40.0, 90.0), (40.0, 95.0))
]


def test_a_search_is_drawn_with_each_rate_and_the_bound_and_the_rate_is_called_found(write_run) -> None:
    page = page_of(write_run("a", search={"probes": PROBES}, rate_origin="found"))
    # The figure that it is unsure of is beside the interval: what was completed of it is another one.
    assert "40.00<small>samples/s, at 39.50 \N{PLUS-MINUS SIGN}25.0% queries/s found</small>" in page
    assert "in 4 tests. \N{PLUS-MINUS SIGN}, of that rate: as far as" in page
    assert 'class="noise"' not in page
    assert "39.5 queries/s is the highest rate found that keeps the bound, in 4 tests." in page
    (picture,) = [part for part in page.split("<svg ")[1:] if part.startswith('id="probes"')]
    picture = picture.partition("</svg>")[0]
    assert "50.00/s 900.0 ms not kept" in picture
    assert (picture.count('class="dot"'), picture.count('class="dot alarm"')) == (3, 1)
    assert picture.count('r="5"') == 1
    assert picture.count('class="limit"') == 1


def test_why_a_search_went_no_higher_is_said(write_run) -> None:
    page = page_of(write_run("a", search={"probes": PROBES}, rate_origin="found"))
    assert "The search ended at 40 queries/s, since at 50 p99 was 900.0 ms" in page
    assert "2 tests at 40 queries/s: p99 90.00, 95.00 ms. 40 kept the bound in each of its tests" in page


@pytest.mark.parametrize(("verdict", "is_grey"), [("VALID", False), ("INVALID", True), ("FAILED", True)])
def test_a_figure_that_does_not_count_is_grey(write_run, verdict: str, is_grey: bool) -> None:
    assert ('class="metric is-void"' in page_of(write_run("a", verdict=verdict))) == is_grey


def test_how_sure_the_figure_is_stands_beside_it_or_why_that_is_not_known(write_run) -> None:
    sure = page_of(write_run("a", latencies_us=np.tile(LATENCIES_US, 3), rate_origin="offered"))
    assert re.search(r'180\.0<span class="noise">&plusmn;[\d.]+%</span>', sure)
    short = page_of(write_run("b", latencies_us=LATENCIES_US, rate_origin="offered"))
    assert 'class="noise"' not in short
    assert "How sure it is: 800 queries are too few" in short


def test_offline_has_batches_and_idle_time_instead_of_latencies(tmp_path) -> None:
    page = page_of(kinds_of_runs.write("Offline", tmp_path / "run"))
    for words in (
        "Time of a batch</dt>",
        "Idle at the start</dt>",
        "Idle at the end</dt>",
        "A longer run adds",
    ):
        assert words in page, words
    assert "p99 latency" not in page
    assert "latency-histogram" not in page
    at_once = page_of(kinds_of_runs.write("Offline, at once", tmp_path / "fast"))
    assert (
        "Too few batches to tell how long instances were idle at both ends: 1, where 3 are needed" in at_once
    )
    assert "A longer run adds" not in at_once


def test_a_server_runs_curves_are_from_the_schedule_and_its_lateness_is_told(tmp_path) -> None:
    page = page_of(kinds_of_runs.write("Server, found", tmp_path / "run"))
    assert "by latency since a query was due" in page
    assert "<dt>p99 lateness</dt>" in page
    assert 'id="lateness"' in page


def test_loadgens_own_search_is_drawn_test_by_test(tmp_path) -> None:
    page = page_of(kinds_of_runs.write("peak", tmp_path / "run"))
    assert "The search ended at 40 queries/s, since at 41 p99 was" in page
    (picture,) = [part for part in page.split("<svg ")[1:] if part.startswith('id="probes"')]
    assert picture.partition("</svg>")[0].count("<circle") == 10


def test_a_rate_that_was_given_is_called_offered(write_run) -> None:
    page = page_of(write_run("a", rate_origin="offered"))
    assert "180.0<small>ms p99 of 100 ms, at 39.50 queries/s offered</small>" in page
    assert 'id="probes"' not in page


def test_the_words_of_the_command_stay_whole_and_can_be_copied(write_run) -> None:
    page = page_of(write_run("a"))
    assert '<span class="word">--model</span> <span class="word">mobilenet</span> ' in page


SETTINGS = [
    {"name": "max-latency", "value": [0.1], "origin": "run.toml", "of": "request"},
    {"name": "preprocessing", "value": "imagenet", "origin": "model", "of": "test"},
    {"name": "server: instances", "value": 2, "origin": "rule", "of": "test"},
]


def test_settings_are_shown_with_their_origin_once_each(write_run) -> None:
    folder = write_run("a", settings=SETTINGS)
    run = recorded_run.read(folder)
    assert facts.options(run) == [facts.Line("max-latency", "0.1", "run.toml", is_default=True)]
    assert facts.of_test(run) == [
        facts.Line("preprocessing", "imagenet", "model", is_default=True),
        facts.Line("server: instances", "2", "rule", is_default=True),
    ]
    page = page_of(folder)
    assert page.count("run.toml") == 1
    assert page.count("server: instances") == 1


def test_settings_that_do_not_tell_what_they_are_of_are_told_by_their_names(write_run) -> None:
    rows = [{key: value for key, value in row.items() if key != "of"} for row in SETTINGS[::2]]
    run = recorded_run.read(write_run("a", settings=rows))
    assert [line.name for line in facts.options(run)] == ["max-latency"]
    assert [line.name for line in facts.of_test(run)] == ["server: instances"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is damaged"),
        ("[]", "is not a result"),
        ('{"model": "x"}', "has no 'platform'"),
    ],
)
def test_a_broken_results_json_is_one_line_and_exit_code_2(
    tmp_path, capsys, text: str, complaint: str
) -> None:
    (tmp_path / "results.json").write_text(text)
    assert command.main([str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert complaint in lines[0]


def test_damage_deep_inside_is_found_too(write_run) -> None:
    with pytest.raises(ConfigError, match="not a result of this harness, or of another version"):
        recorded_run.read(write_run("a", tests={"PerformanceOnly": {"statistics": {"requests": "many"}}}))
    with pytest.raises(ConfigError, match="not a result of this harness, or of another version"):
        recorded_run.read(write_run("b", tests={"PerformanceOnly": 3}))


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 1},
        {"settings": [{"name": "count"}]},
        {"deviations": [1]},
        {"manifest": ["x"]},
        {"environment": {"memory_bytes": "many"}},
        {"verdict": "GOOD"},
        {"scenario": "Sever"},
        {"server": {"tuning": {"in_flight": "many"}}},
        {"TestScenario.Server": {"percentiles": {"median": 1.0}}},
    ],
)
def test_damage_of_what_only_the_page_shows_is_one_line_too(write_run, capsys, change) -> None:
    folder = write_run("a", **change)
    assert command.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder / 'results.json'} is not a result of this harness, or of")
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_json_that_is_too_deep_is_damage(write_run) -> None:
    folder = write_run("a")
    (folder / "results.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is damaged"):
        recorded_run.read(folder)


def test_a_damaged_timeline_is_named(write_run) -> None:
    folder = write_run("a")
    (folder / "performance" / "run_1" / "timeline.npz").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="timeline"):
        recorded_run.read(folder)


def test_a_report_that_cannot_be_made_is_a_warning(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        write_or_warn(tmp_path)
    assert len(caplog.records) == 1
    assert "no report.html" in caplog.text


def test_pictures_are_scaled_down_and_bounded(tmp_path, monkeypatch) -> None:
    (tmp_path / "pictures").mkdir()
    for number in (10, 9):
        noise = np.random.default_rng(number).integers(0, 255, (600, 960, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}_image_{number}.jpg"), noise)
        cv2.imwrite(str(tmp_path / "pictures" / "somebody_elses.jpg"), noise)
    found = pictures.embedded(tmp_path)
    assert [(one.name, one.width_px, one.height_px) for one in found.shown] == [
        ("image_9", 720, 450),
        ("image_10", 720, 450),
    ]
    assert all(one.uri.startswith("data:image/jpeg;base64,") for one in found.shown)
    monkeypatch.setattr(pictures, "_MOST_BYTES", len(found.shown[0].uri))
    fewer = pictures.embedded(tmp_path)
    assert (len(fewer.shown), fewer.total) == (1, 2)


def test_pictures_that_the_page_has_no_room_for_are_counted(write_run, monkeypatch) -> None:
    folder = write_run("a")
    (folder / "pictures").mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / "pictures" / f"{number}_image.jpg"), np.zeros((20, 30, 3), np.uint8))
    assert "of 3: the others" not in page_of(folder)
    monkeypatch.setattr(pictures, "_MOST_BYTES", 2 * len(pictures.embedded(folder).shown[0].uri))
    assert "2 of 3: the others are in the folder pictures/" in page_of(folder)


def test_no_browser_is_one_line_and_exit_code_2(write_run, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert browser.find() is None
    folder = write_run("a")
    assert command.main([str(folder), "--screenshot", str(folder / "a.png")]) == 2
    assert "apt-get install chromium" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("option", ["--width", "--height"])
def test_an_impossible_picture_is_one_line_and_exit_code_2(write_run, capsys, option) -> None:
    assert command.main([str(write_run("a")), option, "5"]) == 2
    assert f"error: {option} 5 is impossible" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "complaint"),
    [("exit 1", "makes no picture; does it run headless by hand?"), ("sleep 9", "does not end within 1 s")],
)
def test_a_browser_that_fails_is_one_line_and_no_endless_wait(
    write_run, tmp_path, monkeypatch, capsys, program: str, complaint: str
) -> None:
    chromium = tmp_path / "chromium"
    chromium.write_text(f"#!/bin/sh\nexec {program}\n".replace("exec exit", "exit"))
    chromium.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(browser, "_TIMEOUT_S", 1.0)
    assert command.main([str(write_run("a")), "--screenshot", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == f"error: {chromium} {complaint}\n"
    assert not (tmp_path / "a.png").exists()


@pytest.mark.skipif(browser.find() is None, reason="no browser on PATH: apt-get install chromium")
def test_a_picture_ends_where_the_page_ends(tmp_path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src "
        "'unsafe-inline'\"><style>* { margin: 0; background: #fff } @media (prefers-color-scheme: dark) "
        "{ * { background: #000 } }</style><div style='height: 1234px'>&lt;a &quot;page&quot;&gt;</div>"
    )

    def picture(width_px: int, theme: str, height_px: int | None = None) -> tuple[tuple[int, ...], int]:
        png = browser.picture(browser.find(), page, width_px=width_px, height_px=height_px, theme=theme)
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        return image.shape, int(image[-1, -1])

    assert picture(700, "light") == ((1234, 700), 255)
    assert picture(700, "light", 2000) == ((1234, 700), 255)
    # Two pixels for one of CSS, as on a telephone.
    assert picture(300, "dark", 400) == ((800, 600), 0)
