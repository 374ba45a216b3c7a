"""The README's tutorial, its commands as they stand but for their --time, on real weights and photographs."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness.machine import paths
from tests.real_data import PHOTOGRAPHS, WEIGHTS, needs_real_data

FROZEN = WEIGHTS / "mobilenet_v1_1.0_224_frozen.pb"
EXPORTED = {"WEIGHTS", "DATA_DIR"}
LENGTH = "--time 10"
RESULTS = [paths.RESULTS_DIR / name for name in ("accuracy", "all-threads", "one-thread")]

pytestmark = needs_real_data


def commands() -> list[str]:
    section = re.search(
        r"^## Tutorial.*?(?=^## )", (paths.PROJECT_ROOT / "README.md").read_text(), re.M | re.S
    )
    assert section
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```", section[0], re.M | re.S)
        for line in block.splitlines()
    ]
    assert {
        line.split("=")[0].removeprefix("export ") for line in lines if line.startswith("export ")
    } == EXPORTED
    assert sum(LENGTH in line for line in lines) == 2
    return [line.replace(LENGTH, "--time 2") for line in lines if not line.startswith("export ")]


def test_the_tutorial_leads_to_reports_and_a_comparison(own_weights: Callable[[Path], Path]) -> None:
    own = {"WEIGHTS": str(own_weights(FROZEN)), "DATA_DIR": str(PHOTOGRAPHS)}
    for folder in RESULTS:
        assert not folder.exists(), f"{folder} is from another run: move it away"
    comparison = paths.RESULTS_DIR / "threads.html"
    try:
        printed = [run(command, own) for command in commands()]
        assert any("188 of 200" in text or "94.00%" in text for text in printed)
        assert [len(list(folder.glob("*/report.html"))) for folder in RESULTS] == [1, 1, 1]
        assert "threads" in printed[-1], "what was not the same is named"
        assert comparison.stat().st_size > 10_000
    finally:
        for folder in RESULTS:
            shutil.rmtree(folder, ignore_errors=True)
        comparison.unlink(missing_ok=True)


def run(command: str, own: dict[str, str]) -> str:
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=paths.PROJECT_ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # 1 is for a measurement that is INVALID: on a busy machine it may have too few queries.
    assert ended.returncode in (0, 1), f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout
