"""The tables of a report: settings with their origin, the machine, and versions."""

import json
from dataclasses import dataclass
from typing import Any

from harness.run.config.options import OPTIONS
from harness.run.results.recorded_run import RecordedRun

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    name: str
    value: str
    origin: str

    @property
    def is_chosen(self) -> bool:
        """Whether the user asked for it."""
        return self.origin.startswith(COMMAND_LINE)


def options(run: RecordedRun) -> list[Line]:
    """What was asked for: every option, its value, and who decided on it."""
    return [setting for setting in _settings(run) if _is_option(setting.name)]


def of_test(run: RecordedRun) -> list[Line]:
    """What that came to: for LoadGen, for Triton, and for the client."""
    return [setting for setting in _settings(run) if not _is_option(setting.name)]


def _settings(run: RecordedRun) -> list[Line]:
    rows = run.document.get("settings") or []
    return [Line(str(row["name"]), _plain(row["value"]), str(row["origin"])) for row in rows]


def _is_option(name: str) -> bool:
    return name.replace("-", "_") in OPTIONS


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
