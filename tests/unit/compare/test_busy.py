"""Runs on a busy machine are compared, and no difference is called one; runs are called as by their user."""

import numpy as np
import pytest

from harness.compare import __main__ as command
from harness.compare.comparison import compare
from harness.run.results import recorded_run

STEADY_US = np.tile(np.linspace(20_000, 180_000, 50), 40)
QUIET = {"cpus": 2, "others": 0.02, "ours": 1.9, "steal": 0.0}
BUSY = {**QUIET, "others": 0.94}


def single_stream(write_run, name: str, metric_ms: float, load: dict[str, float] | None = None, **changes):
    entry = {"percentiles": {"50.0": 0.01, "90.0": metric_ms / 1e3}, "qps": 70.0, "mean": 0.012}
    folder = write_run(
        name,
        latencies_us=STEADY_US,
        scenario="SingleStream",
        verdict="VALID",
        metric={"name": "90th percentile latency", "value": metric_ms, "unit": "ms"},
        **{"TestScenario.SingleStream": entry, "tests": {"PerformanceOnly": {"load": load}}, **changes},
    )
    return recorded_run.read(folder)


@pytest.mark.parametrize("is_first_busy", [True, False])
def test_a_difference_across_a_busy_machine_is_not_called_one(write_run, is_first_busy: bool) -> None:
    loads = (BUSY, QUIET) if is_first_busy else (QUIET, BUSY)
    runs = [
        single_stream(write_run, name, ms, load)
        for name, ms, load in zip("ab", (35.0, 10.0), loads, strict=True)
    ]
    letter = "A" if is_first_busy else "B"
    told, sentence = compare(runs).conclusions
    assert told == f"{letter} was measured on a busy machine: other processes used 0.94 of 2 CPUs (47%)."
    assert sentence.endswith(
        f"but not to be called a difference, since in {letter}, other processes used 0.94 of 2 CPUs (47%)."
    )
    assert "better" not in sentence


def test_on_a_quiet_machine_it_is(write_run) -> None:
    (sentence,) = compare(
        [single_stream(write_run, name, ms, QUIET) for name, ms in (("a", 35.0), ("b", 10.0))]
    ).conclusions
    assert "better, beyond the noise" in sentence


def test_rates_that_were_found_on_a_busy_machine_are_no_difference_either(write_run) -> None:
    runs = [
        recorded_run.read(
            write_run(
                name,
                verdict="VALID",
                rate_origin="found",
                metric={"value": rate},
                tests={"PerformanceOnly": {"load": load}},
            )
        )
        for name, rate, load in (("a", 40.0, QUIET), ("b", 20.0, BUSY))
    ]
    assert "not to be called a difference, since in B" in compare(runs).conclusions[-1]


def test_what_is_within_the_noise_stays_there(write_run) -> None:
    runs = [single_stream(write_run, name, 20.0, BUSY) for name in "ab"]
    assert "within the noise" in compare(runs).conclusions[-1]


def test_a_run_is_called_what_its_user_calls_it(write_run, tmp_path, capsys) -> None:
    for name, label in (("a", "one thread"), ("b", "two threads")):
        single_stream(write_run, name, 20.0, args={"label": label})
    file = tmp_path / "c.html"
    assert command.main([*(str(tmp_path / name) for name in "ab"), "--output", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "A: one thread: mobilenet on onnxruntime, SingleStream (a)" in printed
    assert "are the same." in printed
    assert "two threads: mobilenet on onnxruntime" in file.read_text()


def test_another_machine_or_another_commit_of_this_tool_is_a_difference(write_run) -> None:
    mine = {"processor": {"microcode": "0x1", "mhz": 2000.0}, "tool": {"commit": "1", "is_dirty": False}}
    other = {"processor": {"microcode": "0x2", "mhz": 3000.0}, "tool": {"commit": "2", "is_dirty": False}}
    runs = [
        single_stream(write_run, name, 20.0, environment=env) for name, env in (("a", mine), ("b", other))
    ]
    found = {(one.group, one.name): one.values for one in compare(runs).differences}
    # How fast it ran when it was read is none.
    assert found == {("versions", "commit"): ("1", "2"), ("machine", "microcode"): ("0x1", "0x2")}
