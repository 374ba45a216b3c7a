"""What is printed of results."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.answers.accuracy import Accuracy
from harness.errors import ConversionError
from harness.machine.host.load import Load
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rate_search import Probe, Search
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.results.result import Figures, Kind, RateOrigin, Result, Server, Unmeasured, Verdict
from harness.run.results.tables import print_sweep, print_table, reference_line
from harness.run.worker.job import Outcome

AGREEMENT = Accuracy("top-1 agreement", "source framework", 1.0, 32, 1.0, 32)
TOO_FEW = "24 queries are too few"


def result(platform: str, scenario: Scenario, *, is_quick: bool) -> Result:
    return Result(
        model="ssd-mobilenet",
        platform=platform,
        scenario=scenario,
        kind=Kind.QUICK,
        deviations=("seeded weights",),
        verdict=Verdict.INVALID,
        reasons=(TOO_FEW,),
        metric=Metric("throughput", 1234.5, "samples/s"),
        accuracy=AGREEMENT,
        tests={},
        server=Server(),
        args={"is_quick": is_quick},
        cmdline="",
        time=0,
        folder=Path("results/one"),
    )


def printed(rows: list[Result | Unmeasured], capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_sweep(rows)
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_a_sweep_shows_each_model_platform_and_scenario_in_100_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [result("tensorflow-savedmodel", scenario, is_quick=False) for scenario in Scenario]
    lines = printed([*rows], capsys)
    assert [line.split() for line in lines if "tensorflow-savedmodel " in line] == [
        ["ssd-mobilenet", "tensorflow-savedmodel", scenario, "1234", "samples/s", "-", "100.00%", "INVALID"]
        for scenario in Scenario
    ]
    assert max(len(line) for line in lines if "tensorflow-savedmodel " in line) <= 100


def test_a_quick_sweep_says_whether_the_answers_are_right_and_nothing_of_speed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = result("tensorflow-savedmodel", Scenario.OFFLINE, is_quick=True)
    wrong = dataclasses.replace(right, accuracy=dataclasses.replace(AGREEMENT, value=0.75, good=24))
    failed = dataclasses.replace(right, verdict=Verdict.FAILED, accuracy=None, reasons=("no answer",))
    lines = printed([right, wrong, failed], capsys)
    assert lines[0] == "Are the answers right?"
    entry = ["ssd-mobilenet", "tensorflow-savedmodel", "Offline"]
    assert [line.split() for line in lines if line.startswith("ssd-mobilenet ") and " on " not in line] == [
        [*entry, "32", "100.00%", "right"],
        [*entry, "32", "75.00%", "wrong"],
        [*entry, "-", "-", "FAILED"],
    ]
    text = "\n".join(lines)
    assert "INVALID" not in text
    assert "samples/s" not in text
    assert f"Offline wrong: {TOO_FEW}" in text
    assert "Offline FAILED: no answer" in text
    assert "--quick: exit 0 means all answers came and are right; so few queries show no speed." in lines


def test_one_quick_model_has_the_same_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([result("tflite", scenario, is_quick=True) for scenario in Scenario])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "ssd-mobilenet on tflite: are the answers right?"
    assert lines[1].split() == ["Scenario", "Samples", "Accuracy", "Answers"]
    assert [line.split() for line in lines if line.endswith("right")] == [
        [scenario, "32", "100.00%", "right"] for scenario in Scenario
    ]


def test_why_a_result_of_a_sweep_is_invalid_is_said_below_unless_it_was_quick(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed([result("tflite", Scenario.OFFLINE, is_quick=False)], capsys)
    assert f"ssd-mobilenet on tflite, Offline INVALID: {TOO_FEW}" in lines
    assert not any(line.startswith("--quick") for line in lines)


def test_a_model_that_could_not_be_run_has_a_row_and_its_reason_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Unmeasured("mobilenet", "tflite", ConversionError("no [weights] here"))
    lines = printed([broken, result("tflite", Scenario.OFFLINE, is_quick=True)], capsys)
    (row,) = (line for line in lines if line.startswith("mobilenet ") and " on " not in line)
    assert row.split() == ["mobilenet", "tflite", "-", "-", "-", "ERROR"]
    assert "mobilenet on tflite ERROR: no [weights] here" in lines
    assert printed([broken], capsys)[-1] == "mobilenet on tflite ERROR: no [weights] here"
    assert broken.exit_code == 2


def test_a_busy_machine_is_told_of_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    load = Load(2, others=0.94, ours=0.75, steal=0.0)
    tests = {Mode.PERFORMANCE: Outcome(load=load)}
    row = dataclasses.replace(result("tflite", Scenario.OFFLINE, is_quick=False), tests=tests)
    told = "Offline on a busy machine: other processes used 0.94 of 2 CPUs (47%)."
    assert f"ssd-mobilenet on tflite, {told}" in printed([row], capsys)
    print_table([row])
    assert told in capsys.readouterr().out.splitlines()
    quick = dataclasses.replace(row, args={"is_quick": True})
    assert not any("busy" in line for line in printed([quick], capsys))


def plan(bound_ns: int) -> Plan:
    return Plan(Scenario.SERVER, Mode.PERFORMANCE, 1000, 100, 64, 1, bound_ns, 1, 2, 3)


def test_several_bounds_are_told_apart_in_the_table_below_it_and_in_the_references_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        dataclasses.replace(
            result("tflite", Scenario.SERVER, is_quick=False),
            args={"max_latency_s": [0.05, 0.1]},
            tests={Mode.PERFORMANCE: Outcome(plan=plan(bound_ns))},
            figures=Figures(),
        )
        for bound_ns in (50_000_000, 100_000_000)
    ]
    assert [reference_line(row).split()[0] for row in rows] == [
        "TestScenario.Server-0.05",
        "TestScenario.Server-0.1",
    ]
    print_table(rows)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in lines if line.endswith("INVALID")] == ["Server-0.05", "Server-0.1"]
    assert f"Server-0.1 INVALID: {TOO_FEW}" in lines
    one = dataclasses.replace(rows[0], args={"max_latency_s": [0.05]})
    assert reference_line(one).startswith("TestScenario.Server ")


def test_of_loadgens_own_search_no_number_of_tests_is_told() -> None:
    found = Outcome(plan=dataclasses.replace(plan(50_000_000), target_qps=40.0))
    row = dataclasses.replace(
        result("tflite", Scenario.SERVER, is_quick=False),
        tests={Mode.FIND_PEAK: Outcome(), Mode.PERFORMANCE: found},
        search=Search((Probe(40.0, 9.5, is_kept=True, is_confirming=True),)),
        rate_origin=RateOrigin.FOUND,
    )
    assert row.rate_note == "40 queries/s is the highest rate found that keeps the bound"


@pytest.mark.parametrize(
    ("origin", "search", "note"),
    [
        (
            RateOrigin.FOUND,
            Search((Probe(40.0, 9.0, is_kept=True), Probe(40.0, 9.5, is_kept=True, is_confirming=True))),
            "is the highest rate found that keeps the bound, in 2 tests",
        ),
        (RateOrigin.OFFERED, None, "were offered as asked for; more may keep the bound too"),
        (RateOrigin.TRIED, None, "were tried; the highest rate was not found, which takes --time"),
        (
            RateOrigin.TRIED,
            Search((Probe(40.0, 9.5, is_kept=False),)),
            "were tried; the highest rate was not found",
        ),
    ],
)
def test_where_servers_rate_comes_from_is_in_the_table_and_below_it(
    capsys: pytest.CaptureFixture[str], origin: RateOrigin, search: Search | None, note: str
) -> None:
    tests = {Mode.PERFORMANCE: Outcome(plan=dataclasses.replace(plan(50_000_000), target_qps=40.0))}
    row = dataclasses.replace(
        result("tflite", Scenario.SERVER, is_quick=False), tests=tests, search=search, rate_origin=origin
    )
    print_table([row])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith(f"Server, {origin} ") for line in lines)
    assert f"Server: 40 queries/s {note}." in lines
    assert max(map(len, lines[:6])) <= 80


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"kind": Kind.OFFICIAL}, ""),
        ({"kind": Kind.QUICK}, " (quick run)"),
        ({"kind": Kind.UNOFFICIAL}, " (not official)"),
    ],
)
def test_a_table_says_what_kind_of_run_it_is(
    changes: dict[str, Any], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table([dataclasses.replace(result("tflite", Scenario.OFFLINE, is_quick=False), **changes)])
    assert capsys.readouterr().out.splitlines()[0].strip() == f"ssd-mobilenet on tflite{kind}"


def test_a_narrow_terminal_cuts_no_figure_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table([result("tflite", Scenario.SINGLE_STREAM, is_quick=False)])
    printed = capsys.readouterr().out
    assert "SingleStream" in printed
    assert "\u2026" not in printed


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(entry="prod"), ""),
        (Server(entry="prod", is_config_ours=False), "the server's own."),
        (Server(entry="prod", not_applied=("--threads 1",)), "this run's; not applied: --threads 1."),
    ],
)
def test_settings_that_are_not_as_asked_are_told_below_the_table(
    server: Server, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = dataclasses.replace(result("tflite", Scenario.OFFLINE, is_quick=False), server=server)
    print_table([one])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Settings of prod: ")]
    assert lines == ([f"Settings of prod: {said}"] if said else [])
