"""harness.compare: ratios, noise, and what was not the same."""

from pathlib import Path

import numpy as np
import pytest

from harness.compare import __main__ as command
from harness.compare.comparison import compare
from harness.compare.differences import differences
from harness.compare.noise import conclusion
from harness.report.noise import deciding
from harness.run.results import recorded_run
from tests import kinds_of_runs

STEADY_US = np.tile(np.linspace(20_000, 180_000, 50), 40)
"""40 times the same 50 queries: no noise at all between the parts of the run."""


def single_stream(write_run, name: str, metric_ms: float, **changes):
    entry = {"percentiles": {"50.0": 0.01, "90.0": metric_ms / 1e3}, "qps": 70.0, "mean": 0.012}
    return write_run(
        name,
        scenario="SingleStream",
        verdict="VALID",
        metric={"name": "90th percentile latency", "value": metric_ms, "unit": "ms"},
        **{"TestScenario.SingleStream": entry, **changes},
    )


def test_speed_is_above_1_where_latency_is_lower(write_run) -> None:
    runs = [recorded_run.read(single_stream(write_run, name, ms)) for name, ms in (("a", 20.0), ("b", 10.0))]
    assert [row.cells[-1] for row in compare(runs).rows] == ["1.000", "2.000"]


@pytest.mark.parametrize(
    ("rate", "expected"), [(41.0, "2.5% higher: within the noise"), (50.0, "25.0% higher: better, beyond")]
)
def test_rates_that_were_found_are_compared_as_the_rates_they_are(
    write_run, rate: float, expected: str
) -> None:
    runs = [
        recorded_run.read(
            write_run(name, verdict="VALID", rate_origin="found", metric={"value": value}, tests=asked(value))
        )
        for name, value in (("a", 40.0), ("b", rate))
    ]
    found = compare(runs)
    assert f"B against A: rate found {expected}" in found.conclusions[-1]
    assert found.rows[1].cells[1].endswith(" samples/s, found")
    assert found.rows[1].cells[-1] == f"{rate / 40:.3f}"


def asked(rate: float) -> dict[str, object]:
    return {"PerformanceOnly": {"plan": {"target_qps": rate}}}


def test_a_rate_that_was_offered_has_no_ratio_to_one_that_was_found(write_run) -> None:
    runs = [
        recorded_run.read(write_run(origin, verdict="VALID", rate_origin=origin))
        for origin in ("offered", "found")
    ]
    found = compare(runs)
    assert [row.cells[-1] for row in found.rows] == ["1.000", "-"]
    assert [row.cells[1] for row in found.rows] == ["40.00 samples/s, offered", "40.00 samples/s, found"]
    assert "an offered rate and one that was found" in found.conclusions[-1]


@pytest.mark.parametrize(("ms", "shown"), [(20_000.0, "0.001"), (50_000.0, "0.0004"), (0.02, "1000.000")])
def test_a_small_ratio_is_not_0(write_run, ms: float, shown: str) -> None:
    runs = [recorded_run.read(single_stream(write_run, name, of)) for name, of in (("a", 20.0), ("b", ms))]
    assert compare(runs).rows[1].cells[-1] == shown


def test_other_scenarios_have_no_ratio_and_the_reason_is_said(write_run) -> None:
    runs = [recorded_run.read(single_stream(write_run, "a", 20.0)), recorded_run.read(write_run("b"))]
    found = compare(runs)
    assert found.rows[1].cells[-1] == "-"
    assert "Server and SingleStream measure different things" in found.conclusions[-1]


@pytest.mark.parametrize(
    ("spread", "p90_ms", "expected"),
    [
        (0.0, 21.0, "worse, beyond the noise"),
        (0.0, 19.0, "better, beyond the noise"),
        (0.3, 21.0, "within the noise"),
    ],
)
def test_a_difference_is_told_from_noise(write_run, spread: float, p90_ms: float, expected: str) -> None:
    drift = 1 + spread * np.sin(np.arange(2000) / 100)
    first, other = (
        recorded_run.read(single_stream(write_run, name, ms, latencies_us=STEADY_US * drift))
        for name, ms in (("a", 20.0), ("b", p90_ms))
    )
    assert expected in conclusion(deciding(first), deciding(other))


def test_the_noise_is_the_interval_of_the_mean_of_the_parts(write_run) -> None:
    # Eight parts of 20 equal latencies each: 10 and 12 ms in turns. Their mean is 11, their standard
    # deviation 1.0690; 2.365 * 1.0690 / sqrt(8) = 0.8939, of 11 that is 0.0813.
    latencies = np.repeat([10_000, 12_000] * 4, 20)
    run = recorded_run.read(single_stream(write_run, "a", 12.0, latencies_us=latencies))
    assert deciding(run).noise == pytest.approx(0.0813, abs=1e-4)


def test_a_run_that_is_too_short_to_tell_says_so(write_run) -> None:
    short = recorded_run.read(single_stream(write_run, "a", 20.0, latencies_us=STEADY_US[:100]))
    none = recorded_run.read(single_stream(write_run, "b", 20.0))
    assert "100 queries are too few to tell a p90 apart, 160 are needed" in conclusion(
        deciding(short), deciding(short)
    )
    assert "no record of its requests" in conclusion(deciding(none), deciding(short))


def test_one_request_is_one(write_run) -> None:
    one = recorded_run.read(single_stream(write_run, "a", 20.0, latencies_us=STEADY_US[:1]))
    assert "1 query is too few to tell a p90 apart" in conclusion(deciding(one), deciding(one))


def test_what_is_not_the_same_is_listed_with_both_values(write_run) -> None:
    other = write_run(
        "b",
        args={"time_s": 30.0, "output": "/elsewhere"},
        manifest={"weights": "official"},
        server={
            "tuning": {"server": {"threads": 4}},
            "config": {"dynamic_batching": {"max_queue_delay_microseconds": "9"}},
        },
        environment={"packages": {"numpy": "2.0.0"}, "cpu": "another"},
        tests={"PerformanceOnly": {"plan": {"target_qps": 50.0}, "transport": "grpc"}},
    )
    found = compare([recorded_run.read(write_run("a")), recorded_run.read(other)]).differences
    assert {(one.group, one.name): one.values for one in found} == {
        ("settings", "time_s"): ("8", "30"),
        ("weights", "weights"): ("seeded", "official"),
        ("LoadGen settings", "target_qps"): ("39.5", "50"),
        ("server", "settings.server.threads"): ("2", "4"),
        ("server", "config.dynamic_batching.max_queue_delay_microseconds"): ("0", "9"),
        ("server", "transport"): ("shm", "grpc"),
        ("versions", "numpy"): ("1.26.4", "2.0.0"),
        ("machine", "cpu"): ("a CPU", "another"),
    }


def test_of_a_machine_elsewhere_only_its_address_is_known(write_run) -> None:
    runs = [
        recorded_run.read(write_run(str(at), server={"urls": [url], "is_on_this_machine": is_here}))
        for at, (url, is_here) in enumerate(
            (("10.0.0.1:8001", False), ("10.0.0.2:8001", False), ("a:1", True))
        )
    ]
    (one,) = [found for found in compare(runs).differences if found.group == "machine"]
    assert one.values == ("not known, at 10.0.0.1:8001", "not known, at 10.0.0.2:8001", "the client's")


def test_a_run_that_is_not_valid_is_pointed_out(write_run) -> None:
    runs = [
        recorded_run.read(write_run(name, verdict=verdict))
        for name, verdict in (("a", "VALID"), ("b", "FAILED"))
    ]
    found = compare(runs)
    assert "B is FAILED: its figures count for nothing in MLPerf." in found.conclusions
    assert found.rows[1].cells[-1] == "-"


def test_servers_asked_at_different_rates_are_not_ranked_by_what_they_were_asked(write_run) -> None:
    def against_first(target_qps: float) -> str:
        plan = {"PerformanceOnly": {"plan": {"target_qps": target_qps}}}
        other = write_run(f"at_{target_qps}", verdict="VALID", latencies_us=STEADY_US, tests=plan)
        (sentence,) = compare([first, recorded_run.read(other)]).conclusions
        return sentence

    first = recorded_run.read(write_run("a", verdict="VALID", latencies_us=STEADY_US))
    assert "asked at 50.00 and 39.50 queries/s" in against_first(50.0)
    assert "p99 latency 0.0% higher: within the noise" in against_first(39.6)


def test_a_test_that_was_not_started_differs_in_no_setting_of_its_plan(write_run) -> None:
    failed = {"PerformanceOnly": {"plan": None, "transport": ""}}
    runs = [recorded_run.read(path) for path in (write_run("a"), write_run("b", tests=failed))]
    assert [(one.name, one.values) for one in compare(runs).differences] == [("transport", ("shm", "-"))]


def test_lists_of_the_servers_settings_are_compared_item_by_item(write_run) -> None:
    groups = ([{"count": count, "kind": "KIND_CPU"}] for count in (1, 2))
    runs = [
        recorded_run.read(write_run(name, server={"config": {"instance_group": group}}))
        for name, group in zip("ab", groups, strict=True)
    ]
    assert [(one.name, one.values) for one in compare(runs).differences] == [
        ("config.instance_group.0.count", ("1", "2"))
    ]


def test_a_result_of_another_kind_is_one_line(write_run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_run("a")
    write_run("b", environment={"packages": ["numpy"]})
    assert command.main(["a", "b"]) == 2
    error = capsys.readouterr().err
    file = Path("b") / "results.json"
    assert error.startswith(f"error: {file} is not a result of this harness, or of another version: ")
    assert "packages is no object" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "compare.html").exists()


def test_the_page_has_a_curve_for_each_run(write_run, tmp_path, capsys) -> None:
    folders = [str(write_run(name, latencies_us=STEADY_US)) for name in "abc"]
    file = tmp_path / "c.html"
    assert command.main([*folders, "--output", str(file)]) == 0
    page = file.read_text(encoding="utf-8")
    for number in (1, 2, 3):
        assert page.count(f'<path class="series-{number}"') == 2
    assert "http" not in page.replace("http-equiv", "")
    printed = capsys.readouterr().out
    assert "Model, weights, data, settings, server, versions and machine are the same." in printed


@pytest.mark.parametrize(
    ("compared", "title", "curves"),
    [
        (("Offline", "Offline, at once"), "Time of a batch by percentile", 2),
        (("Offline", "SingleStream", "Server, found"), "Latency by percentile", 2),
    ],
)
def test_offline_is_compared_by_its_batches_and_with_nobodys_latency(
    tmp_path, compared: tuple[str, ...], title: str, curves: int
) -> None:
    folders = [str(kinds_of_runs.write(kind, tmp_path / kind)) for kind in compared]
    file = tmp_path / "c.html"
    assert command.main([*folders, "--output", str(file)]) == 0
    picture = file.read_text(encoding="utf-8").partition(f"<h3>{title}</h3>")[2].partition("</svg>")[0]
    assert picture.count('<path class="series-') == curves


def test_the_page_is_beside_the_runs_wherever_it_is_asked_for(
    write_run, tmp_path, monkeypatch, capsys
) -> None:
    folders = [str(write_run(name)) for name in "ab"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert command.main([folders[0], str(Path(folders[1]) / "results.json")]) == 0
    assert (tmp_path / "compare.html").exists()
    assert list(elsewhere.iterdir()) == []
    assert f"Curves: {tmp_path / 'compare.html'}" in capsys.readouterr().out


@pytest.mark.parametrize("given", [["a"], ["a", "nothing"], ["a", "."]])
def test_bad_input_is_one_line_and_exit_code_2(
    write_run, tmp_path, monkeypatch, capsys, given: list[str]
) -> None:
    write_run("a")
    monkeypatch.chdir(tmp_path)
    assert command.main(given) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not (tmp_path / "compare.html").exists()


def test_where_no_page_can_be_written_the_table_is_told_all_the_same(write_run, capsys) -> None:
    assert command.main([str(write_run("a")), str(write_run("b")), "--output", "/dev/full"]) == 2
    told = capsys.readouterr()
    assert "Speed: by MLPerf's metric" in told.out
    assert told.err == "error: cannot write /dev/full: it is no regular file; --output names another file\n"
    assert Path("/dev/full").is_char_device()


def test_another_export_of_the_same_weights_is_no_difference(write_run) -> None:
    same, other = (
        {"weights": "seeded", "weights_sha256": weights, "graph_sha256": graph}
        for weights, graph in (("a" * 16, "1" * 16), ("b" * 16, "2" * 16))
    )
    first, again, different = (
        recorded_run.read(single_stream(write_run, name, 20.0, manifest=manifest))
        for name, manifest in (("a", same), ("b", same | {"graph_sha256": "3" * 16}), ("c", other))
    )
    assert differences([first, again]) == []
    assert [(one.group, one.name) for one in differences([first, different])] == [
        ("weights", "weights_sha256")
    ]


@pytest.mark.parametrize(
    ("uuids", "told"),
    [
        (("GPU-1", "GPU-2"), None),
        (("GPU-1",), "1 x H100"),
        (("GPU-1", "GPU-3"), "1 x H100, 1 x GPU of 0 GiB"),
    ],
)
def test_the_servers_gpus_are_told_unless_they_are_the_machines(write_run, uuids, told: str | None) -> None:
    machine = {"gpus": [{"name": "H100", "driver": "550.54", "uuid": f"GPU-{at}"} for at in (1, 2)]}
    server = {"url": "a:1", "source": "", "readings": 9, "gpus": [{"uuid": uuid} for uuid in uuids]}
    tests = {"PerformanceOnly": {"telemetry": [server]}}
    first, second = write_run("a", environment=machine, tests=tests), write_run("b", environment=machine)
    found = differences([recorded_run.read(first), recorded_run.read(second)])
    assert [one.values for one in found if one.name == "server's GPUs"] == ([(told, "-")] if told else [])


def test_what_the_servers_metrics_said_is_shown_beside_each_other(write_run, tmp_path: Path, capsys) -> None:
    def with_metrics(name: str, *servers: dict[str, object]) -> Path:
        return write_run(name, tests={"PerformanceOnly": {"telemetry": list(servers)}})

    def server(url: str, cpu: float, **gpu: object) -> dict[str, object]:
        gpus = [{"uuid": f"GPU-{url}", "memory_total_bytes": 80 * 2**30, **gpu}] if gpu else []
        return {"url": url, "source": "", "readings": 9, "cpu": {"mean": cpu, "most": 1.0}, "gpus": gpus}

    power = {"mean": 300.0, "most": 700.0}
    both = server("a:1", 0.25, power_w=power, energy_j=1600.0), server("b:1", 0.75, energy_j=0.0)
    runs = [with_metrics("a", *both), with_metrics("b", server("a:1", 0.5)), write_run("c")]
    found = compare([recorded_run.read(run) for run in runs])
    assert {one.name: one.values for one in found.measured} == {
        "CPUs busy, %": ("50.00", "50.00", "-"),
        "power of a GPU, W": ("300.0", "-", "-"),
        "energy of a sample, J": ("2.00", "-", "-"),
    }
    gpus = {one.name: one.values for one in found.differences}["server's GPUs"]
    assert gpus == ("2 x GPU of 80 GiB", "-", "-")
    assert command.main([*map(str, runs), "--output", str(tmp_path / "page.html")]) == 0
    assert "servers' metrics, power of a GPU, W: A 300.0, B -, C -" in capsys.readouterr().out
    assert "The servers' own metrics</h2>" in (tmp_path / "page.html").read_text()
