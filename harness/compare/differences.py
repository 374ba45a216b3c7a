"""What two runs were not alike in, beside their figures."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.run.config.run_config import REFERENCE_ARGS
from harness.run.mlperf.rounds import Scenario
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Result
from harness.run.telemetry import record

_NO_SETTING = frozenset(
    (
        *("provenance", "model", "platform", "scenarios", "output", "cache", "debug", "save_images", "urls"),
        *("label", "is_anonymous", "notes"),
        *("rpc", "tls_ca", "tls_cert", "tls_key", "headers", "metrics_urls", "find_peak_performance"),
        *REFERENCE_ARGS,
    )
)
"""Of results.json's args: shown elsewhere, or without influence on a figure."""
MISSING = "-"
_PLAN = "LoadGen settings"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Difference:
    """One thing, and its value in each run."""

    group: str
    name: str
    values: tuple[str, ...]


def differences(runs: Sequence[RecordedRun]) -> list[Difference]:
    """Everything that is not the same in all runs, in the order of a report."""
    described = [_described(run) for run in runs]
    keys = dict.fromkeys(key for one in described for key in one)
    found = []
    for key in keys:
        values = tuple(_text(one.get(key)) for one in described)
        # A test that was not started has no plan, which is no difference in each of a plan's settings.
        compared = {
            value
            for value, run, one in zip(values, runs, described, strict=True)
            if key in one or key[0] != _PLAN or run.plan
        }
        if len(compared) > 1:
            found.append(Difference(*key, values))
    return found


def _described(run: RecordedRun) -> dict[tuple[str, str], Any]:
    """By group and name."""
    result, export = run.result, run.export
    server, data, machine = result.server, result.dataset, dataclasses.asdict(result.environment)
    is_elsewhere = server.is_on_this_machine is False
    groups: dict[str, Mapping[str, Any]] = {
        "model": {"model": result.model, "platform": result.platform, "precision": result.precision},
        "weights": {"weights": export.weights, "weights_sha256": export.weights_sha256},
        "data": {"name": data.name, "samples": data.samples, "fingerprint": data.fingerprint},
        _PLAN: {"scenario": run.scenario.value, "mode": run.mode, **_plan(run)},
        "settings": {key: value for key, value in result.args.items() if key not in _NO_SETTING},
        "server": {
            "settings": {key: value for key, value in server.tuning.items() if key != "origin"},
            "config": server.config,
            "client_processes": server.client_processes,
            "servers": len(server.urls),
            "rpc": server.rpc,
            "transport": result.test.transport,
        },
        "versions": {
            "Triton": server.version,
            "LoadGen": result.loadgen,
            "Python": machine["python"],
            "this tool": machine["tool"]["version"],
            "commit": machine["tool"]["commit"],
            "with changes": machine["tool"]["is_dirty"],
            **machine["packages"],
        },
        "machine": {
            **{key: machine[key] for key in ("cpu", "cpus_usable", "memory_bytes", "os", "host")},
            **{name: value for name, value in machine["processor"].items() if name != "mhz"},
            "gpus": [f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]],
            "server's GPUs": _gpus_elsewhere(result),
            "server": f"not known, at {', '.join(server.urls)}" if is_elsewhere else "the client's",
        },
    }
    return {(group, name): value for group, values in groups.items() for name, value in _flat(values)}


def _gpus_elsewhere(result: Result) -> str:
    """Those that the servers' metrics tell of, unless they are the client's machine's."""
    names = {gpu.uuid: gpu.name for gpu in result.environment.gpus}
    told = {gpu.uuid for server in result.test.telemetry for gpu in server.gpus}
    return "" if told == set(names) else record.gpus(result.test.telemetry, names)


def _plan(run: RecordedRun) -> dict[str, Any]:
    """Without the hints that are measured anew for each run; Server's is the rate that it is asked at."""
    hints = {"expected_latency_ns", "scenario", "mode"}
    if run.scenario != Scenario.SERVER:
        hints.add("target_qps")
    plan = dataclasses.asdict(run.plan) if run.plan else {}
    return {"round": run.rules.round, **{key: value for key, value in plan.items() if key not in hints}}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(at): item for at, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _text(value: Any) -> str:
    if value is None or value in ([], ""):
        return MISSING
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:16]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
