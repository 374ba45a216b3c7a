"""The tables of a report: settings with their origin, the machine, and versions."""

import json
from dataclasses import dataclass
from typing import Any

from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Result, Setting
from harness.run.telemetry.record import GpuUse, Telemetry
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
    metrics = result.test.telemetry
    if server.is_on_this_machine is False:
        are_told = any(one.readings for one in metrics)
        machine = [
            ("CPU of the server" if are_told else "CPU, memory and GPU", "not known"),
            *((f"{name} of the client", value) for name, value in machine),
        ]
    rows = [
        *machine,
        *(row for one in metrics for row in _told(one, is_one=len(metrics) == 1)),
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


def _told(server: Telemetry, *, is_one: bool) -> list[tuple[str, str]]:
    """What a server's metrics say of its machine."""
    at = "" if is_one else f" of {server.url}"
    if server.missing:
        return [(f"Server's metrics{at}", f"none: {server.missing}")]
    rows = [(f"Server's metrics{at}", f"{server.source}, {server.readings} readings")]
    if server.memory_total_bytes:
        rows.append((f"Server's memory{at}", f"{server.memory_total_bytes / 2**30:.1f} GiB"))
    rows += [(f"GPU {number}{at}", _gpu(gpu)) for number, gpu in enumerate(server.gpus)]
    driver = server.driver or f"not known: {server.nvml}"
    rows.append((f"GPU driver{at}", driver) if server.gpus else (f"GPU{at}", "none in its metrics"))
    return rows


def _gpu(gpu: GpuUse) -> str:
    """A GPU, and how it was used on average."""
    size = f", {gpu.memory_total_bytes / 2**30:.0f} GiB" if gpu.memory_total_bytes else ""
    means = (
        ("{:.0%} busy", gpu.utilisation, 1.0),
        ("{:.1f} GiB used", gpu.memory_used_bytes, 2**-30),
        ("{:.0f} W", gpu.power_w, 1.0),
        ("{:.0f} MHz", gpu.clock_mhz, 1.0),
    )
    used = ", ".join(words.format(told.mean * times) for words, told, times in means if told)
    return f"{gpu.name or gpu.uuid}{size}{': ' if used else ''}{used}"


def _self_test(result: Result) -> str:
    """How near the answers to the stored inputs were."""
    found = next((test.self_test for test in result.tests.values() if test.self_test), None)
    if found is None:
        return "-"
    others = f", others score up to {found.shortfall:.2g} deviations less there" if found.shortfall else ""
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
