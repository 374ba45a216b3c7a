"""The tables of a report: settings with their origin, the machine, and versions."""

import json
from dataclasses import dataclass
from typing import Any

from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Result, Setting
from harness.triton.rpc import Rpc

COMMAND_LINE = "command line"
_RPC = {Rpc.OWN: "the harness's own", Rpc.GRPC: "gRPC's library"}


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
    return [_line(setting) for setting in run.result.settings if _is_option(setting)]


def of_test(run: RecordedRun) -> list[Line]:
    """What that came to: for LoadGen, for Triton, and for the client."""
    return [_line(setting) for setting in run.result.settings if not _is_option(setting)]


def _line(setting: Setting) -> Line:
    return Line(setting.name, _plain(setting.value), setting.origin)


def _is_option(setting: Setting) -> bool:
    # Results that do not tell have options, in a word each, and what they came to, in several.
    return setting.of == "request" or not (setting.of or " " in setting.name)


def machine(run: RecordedRun) -> list[tuple[str, str]]:
    """What the run ran on and with."""
    result, environment = run.result, run.result.environment
    server, dataset, memory = result.server, result.dataset, environment.memory_bytes
    machine = [
        ("CPU", f"{environment.cpu or '-'}, {environment.cpus_usable or '?'} usable"),
        ("Memory", f"{memory / 2**30:.1f} GiB" if memory else "-"),
        ("System", environment.os or "-"),
    ]
    if server.is_on_this_machine is False:
        machine = [
            ("CPU, memory and GPU", "not known"),
            *((f"{name} of the client", value) for name, value in machine),
        ]
    rows = [
        *machine,
        ("Triton", f"{server.version or '-'} at {', '.join(server.urls)}"),
        ("Served as", server.entry or "-"),
        ("Settings of the model", server.whose_settings),
        ("Self-test", _self_test(result)),
        ("Transport", result.test.transport or "-"),
        ("Client's gRPC", _RPC[server.rpc] if server.rpc else "-"),
        ("Precision", result.precision or "the file's own"),
        ("Weights", run.export.weights or "-"),
        ("Exported file", f"SHA-256 {(run.export.graph_sha256 or '-')[:16]}"),
        ("Data", f"{dataset.name or '-'}, {'?' if dataset.samples is None else dataset.samples} samples"),
        ("Data fingerprint", (dataset.fingerprint or "-")[:16]),
        ("LoadGen", result.loadgen or "-"),
        ("Python", environment.python or "-"),
    ]
    return rows + [(name, version) for name, version in environment.packages.items() if version]


def _self_test(result: Result) -> str:
    """How near the answers to the stored inputs were."""
    found = next((test.self_test for test in result.tests.values() if test.self_test), None)
    if found is None:
        return "-"
    others = f", others score up to {found.shortfall:.2g} deviations less there" if found.shortfall else ""
    if found.difference is not None and found.tolerance:
        others += f", {found.difference:.2g} apart ({found.tolerance:.2g} allowed)"
    tolerance = result.args.get("tolerance")
    given = f" (--tolerance {tolerance:g})" if tolerance else ""
    return f"{found.agreement:.1%} of the answers are the source framework's{others}{given}"


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
