"""MLCommons LoadGen: settings, one test, and the logs it leaves. The only module that imports mlperf_loadgen.

One process runs one test: LoadGen keeps process-wide state (a configuration counter, a logger thread).
Settings are set field by field from `harness.rounds` rather than by LoadGen's own mlperf.conf, which has
forgotten the models of earlier rounds; a test compares the two for those that it knows.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import mlperf_loadgen

from harness.errors import InferenceError
from harness.rounds import Scenario


class Mode(StrEnum):
    """LoadGen's test modes that this harness runs."""

    PERFORMANCE = "PerformanceOnly"
    ACCURACY = "AccuracyOnly"
    FIND_PEAK = "FindPeakPerformance"


# LoadGen's own minimum latency percentiles (mlperf.conf, every round since v0.5 but v0.5's 97 % MultiStream).
PERCENTILE = {Scenario.SINGLE_STREAM: 0.90, Scenario.MULTI_STREAM: 0.99, Scenario.SERVER: 0.99}


@dataclass(frozen=True)
class Plan:
    """Everything that LoadGen is told about one test."""

    scenario: Scenario
    mode: Mode
    min_duration_ms: int
    min_query_count: int
    performance_sample_count: int
    samples_per_query: int
    server_target_latency_ns: int
    qsl_seed: int
    sample_index_seed: int
    schedule_seed: int
    target_qps: float = 1.0
    """Server: the offered rate. Offline: the expected throughput, which sizes its one query."""
    expected_latency_ns: int = 1_000_000
    """SingleStream and MultiStream: of one query, which sizes the list of queries made beforehand."""


SUMMARY_LOG = "mlperf_log_summary.txt"
DETAIL_LOG = "mlperf_log_detail.txt"
ACCURACY_LOG = "mlperf_log_accuracy.json"


_NO_NUMBER = re.compile(r'("value": *)-?(?:nan|inf)\b')


def version() -> str:
    """Version of the installed LoadGen."""
    return metadata.version("mlcommons-loadgen")


def complete(response_ids: Sequence[int], address: int, stride: int, sizes: Sequence[int]) -> None:
    """Hand the payloads of samples to LoadGen, which copies what it logs before this returns.

    Args:
        response_ids: LoadGen's handles of the samples.
        address: of the first payload.
        stride: bytes from the start of one payload to that of the next.
        sizes: bytes of each payload.
    """
    response = mlperf_loadgen.QuerySampleResponse
    mlperf_loadgen.QuerySamplesComplete(
        [
            response(response_id, address + position * stride, size)
            for position, (response_id, size) in enumerate(zip(response_ids, sizes, strict=True))
        ]
    )


def run(
    plan: Plan,
    log_dir: Path,
    *,
    total_sample_count: int,
    load: Callable[[list[int]], None],
    unload: Callable[[list[int]], None],
    issue: Callable[[list[int], list[int]], None],
    flush: Callable[[], None],
) -> None:
    """Run one test; returns when it is over. No callback may raise.

    Args:
        plan: the settings.
        log_dir: an existing, writable folder for LoadGen's logs.
        total_sample_count: size of the data set.
        load: called with the sample indices to hold in memory, before they are queried.
        unload: called with them afterwards; may repeat indices.
        issue: called with the response ids and the sample indices of a query.
        flush: called after the last query.
    """
    sut = mlperf_loadgen.ConstructFastSUT(issue, flush)
    qsl = mlperf_loadgen.ConstructQSL(total_sample_count, plan.performance_sample_count, load, unload)
    log_settings = mlperf_loadgen.LogSettings()
    log_settings.enable_trace = False
    output = mlperf_loadgen.LogOutputSettings()
    output.outdir = str(log_dir)
    log_settings.log_output = output
    # A left-over audit.config in the working directory would silently turn this into another test.
    no_audit = str(log_dir / "no-audit.config")
    mlperf_loadgen.StartTestWithLogSettings(sut, qsl, settings(plan), log_settings, no_audit)
    mlperf_loadgen.DestroyQSL(qsl)
    mlperf_loadgen.DestroyFastSUT(sut)


def settings(plan: Plan) -> Any:
    """LoadGen's TestSettings of a plan."""
    result = mlperf_loadgen.TestSettings()
    result.scenario = getattr(mlperf_loadgen.TestScenario, plan.scenario.value)
    result.mode = getattr(mlperf_loadgen.TestMode, plan.mode.value)
    result.min_duration_ms = plan.min_duration_ms
    result.min_query_count = plan.min_query_count
    result.performance_sample_count_override = plan.performance_sample_count
    result.qsl_rng_seed = plan.qsl_seed
    result.sample_index_rng_seed = plan.sample_index_seed
    result.schedule_rng_seed = plan.schedule_seed
    result.single_stream_expected_latency_ns = plan.expected_latency_ns
    result.single_stream_target_latency_percentile = PERCENTILE[Scenario.SINGLE_STREAM]
    result.multi_stream_expected_latency_ns = plan.expected_latency_ns
    result.multi_stream_target_latency_percentile = PERCENTILE[Scenario.MULTI_STREAM]
    result.multi_stream_samples_per_query = plan.samples_per_query
    result.server_target_qps = plan.target_qps
    result.server_target_latency_ns = plan.server_target_latency_ns
    result.server_target_latency_percentile = PERCENTILE[Scenario.SERVER]
    result.offline_expected_qps = plan.target_qps
    return result


@dataclass(frozen=True)
class DetailLog:
    """`mlperf_log_detail.txt`: LoadGen's own account of a test, from which every figure is taken."""

    values: dict[str, Any]
    """Last value by key."""
    errors: tuple[str, ...]
    messages: tuple[str, ...] = ()
    """What LoadGen said in passing, in order."""

    def number(self, key: str) -> float | None:
        """A figure, or None where this kind of test has none."""
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def latency_ns(self, figure: str) -> float | None:
        """A latency of queries: `mean`, or a percentile such as `99.00_percentile`; None where there is none.

        Of MultiStream LoadGen logs it under keys of its own: the usual ones are of samples there, which may
        be answered before the rest of their query.
        """
        keys = (f"{figure}_query_latency_ns", f"{figure}_per_query_latency_ns", f"{figure}_latency_ns")
        return next((value for key in keys if (value := self.number(f"result_{key}")) is not None), None)


def read_detail(log_dir: Path) -> DetailLog:
    """Read the detail log of a finished test.

    Raises:
        InferenceError: it is missing or cut short: LoadGen did not finish.
    """
    path = log_dir / DETAIL_LOG
    values: dict[str, Any] = {}
    errors: list[str] = []
    messages: list[str] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith(":::MLLOG "):
                continue
            # Of a single query LoadGen computes rates that are no numbers, which JSON does not have.
            record = json.loads(_NO_NUMBER.sub(r"\1null", line.removeprefix(":::MLLOG ")))
            values[record["key"]] = record["value"]
            if record["key"] == "generic_message":
                messages.append(str(record["value"]))
            if record.get("metadata", {}).get("is_error"):
                errors.append(f"{record['key']}: {record['value']}")
    except (OSError, ValueError, KeyError) as error:
        raise InferenceError(f"LoadGen's {path} cannot be read: {error}") from error
    return DetailLog(values, tuple(errors), tuple(messages))


def read_accuracy(log_dir: Path) -> dict[int, bytes]:
    """Payload by sample index from `mlperf_log_accuracy.json`; the first of a repeated index counts.

    That is the rule of MLCommons' own accuracy scripts.

    Raises:
        InferenceError: the log is missing or damaged.
    """
    path = log_dir / ACCURACY_LOG
    payloads: dict[int, bytes] = {}
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            payloads.setdefault(record["qsl_idx"], bytes.fromhex(record["data"]))
    except (OSError, ValueError, KeyError) as error:
        raise InferenceError(f"LoadGen's {path} cannot be read: {error}") from error
    return payloads
