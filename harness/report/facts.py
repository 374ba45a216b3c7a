"""The tables of a report: the command, settings with their origin, the machine, and versions."""

import json
import shlex
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from harness.machine.environment import Environment
from harness.machine.host.checkout import Tool
from harness.machine.host.load import Load, used_of
from harness.machine.host.parts import Processor
from harness.run.mlperf.figures import counted
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Result, Setting
from harness.run.telemetry.record import GpuUse, Telemetry
from harness.triton.rpc import Rpc

COMMAND_LINE = "command line"
_BY_DEFAULT = (
    *("default", "model", "round ", "rule", "shipped table", "number of CPUs", "the framework's"),
    *("fewest that LoadGen can judge", "size of the data set"),
)
"""How origins begin that are neither anybody's choice nor measured for the run."""
_TYPED = {"harness": "bench", "harness/__main__.py": "bench", "harness/demo.py": "demo"}
"""What sys.argv has of a module that was run by name, or of its folder, and run.sh's word for it."""
_RPC = {Rpc.OWN: "the harness's own", Rpc.GRPC: "gRPC's library"}


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    name: str
    value: str
    origin: str
    is_chosen: bool = False
    """Whether the user asked for it."""
    is_default: bool = False
    """Whether it is so in every run that nobody set up differently."""


def command(cmdline: str) -> str:
    """A run's command as it is typed, and can be pasted into a shell in the project's folder."""
    try:
        program, *words = shlex.split(cmdline)
    except ValueError:  # empty, or of somebody who does not quote
        return cmdline
    typed = next((word for end, word in _TYPED.items() if f"/{program}".endswith(f"/{end}")), None)
    return shlex.join([*(["./run.sh", typed] if typed else [program]), *words])


def options(run: RecordedRun) -> list[Line]:
    """What was asked for: every option, its value, and who decided on it."""
    return [_line(setting) for setting in run.result.settings if _is_option(setting)]


def of_test(run: RecordedRun) -> list[Line]:
    """What that came to: for LoadGen, for Triton, and for the client."""
    return [_line(setting) for setting in run.result.settings if not _is_option(setting)]


def _line(setting: Setting) -> Line:
    is_chosen = bool(setting.is_given) or setting.origin.startswith(COMMAND_LINE)
    is_default = not is_chosen if _is_option(setting) else setting.origin.startswith(_BY_DEFAULT)
    return Line(setting.name, _plain(setting.value), setting.origin, is_chosen, is_default)


def _is_option(setting: Setting) -> bool:
    # Results that do not tell have options, in a word each, and what they came to, in several.
    return setting.of == "request" or not (setting.of or " " in setting.name)


def served_config(run: RecordedRun) -> str:
    """The model's configuration as Triton told it while it was served; empty where it is not known."""
    config = run.result.server.config
    return json.dumps(config, indent=2) if config else ""


def machine(run: RecordedRun) -> list[tuple[str, str]]:
    """What the run ran on and with."""
    result, environment = run.result, run.result.environment
    server, dataset, metrics = result.server, result.dataset, result.test.telemetry
    samples = "? samples" if dataset.samples is None else counted(dataset.samples, "sample")
    machine = list(_parts(environment))
    if server.is_on_this_machine is False:
        are_told = any(one.readings for one in metrics)
        machine = [
            ("CPU of the server" if are_told else "CPU, memory and GPU", "not known"),
            *((f"{name} of the client", value) for name, value in machine),
        ]
    return [
        *machine,
        *(row for one in metrics for row in _told(one, run, is_one=len(metrics) == 1)),
        ("Triton", f"{server.version or '-'} at {', '.join(server.urls)}"),
        ("Served as", server.entry or "-"),
        ("Settings of the model", server.whose_settings),
        ("Self-test", _self_test(result)),
        ("Transport", result.test.transport or "-"),
        ("Client's gRPC", _RPC[server.rpc] if server.rpc else "-"),
        ("Precision", result.precision or "the file's own"),
        ("Weights", run.export.weights or "-"),
        ("Exported file", f"SHA-256 {(run.export.graph_sha256 or '-')[:16]}"),
        ("Data", f"{dataset.name or '-'}, {samples}"),
        ("Data fingerprint", (dataset.fingerprint or "-")[:16]),
        ("This tool", _version(environment.tool)),
    ]


def versions(run: RecordedRun) -> list[tuple[str, str]]:
    """Of what it ran with besides."""
    environment = run.result.environment
    found = {"LoadGen": run.result.loadgen, "Python": environment.python, **environment.packages}
    return [(name, version) for name, version in found.items() if version]


def load(run: RecordedRun) -> list[str]:
    """How busy the machine was during the test, in sentences; none where it is not known."""
    found, before = run.result.test.load, run.result.others_before
    if found is None:
        return []
    others = f"not known: {found.why_unknown}" if found.others is None else _cpus(found.others, found)
    is_elsewhere = run.result.server.is_on_this_machine is False
    whose = "Client" if is_elsewhere else "Client and server"
    where = " of the client" if is_elsewhere else ""
    sentences = [f"{whose} used {_cpus(found.ours, found)}{where}; others: {others}."]
    if before is not None:
        sentences.append(f"Before the test, others used {_cpus(before, found)}.")
    if round(found.steal or 0.0, 2):
        sentences.append(f"The host of the virtual machine took {_cpus(found.steal, found)} away.")
    return sentences


def _cpus(used: float, of: Load) -> str:
    return used_of(used, of.cpus)


def _parts(environment: Environment) -> list[tuple[str, str]]:
    """The machine; of what a result does not tell, only that for the parts that every machine has."""
    memory, found = environment.memory_bytes, environment.processor
    told = {
        "CPU": f"{environment.cpu or '-'}, {environment.cpus_usable or '?'} usable",
        "Cores": _cores(found),
        "Clock": _clock(found),
        "Microcode": found.microcode,
        "Memory": f"{memory / 2**30:.1f} GiB" if memory else "-",
        "GPU": ", ".join(
            f"{len(list(alike))} x {name}, driver {driver or 'not told'}"
            for (name, driver), alike in groupby((gpu.name, gpu.driver) for gpu in environment.gpus)
        ),
        "System": environment.os or "-",
        "Kernel": environment.kernel,
        "Host": environment.host,
    }
    return [(name, value) for name, value in told.items() if value]


def _cores(found: Processor) -> str:
    """`2 sockets, 64 cores, 128 threads (SMT on), 2 NUMA nodes`."""
    parts = {"socket": found.sockets, "core": found.cores, "thread": found.threads}
    words = [counted(count, name) for name, count in parts.items() if count]
    if found.threads and found.cores:
        words[-1] += f" (SMT {'on' if found.threads > found.cores else 'off'})"
    if found.numa_nodes:
        words.append(counted(found.numa_nodes, "NUMA node"))
    if found.is_virtual:
        words.append("of a virtual machine")
    return ", ".join(words)


def _clock(found: Processor) -> str:
    """`3.40 GHz, up to 3.70 GHz, governor performance`."""
    words = [f"{found.mhz / 1e3:.2f} GHz"] if found.mhz else []
    words += [f"up to {found.highest_mhz / 1e3:.2f} GHz"] if found.highest_mhz else []
    return ", ".join([*words, f"governor {found.governor or 'not told'}"]) if words else ""


def _version(tool: Tool) -> str:
    """`0.1.0, commit 84d90e1a2b3c, with changes that are not in it`."""
    commit = f", commit {tool.commit[:12]}" if tool.commit else ""
    changes = ", with changes that are not in it" if tool.is_dirty else ""
    return f"{tool.version or 'not known'}{commit}{changes}"


def _told(server: Telemetry, run: RecordedRun, *, is_one: bool) -> list[tuple[str, str]]:
    """What a server's metrics say of its machine, beyond what is known of it where it is the client's."""
    at = "" if is_one else f" of {server.url}"
    if server.missing:
        return [(f"Server's metrics{at}", f"none: {server.missing}")]
    rows = [(f"Server's metrics{at}", f"{server.source}, {counted(server.readings, 'reading')}")]
    if server.memory_total_bytes and run.result.server.is_on_this_machine is False:
        rows.append((f"Server's memory{at}", f"{server.memory_total_bytes / 2**30:.1f} GiB"))
    ours = {gpu.uuid for gpu in run.result.environment.gpus}
    for number, gpu in enumerate(server.gpus):
        is_named = gpu.uuid in ours
        rows.append((f"{'Use of ' if is_named else ''}GPU {number}{at}", _gpu(gpu, is_named=is_named)))
    if not server.gpus:
        rows.append((f"GPU{at}", "none in its metrics"))
    elif server.nvml:
        rows.append((f"Clocks of GPUs{at}", f"not known: {server.nvml}"))
    return rows


def _gpu(gpu: GpuUse, *, is_named: bool) -> str:
    """How a GPU was used on average; what it is, unless the machine's parts have its name."""
    size = f"{gpu.memory_total_bytes / 2**30:.0f} GiB" if gpu.memory_total_bytes else ""
    what = ", ".join(filter(None, ("" if is_named else gpu.uuid, size)))
    means = (
        ("{:.0%} busy", gpu.utilisation, 1.0),
        ("{:.1f} GiB used", gpu.memory_used_bytes, 2**-30),
        ("{:.0f} W", gpu.power_w, 1.0),
        ("{:.0f} MHz", gpu.clock_mhz, 1.0),
    )
    used = ", ".join(words.format(told.mean * times) for words, told, times in means if told)
    return ": ".join(filter(None, (what, used)))


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
