"""Every model on every platform, and every model in every scenario: command line, LoadGen, Triton, decoder.

Seeded weights and synthetic images; what must hold is that serving answers exactly as the source framework.
How a platform answers does not depend on who asks when. So for every change the cheapest classifier is asked
on all platforms in one scenario, and on one in the others; the cheapest detector in every scenario; another
classifier once. `./run.sh test -m nightly` has all of it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.spec import Task
from harness.run.mlperf import logs
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline

# Images of which one takes two cores some seconds: no MultiStream, whose queries are eight of them.
# `./run.sh bench --all --quick` runs that too.
SLOW = {"ssd-resnet34": (2, (Scenario.SINGLE_STREAM, Scenario.SERVER, Scenario.OFFLINE))}

FOR_EVERY_CHANGE: list[tuple[str, Sequence[Platform], Sequence[Scenario]]] = [
    ("mobilenet", list(MODELS["mobilenet"].variants), [Scenario.OFFLINE]),
    (
        "mobilenet",
        [Platform.ONNXRUNTIME],
        [scenario for scenario in Scenario if scenario != Scenario.OFFLINE],
    ),
    ("resnet50", [Platform.ONNXRUNTIME], [Scenario.OFFLINE]),
    ("ssd-mobilenet", [Platform.TFLITE], list(Scenario)),
]


@pytest.fixture
def check(run_harness, repository_server, tmp_path: Path):
    """Run a model on platforms in scenarios, all in one command, and look at everything that it leaves."""

    def run(model: str, platforms: Sequence[Platform], scenarios: Sequence[Scenario], *chosen: str) -> None:
        count, possible = SLOW.get(model, (MODELS[model].quick_sample_count, tuple(Scenario)))
        asked = [scenario for scenario in scenarios if scenario in possible]
        ended = run_harness(
            *("--all", "--quick", "--model", model, "--weights", "seeded", "--dataset", "synthetic"),
            *("--count", count, "--scenario", ",".join(asked), *chosen),
            *("--url", repository_server.grpc_url, "--output", tmp_path),
            timeout=1400,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        results = read_all(tmp_path)
        assert sorted(results) == sorted((p.value, s.value) for p in platforms for s in asked)
        for (platform, scenario), result in results.items():
            check_result(MODELS[model].task, platform, scenario, count, result)
        for folder in tmp_path.glob("*/"):
            check_timelines(folder)
        for platform in platforms:
            assert f" {platform} " in ended.stdout
        reduced = {result["precision"] for result in results.values()} - {None, "fp32"}
        assert all(f"openvino ({precision})" in ended.stdout for precision in reduced)

    return run


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("model", "platforms", "scenarios"),
    FOR_EVERY_CHANGE,
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_serving_agrees_with_the_source_framework(
    model: str, platforms: Sequence[Platform], scenarios: Sequence[Scenario], check
) -> None:
    check(model, platforms, scenarios, *(("--platform", platforms[0]) if len(platforms) == 1 else ()))


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("model", MODELS)
def test_every_platform_agrees_with_the_source_framework_in_every_scenario(model: str, check) -> None:
    check(model, list(MODELS[model].variants), list(Scenario))


def check_result(task: Task, platform: str, scenario: str, samples: int, result: dict[str, Any]) -> None:
    # What it calculates in depends on the CPU.
    assert result["precision"] in (("bf16", "fp32") if platform == "openvino" else (None,))
    check_accuracy(task, result["accuracy"], samples, result["precision"])
    for test in result["tests"].values():
        assert test["error"] == ""
        assert test["failures"]["requests"] == 0
        assert test["transport"] == "shm"
    # So few queries are too few for LoadGen's statistics, and slow machines miss the Server bound.
    assert set(map(kind_of, result["reasons"])) <= {"too few", "bound"}, result["reasons"]
    assert result[f"TestScenario.{scenario}"]["percentiles"]["99.0"] > 0


def check_accuracy(task: Task, accuracy: dict[str, Any], samples: int, precision: str | None) -> None:
    assert accuracy["truth"] == "source framework"
    assert accuracy["total"] == samples
    if task == Task.CLASSIFICATION:
        assert accuracy["good"] == samples
        assert ("near-equal" in accuracy["metric"]) == (precision == "bf16")
    else:
        # Boxes may be reordered by rounding errors, and one in thousands may be kept by only one of the two.
        assert accuracy["value"] >= (0.99 if precision != "bf16" else 0.75)
        assert len(accuracy["figures"]) == 12


def check_timelines(folder: Path) -> None:
    """The timeline tells the latencies that LoadGen tells, to within what passing the query on takes."""
    result = json.loads((folder / "results.json").read_text())
    scenario = Scenario(result["scenario"])
    # LoadGen counts from when a Server query was due, the timeline from when LoadGen issued it. A busy
    # machine may hold a query or two up in between, but not half of them.
    usual_us = 20_000 if scenario in (Scenario.SERVER, Scenario.OFFLINE) else 2_000
    log_dir = folder / "performance" / "run_1"
    log = logs.read_detail(log_dir)
    latencies_us, weights = timeline.query_latencies_us(timeline.load(log_dir / timeline.FILE_NAME), scenario)
    ours_us = np.sort(np.repeat(latencies_us, weights))
    assert len(ours_us) == log.number("result_query_count") or scenario == Scenario.OFFLINE
    for name, share, tolerance_us in (
        ("50.00", 0.5, usual_us),
        ("90.00", 0.9, 500_000),
        ("99.00", 0.99, 500_000),
    ):
        loadgens_us = (log.latency_ns(f"{name}_percentile") or 0) / 1000
        # Rounded down to 1 us.
        assert -1 <= loadgens_us - ours_us[int(len(ours_us) * share)] < tolerance_us, (folder, name)
    recorded = timeline.load(folder / "accuracy" / timeline.FILE_NAME)
    assert recorded.samples.sum() >= result["accuracy"]["total"]


def read_all(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The results by platform and scenario."""
    found = [json.loads(file.read_text()) for file in folder.glob("*/results.json")]
    return {(result["platform"], result["scenario"]): result for result in found}


def kind_of(reason: str) -> str:
    for word in ("too few", "bound"):
        if word in reason:
            return word
    return reason
