"""The side-by-side benchmark as a user runs it, briefly: real framework, real LoadGen, real Triton."""

import json
import subprocess
from pathlib import Path

import pytest

from harness.run.mlperf.rounds import Scenario
from tests.integration.command import run_command

ROWS = {
    Scenario.SINGLE_STREAM: ["SingleStream p50"],
    Scenario.MULTI_STREAM: ["MultiStream p50"],
    Scenario.SERVER: ["Server p50", "Server p99"],
    Scenario.OFFLINE: ["Offline"],
}
BOUNDS = {"client-bound", "server-bound", "transport-bound"}


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command("harness.bench", *arguments)


@pytest.mark.parametrize(
    "scenarios",
    [
        pytest.param([Scenario.SERVER, Scenario.OFFLINE], id="some"),
        pytest.param(list(Scenario), id="all", marks=pytest.mark.nightly),
    ],
)
def test_every_path_is_measured_in_every_scenario(scenarios: list[Scenario], tmp_path: Path) -> None:
    ended = run_bench("--quick", "--time", 0.3, "--scenario", ",".join(scenarios), "--output", tmp_path)
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("*/bench.json")
    model, null = json.loads(file.read_text())["comparisons"]
    assert model["title"].startswith("mobilenet on onnxruntime")

    rows = {row["name"]: row for row in model["rows"] if not row["name"].startswith(" ")}
    loaded = "Server p99 at 0.8 of our Offline"
    assert list(rows) == [*(name for scenario in scenarios for name in ROWS[scenario]), loaded]
    for name, row in rows.items():
        assert row["median_ours"] > 0
        assert row["median_plain"] > 0
        assert row["ratio_to_plain"] > 0
        assert (row["median_bare"] or 0) > 0 or name.startswith("Server")
    cpu_rows = [row for row in model["rows"] if row["name"].startswith(" ")]
    assert len(cpu_rows) == len(scenarios)
    null_rows = {row["name"]: row for row in null["rows"] if not row["name"].startswith(" ")}
    assert set(null_rows) == {
        "1 in flight, 1 pixel",
        "64 in flight, 1 pixel",
        "64 in flight, 1 pixel, 2 client processes",
        "224x224 float32, shared memory",
        "224x224 float32, in the message",
    }
    for row in [*cpu_rows, *null["rows"]]:
        assert row["median_ours"] > 0
        assert row["median_plain"] > 0

    assert set(model["verdicts"]) == {scenario.value for scenario in scenarios}
    assert set(null["verdicts"]) == set(null_rows)
    for name in ("1 in flight, 1 pixel", "64 in flight, 1 pixel"):
        assert null_rows[name]["median_grpc"] > 0
        assert null["runs"][name][0]["grpc"]["client_us_per_sample"] > 0
    for verdict in [*model["verdicts"].values(), *null["verdicts"].values()]:
        assert verdict["bound"] in BOUNDS
    for scenario in scenarios:
        (turn,) = model["runs"][scenario]
        seen = turn["ours"]["evidence"]
        assert 0 < seen["queue_us"] + seen["compute_us"] < 2 * seen["request_us"]
        assert 0 < seen["instances_busy"] <= 1
        assert seen["executions_by_batch_size"]
    for name in (*rows, "Verdict", "Targets", str(file)):
        assert name in ended.stdout


def test_a_soak_tells_what_client_server_and_stubs_held(tmp_path: Path) -> None:
    ended = run_bench("--soak", "10s", "--null-only", "--output", tmp_path)
    (file,) = tmp_path.glob("*/soak.json")
    (soak,) = json.loads(file.read_text())["soaks"]
    # Whether it is flat is the machine's to say; that it is told is ours.
    assert ended.returncode == (0 if soak["is_flat"] else 1), ended.stderr
    parts = [
        f"{part} {kind}"
        for part in ("client", "server", "stubs")
        for kind in ("RSS", "descriptors", "threads")
    ]
    assert [trend["name"] for trend in soak["trends"]] == [*parts, "/dev/shm"]
    for trend in soak["trends"]:
        assert trend["first"] > 0, trend
        assert trend["name"] in ended.stdout
    assert f"Verdict: {'flat' if soak['is_flat'] else 'NOT FLAT'} (flat: after the first 20%" in ended.stdout


@pytest.mark.nightly
def test_a_fleet_is_measured_told_and_held_against_its_forecasts(tmp_path: Path) -> None:
    ended = run_bench("--fleet", "1,2", "--rounds", 1, "--time", 4, "--output", tmp_path)
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("*/fleet.json")
    fleet = json.loads(file.read_text())
    setups = [(point["rpc"], point["servers"], point["processes"]) for point in fleet["points"]]
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert setups == [(rpc, *pair) for rpc in ("own", "grpcio") for pair in pairs]
    for point in fleet["points"]:
        (run,) = point["runs"]
        assert run["ours"]["samples_per_s"] > 0
        assert min(run["ours"]["samples_by_server"]) > 0
        assert len(run["ours"]["samples_by_server"]) == point["servers"]
        assert run["cores"]["client"] > 0
        assert run["cores"]["servers"] > 0
    assert [one["forecast"]["servers"] for one in fleet["checked"]] == [1, 2]
    for one in fleet["checked"]:
        # How near is the machine's to say; that the arrivals are LoadGen's is not.
        assert 0.5 < one["p50_ms"] / one["forecast"]["p50_ms"] < 2
    for lines in ("verdicts", "past_one_box", "forecasts"):
        assert fleet[lines]
        for line in fleet[lines]:
            assert line in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "resnet51"), "unknown model 'resnet51'"),
        (("--time", "0"), "--time 0 is impossible"),
        (("--soak", "forever"), "--soak 'forever' is no duration"),
        (("--null-only", "--model", "mobilenet"), "takes no --model"),
        (("--null-only", "--output", "/dev/null/here"), "cannot write results to /dev/null/here"),
        (("--null",), "unrecognized arguments: --null"),
        (("--fleet", "1,x"), "--fleet x is impossible"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    ended = run_bench(*arguments)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
