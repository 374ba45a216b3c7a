"""The tables of a report: settings with their origin, LoadGen's and Triton's, the machine, and versions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.recorded_run import RecordedRun

COMMAND_LINE = "command line"
_HINTS = ("target_qps", "expected_latency_ns")
_NOT_SETTINGS = ("provenance", "is_official", "is_quick")
"""Of results.json's args: derived from the others."""


@dataclass(frozen=True)
class Setting:
    """One row of a table."""

    name: str
    value: str
    origin: str

    @property
    def is_chosen(self) -> bool:
        """Whether the user asked for it."""
        return self.origin.startswith(COMMAND_LINE)


def settings(run: RecordedRun) -> list[Setting]:
    """What was asked for: every option, its value, and who decided on it."""
    rows = run.document.get("settings")
    if rows:
        return [Setting(str(row["name"]), _plain(row["value"]), str(row["origin"])) for row in rows]
    args = run.document["args"]
    origins = args.get("provenance") or {}
    names = {"scenarios": "scenario", "time_s": "time", "max_latency_s": "max_latency", "urls": "url"}
    return [
        Setting(name, _plain(value), origins.get(name) or origins.get(names.get(name, ""), "-"))
        for name, value in args.items()
        if name not in _NOT_SETTINGS
    ]


def loadgen_settings(run: RecordedRun) -> list[Setting]:
    """What LoadGen was told, and whether a round's rules say so."""
    rules = run.document.get("rules") or {}
    return [
        Setting(name, _plain(value), _loadgen_origin(run, rules, name, value))
        for name, value in run.plan.items()
        if name not in ("scenario", "mode")
    ]


def _loadgen_origin(run: RecordedRun, rules: Mapping[str, Any], name: str, value: Any) -> str:
    if name in _HINTS:
        if run.document["args"].get("qps") is not None and name == "target_qps":
            return f"{COMMAND_LINE}: qps"
        return "calibrated" if run.test.get("calibration") else "LoadGen needs no hint here"
    if name in rules and rules[name] == value:
        return f"round {rules.get('round', '?')}"
    if name == "performance_sample_count":
        return "size of the data set"
    return f"{COMMAND_LINE} (shortened)" if name.startswith("min_") else COMMAND_LINE


def server_settings(run: RecordedRun) -> list[Setting]:
    """How the model was served and asked."""
    server = run.document["server"]
    tuning = dict(server.get("tuning") or {})
    origin = str(tuning.pop("origin", "-"))
    served = dict(tuning.pop("server", {}))
    parameters = served.pop("parameters", ())
    rows = [Setting(name, _zero_is(name, value), origin) for name, value in served.items()]
    rows += [Setting(f"parameter {name}", _plain(value), origin) for name, value in parameters]
    rows += [Setting(f"client: {name}", _plain(value), origin) for name, value in tuning.items()]
    return rows


def _zero_is(name: str, value: Any) -> str:
    return "the server's own" if value == 0 and name != "max_queue_delay_us" else _plain(value)


def machine(run: RecordedRun) -> list[tuple[str, str]]:
    """What the run ran on and with."""
    document, environment = run.document, run.document.get("environment") or {}
    server, manifest, dataset = (document.get(key) or {} for key in ("server", "manifest", "dataset"))
    memory = environment.get("memory_bytes")
    rows = [
        ("CPU", f"{environment.get('cpu', '-')}, {environment.get('cpus_usable', '?')} usable"),
        ("Memory", f"{memory / 2**30:.1f} GiB" if memory else "-"),
        ("System", environment.get("os", "-")),
        ("Triton", f"{server.get('version') or '-'} at {', '.join(server.get('urls', []))}"),
        ("Transport", run.test.get("transport") or "-"),
        ("Precision", document.get("precision") or "the file's own"),
        ("Weights", manifest.get("weights", "-")),
        ("Exported file", f"SHA-256 {manifest.get('graph_sha256', '-')[:16]}"),
        ("Data", f"{dataset.get('name', '-')}, {dataset.get('samples', '?')} samples"),
        ("Data fingerprint", str(dataset.get("fingerprint", "-"))[:16]),
        ("LoadGen", document.get("loadgen", "-")),
        ("Python", environment.get("python", "-")),
    ]
    packages = environment.get("packages") or {}
    return rows + [(name, version) for name, version in packages.items() if version]


def _plain(value: Any) -> str:
    """A value as one would type it."""
    if value is None or value in ([], ()):
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
