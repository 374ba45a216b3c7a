"""Every model on every platform in every scenario: the real command line, LoadGen, Triton and decoder.

Seeded weights and synthetic images; what must hold is that serving answers exactly as the source framework.
"""

import json
from pathlib import Path

import pytest

from harness.models import MODELS
from harness.models.spec import Platform
from harness.rounds import Scenario

PAIRS = [(spec.name, platform) for spec in MODELS.values() for platform in spec.variants]


@pytest.mark.parametrize(("model", "platform"), PAIRS)
def test_serving_agrees_with_the_source_framework(
    model: str, platform: Platform, run_harness, repository_server, tmp_path: Path
) -> None:
    ended = run_harness(
        *("--model", model, "--platform", platform, "--weights", "seeded", "--dataset", "synthetic"),
        *("--scenario", ",".join(Scenario), "--accuracy", "--count", "64", "--qps", "20"),
        *("--url", repository_server.grpc_url, "--output", tmp_path),
    )
    results = {result["scenario"]: result for result in map(json.loads, read_all(tmp_path))}
    assert list(results) == list(Scenario), ended.stderr
    for scenario, result in results.items():
        accuracy = result["accuracy"]
        assert (accuracy["good"], accuracy["total"]) == (64, 64)
        assert accuracy["truth"] == "source framework"
        for test in result["tests"].values():
            assert test["error"] == ""
            assert test["failures"]["requests"] == 0
            assert test["transport"] == "shm"
        # 64 queries are too few for some scenarios' statistics, and slow machines miss the Server bound.
        assert set(map(kind_of, result["reasons"])) <= {"too few", "bound"}, result["reasons"]
        assert result[f"TestScenario.{scenario}"]["percentiles"]["99.0"] > 0
    assert ended.returncode == (1 if any(result["reasons"] for result in results.values()) else 0)


def read_all(folder: Path) -> list[str]:
    """The results.json texts, in the order of the scenarios' runs."""
    files = sorted(folder.glob("*/results.json"), key=lambda file: file.stat().st_mtime)
    return [file.read_text() for file in files]


def kind_of(reason: str) -> str:
    for word in ("too few", "bound"):
        if word in reason:
            return word
    return reason
