"""--output FILE.json: all scenarios of an invocation in one file, in the shape of the reference's.

Written again after each scenario, so that an interrupted invocation leaves what it measured.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.machine import files
from harness.results import Result
from harness.rounds import Scenario

_COMMON = ("runtime", "version", "time", "args", "cmdline")
"""Keys of the reference that are not of one scenario."""


def write(file: Path, config: RunConfig, results: Sequence[Result]) -> None:
    """Write what was measured so far, from each result's own results.json.

    Raises:
        ConfigError: it cannot be written.
    """
    merged: dict[str, Any] = {}
    bounds = iter(config.max_latency_s if len(config.max_latency_s) > 1 else ())
    for result in results:
        document = json.loads((result.folder / "results.json").read_text(encoding="utf-8"))
        for key in _COMMON:
            merged.setdefault(key, document[key])
        key = f"TestScenario.{result.scenario}"
        entry = {**document[key], "verdict": result.verdict, "folder": str(result.folder)}
        # Several bounds are told apart as the reference of 2019 did, which took a list of them.
        bound = next(bounds, None) if result.scenario == Scenario.SERVER else None
        merged[key if bound is None else f"{key}-{bound:g}"] = entry
    files.write(file, json.dumps(merged, indent=2) + "\n")
