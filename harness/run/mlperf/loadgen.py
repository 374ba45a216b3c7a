"""MLCommons LoadGen: settings, and one test. The only module that imports mlperf_loadgen.

One process runs one test: LoadGen keeps process-wide state (a configuration counter, a logger thread).
Settings are set field by field from `rounds` rather than by LoadGen's own mlperf.conf, which has forgotten
the models of earlier rounds; a test compares the two for those that it knows.
"""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlperf_loadgen

from harness.run.mlperf.plan import PERCENTILE, Plan
from harness.run.mlperf.rounds import Scenario


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
