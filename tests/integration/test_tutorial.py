"""The README's tutorial, its commands as they stand, on real weights and photographs."""

import os
import re
import shutil
import subprocess

from harness.machine import paths
from tests.real_data import PHOTOGRAPHS, WEIGHTS, needs_real_data

OWN = {
    "WEIGHTS": str(WEIGHTS / "mobilenet_v1_1.0_224_frozen.pb"),
    "DATA_DIR": str(PHOTOGRAPHS),
}
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
    } == set(OWN)
    return [line for line in lines if not line.startswith("export ")]


def test_the_tutorial_leads_to_reports_and_a_comparison() -> None:
    for folder in RESULTS:
        assert not folder.exists(), f"{folder} is from another run: move it away"
    comparison = paths.RESULTS_DIR / "threads.html"
    try:
        printed = [run(command) for command in commands()]
        assert any("188 of 200" in text or "94.00%" in text for text in printed)
        assert [len(list(folder.glob("*/report.html"))) for folder in RESULTS] == [1, 1, 1]
        assert "threads" in printed[-1], "what was not the same is named"
        assert comparison.stat().st_size > 10_000
    finally:
        for folder in RESULTS:
            shutil.rmtree(folder, ignore_errors=True)
        comparison.unlink(missing_ok=True)


def run(command: str) -> str:
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=paths.PROJECT_ROOT,
        env={**os.environ, **OWN},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout
