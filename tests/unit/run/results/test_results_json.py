"""results.json, whose bytes others read: written as it always was, and read back as it was written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.answers.accuracy import Accuracy
from harness.machine.environment import Environment
from harness.machine.host.checkout import Tool
from harness.machine.host.load import Load, Series
from harness.machine.host.parts import Gpu, Processor
from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rate_search import Probe, Search
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.results.result import (
    DataSet,
    Figures,
    Kind,
    RateOrigin,
    Result,
    Server,
    Setting,
    Verdict,
    read_result,
    to_json,
    write_all,
    write_result,
)
from harness.run.telemetry.record import GpuUse, Range, Telemetry
from harness.run.worker.books import Book
from harness.run.worker.job import Failures, Outcome, SelfTest, Share
from harness.run.worker.timeline import Recorded
from harness.triton.rpc import Rpc
from harness.triton.statistics import ServerStatistics

LOG = DetailLog(
    {
        "result_mean_latency_ns": 40_000_001,
        "result_50.00_percentile_latency_ns": 25_000_000,
        "result_90.00_percentile_latency_ns": 90_123_457,
        "result_99.00_percentile_latency_ns": 180_000_000,
        "result_99.90_percentile_latency_ns": 250_000_000,
        "result_query_count": 800,
        "result_completed_samples_per_sec": 39.75,
    },
    (),
)
PLAN = Plan(Scenario.SERVER, Mode.PERFORMANCE, 8000, 800, 256, 1, 100_000_000, 1, 2, 3, 39.5)


def measured(folder: Path) -> Result:
    return Result(
        model="mobilenet",
        platform="onnxruntime",
        precision="bf16",
        scenario=Scenario.SERVER,
        kind=Kind.QUICK,
        deviations=("seeded weights",),
        verdict=Verdict.INVALID,
        reasons=("p99 <&>",),
        metric=Metric("completed samples", 39.75, "samples/s"),
        accuracy=Accuracy("top-1", "source framework", 0.984375, 256, 1.0, 252),
        tests={
            Mode.PERFORMANCE: Outcome(
                plan=PLAN,
                calibration="calibration: 39.5 queries/s",
                self_test=SelfTest(4, agreement=1.0, shortfall=0.25, difference=0.001, tolerance=0.02),
                transport="shm",
                statistics=ServerStatistics(
                    800, 0, 800, 600, 8_000, 160, 20_000, 640, {1: 450, 2: 100, 3: 50}, 12_000
                ),
                shares=(Share("127.0.0.1:8001", "shm", ServerStatistics(1, 2, 3, 4, 5, 6, 7, 8, {1: 3})),),
                books=(Book("127.0.0.1:8001", 800, 799, 0, 800, 800, 600, 0, 70),),
                test_s=20.25,
                client_cpu_s=1.5,
                peak_rss_bytes=1000,
                load=Load(
                    2,
                    others=0.5,
                    ours=1.25,
                    steal=0.0,
                    throttled=3,
                    other_runs=1,
                    series=Series(1.0, (0.25, 0.75), (1.5, 1.0), (0.0, 0.0), (2600.0, 2500.5)),
                ),
                telemetry=(
                    Telemetry(
                        "127.0.0.1:8001",
                        "http://127.0.0.1:8002/metrics",
                        readings=20,
                        cpu=Range(0.5, 0.75),
                        gpus=(GpuUse("GPU-1", power_w=Range(100.0, 120.0), energy_j=2000.0),),
                    ),
                ),
            ),
            Mode.ACCURACY: Outcome(plan=dataclasses.replace(PLAN, mode=Mode.ACCURACY)),
        },
        server=Server(
            version="2.51.0",
            urls=("127.0.0.1:8001",),
            rpc=Rpc.OWN,
            entry="prod/3",
            config={"name": "m", "instance_group": [{"count": 2}]},
            is_config_ours=False,
            not_applied=("--threads 1",),
            is_on_this_machine=True,
            client_processes=1,
            tuning={
                "server": {"instances": 2, "parameters": [["spin", "0"]]},
                "client_batch": 1,
                "in_flight": 2048,
                "origin": "rule",
            },
        ),
        rules={"round": "v6.1", "model_in_round": False},
        manifest={"entry": "mobilenet_onnxruntime", "weights": "seeded"},
        dataset=DataSet("synthetic", 256, "d07c", is_complete=False),
        loadgen="6.0.17",
        environment=Environment(
            "a CPU",
            2,
            1024,
            "Linux",
            "3.11.7",
            {"numpy": "1.26.4", "torch": None},
            "6.18",
            "a host",
            Processor(1, 2, 4, 1, "0x1", "performance", 2600.5, 3700.0, is_virtual=False),
            (Gpu("a GPU", "535.1", "GPU-1"),),
            Tool("0.1.0", "84d90e1", is_dirty=True),
        ),
        settings=(
            Setting("time", 8.0, "command line", "request", is_given=True),
            Setting("server: instances", 2, "rule", "test"),
        ),
        args={
            "model": "mobilenet",
            "scenarios": ["Server"],
            "time_s": 8.0,
            "max_latency_s": [0.05, 0.1],
            "is_quick": False,
        },
        cmdline="bench --model mobilenet",
        time=1795617037,
        figures=Figures.of(LOG, Scenario.SERVER, 20.25),
        search=Search(
            (
                Probe(48.5, 190.5, is_kept=False, is_cut=True),
                Probe(39.5, 180.0, is_kept=True, is_confirming=True),
            )
        ),
        rate_origin=RateOrigin.FOUND,
        invocation="20261128-010203-45",
        others_before=0.125,
        folder=folder,
    )


def failed(folder: Path) -> Result:
    return dataclasses.replace(
        measured(folder),
        verdict=Verdict.FAILED,
        reasons=("gone",),
        metric=None,
        accuracy=Accuracy(
            *("mAP", "data set", 0.25, 5000, None, None, {"AP": 0.25, "AP small": -1.0}, "truth.json"),
            *(9000, 450),
        ),
        tests={
            Mode.PERFORMANCE: Outcome(error="gone", failures=Failures(3, 2, "why", (4, 5), is_fatal=True))
        },
        figures=None,
    )


MEASURED: dict[str, Any] = {
    "runtime": "triton",
    "version": "2.51.0",
    "time": 1795617037,
    "args": {
        "model": "mobilenet",
        "scenarios": ["Server"],
        "time_s": 8.0,
        "max_latency_s": [0.05, 0.1],
        "is_quick": False,
    },
    "cmdline": "bench --model mobilenet",
    "TestScenario.Server": {
        "took": 20.25,
        "mean": 0.040000001,
        "percentiles": {"50.0": 0.025, "90.0": 0.090123457, "99.0": 0.18, "99.9": 0.25},
        "qps": 39.75,
        "count": 800,
        "total_items": 256,
        "good_items": 252,
        "accuracy": 98.4375,
    },
    "model": "mobilenet",
    "platform": "onnxruntime",
    "precision": "bf16",
    "scenario": "Server",
    "kind": "quick",
    "deviations": ["seeded weights"],
    "verdict": "INVALID",
    "reasons": ["p99 <&>"],
    "doubts": [],
    "metric": {"name": "completed samples", "value": 39.75, "unit": "samples/s"},
    "accuracy": {
        "metric": "top-1",
        "truth": "source framework",
        "value": 0.984375,
        "total": 256,
        "threshold": 1.0,
        "good": 252,
        "figures": {},
        "truth_file": "",
        "detections": None,
        "good_detections": None,
        "is_met": False,
    },
    "tests": {
        "PerformanceOnly": {
            "error": "",
            "failures": {
                "samples": 0,
                "requests": 0,
                "first": "",
                "first_sample_indices": [],
                "is_fatal": False,
            },
            "plan": {
                "scenario": "Server",
                "mode": "PerformanceOnly",
                "min_duration_ms": 8000,
                "min_query_count": 800,
                "performance_sample_count": 256,
                "samples_per_query": 1,
                "server_target_latency_ns": 100000000,
                "qsl_seed": 1,
                "sample_index_seed": 2,
                "schedule_seed": 3,
                "target_qps": 39.5,
                "expected_latency_ns": 1000000,
            },
            "calibration": "calibration: 39.5 queries/s",
            "self_test": {
                "samples": 4,
                "agreement": 1.0,
                "shortfall": 0.25,
                "difference": 0.001,
                "tolerance": 0.02,
            },
            "transport": "shm",
            "statistics": {
                "requests": 800,
                "failures": 0,
                "samples": 800,
                "executions": 600,
                "queue_ns": 8000,
                "compute_input_ns": 160,
                "compute_infer_ns": 20000,
                "compute_output_ns": 640,
                "executions_by_batch_size": {"1": 450, "2": 100, "3": 50},
                "executions_ns": 12000,
                "cache_hits": 0,
                "mean_batch_size": 1.3333333333333333,
            },
            "shares": [
                {
                    "url": "127.0.0.1:8001",
                    "transport": "shm",
                    "statistics": {
                        "requests": 1,
                        "failures": 2,
                        "samples": 3,
                        "executions": 4,
                        "queue_ns": 5,
                        "compute_input_ns": 6,
                        "compute_infer_ns": 7,
                        "compute_output_ns": 8,
                        "executions_by_batch_size": {"1": 3},
                        "executions_ns": 0,
                        "cache_hits": 0,
                    },
                }
            ],
            "books": [
                {
                    "url": "127.0.0.1:8001",
                    "answered_samples": 800,
                    "answered_requests": 799,
                    "sent_again": 0,
                    "counted_samples": 800,
                    "counted_requests": 800,
                    "executions": 600,
                    "cache_hits": 0,
                    "rehearsed_samples": 70,
                }
            ],
            "test_s": 20.25,
            "client_cpu_s": 1.5,
            "peak_rss_bytes": 1000,
            "load": {
                "cpus": 2,
                "others": 0.5,
                "ours": 1.25,
                "steal": 0.0,
                "throttled": 3,
                "other_runs": 1,
                "disturbed_before": 0,
                "why_unknown": "",
                "series": {
                    "span_s": 1.0,
                    "others": [0.25, 0.75],
                    "ours": [1.5, 1.0],
                    "steal": [0.0, 0.0],
                    "mhz": [2600.0, 2500.5],
                },
            },
            "cut_p99_ns": 0,
            "telemetry": [
                {
                    "url": "127.0.0.1:8001",
                    "source": "http://127.0.0.1:8002/metrics",
                    "missing": "",
                    "readings": 20,
                    "cpu": {"mean": 0.5, "most": 0.75},
                    "memory_total_bytes": None,
                    "memory_used_bytes": None,
                    "pending": None,
                    "gpus": [
                        {
                            "uuid": "GPU-1",
                            "memory_total_bytes": None,
                            "memory_used_bytes": None,
                            "utilisation": None,
                            "power_w": {"mean": 100.0, "most": 120.0},
                            "energy_j": 2000.0,
                            "clock_mhz": None,
                        }
                    ],
                    "nvml": "",
                }
            ],
            "energy_per_sample_j": 2.5,
        },
        "AccuracyOnly": {
            "error": "",
            "failures": {
                "samples": 0,
                "requests": 0,
                "first": "",
                "first_sample_indices": [],
                "is_fatal": False,
            },
            "plan": {
                "scenario": "Server",
                "mode": "AccuracyOnly",
                "min_duration_ms": 8000,
                "min_query_count": 800,
                "performance_sample_count": 256,
                "samples_per_query": 1,
                "server_target_latency_ns": 100000000,
                "qsl_seed": 1,
                "sample_index_seed": 2,
                "schedule_seed": 3,
                "target_qps": 39.5,
                "expected_latency_ns": 1000000,
            },
            "calibration": "",
            "self_test": None,
            "transport": "",
            "statistics": None,
            "shares": [],
            "books": [],
            "test_s": 0.0,
            "client_cpu_s": 0.0,
            "peak_rss_bytes": 0,
            "load": None,
            "cut_p99_ns": 0,
            "telemetry": [],
        },
    },
    "server": {
        "version": "2.51.0",
        "urls": ["127.0.0.1:8001"],
        "rpc": "own",
        "entry": "prod/3",
        "config": {"name": "m", "instance_group": [{"count": 2}]},
        "is_config_ours": False,
        "not_applied": ["--threads 1"],
        "is_on_this_machine": True,
        "client_processes": 1,
        "tuning": {
            "server": {"instances": 2, "parameters": [["spin", "0"]]},
            "client_batch": 1,
            "in_flight": 2048,
            "origin": "rule",
        },
    },
    "rules": {"round": "v6.1", "model_in_round": False},
    "manifest": {"entry": "mobilenet_onnxruntime", "weights": "seeded"},
    "dataset": {"name": "synthetic", "samples": 256, "fingerprint": "d07c", "is_complete": False},
    "loadgen": "6.0.17",
    "environment": {
        "cpu": "a CPU",
        "cpus_usable": 2,
        "memory_bytes": 1024,
        "os": "Linux",
        "python": "3.11.7",
        "packages": {"numpy": "1.26.4", "torch": None},
        "kernel": "6.18",
        "host": "a host",
        "processor": {
            "sockets": 1,
            "cores": 2,
            "threads": 4,
            "numa_nodes": 1,
            "microcode": "0x1",
            "governor": "performance",
            "mhz": 2600.5,
            "highest_mhz": 3700.0,
            "is_virtual": False,
        },
        "gpus": [{"name": "a GPU", "driver": "535.1", "uuid": "GPU-1"}],
        "tool": {"version": "0.1.0", "commit": "84d90e1", "is_dirty": True},
    },
    "settings": [
        {"name": "time", "value": 8.0, "origin": "command line", "of": "request", "is_given": True},
        {"name": "server: instances", "value": 2, "origin": "rule", "of": "test", "is_given": None},
    ],
    "accuracy_figures": None,
    "search": {
        "probes": [
            {"rate": 48.5, "p99_ms": 190.5, "is_kept": False, "is_cut": True, "is_confirming": False},
            {"rate": 39.5, "p99_ms": 180.0, "is_kept": True, "is_cut": False, "is_confirming": True},
        ]
    },
    "rate_origin": "found",
    "invocation": "20261128-010203-45",
    "others_before": 0.125,
}
FAILED: dict[str, Any] = {
    **MEASURED,
    "TestScenario.Server": {"total_items": 9000, "good_items": 450, "accuracy": 5.0, "mAP": 25.0},
    "verdict": "FAILED",
    "reasons": ["gone"],
    "doubts": [],
    "metric": None,
    "accuracy": {
        "metric": "mAP",
        "truth": "data set",
        "value": 0.25,
        "total": 5000,
        "threshold": None,
        "good": None,
        "figures": {"AP": 0.25, "AP small": -1.0},
        "truth_file": "truth.json",
        "detections": 9000,
        "good_detections": 450,
        "is_met": True,
    },
    "tests": {
        "PerformanceOnly": {
            "error": "gone",
            "failures": {
                "samples": 3,
                "requests": 2,
                "first": "why",
                "first_sample_indices": [4, 5],
                "is_fatal": True,
            },
            "plan": None,
            "calibration": "",
            "self_test": None,
            "transport": "",
            "statistics": None,
            "shares": [],
            "books": [],
            "test_s": 0.0,
            "client_cpu_s": 0.0,
            "peak_rss_bytes": 0,
            "load": None,
            "cut_p99_ns": 0,
            "telemetry": [],
        }
    },
}


@pytest.mark.parametrize(("make", "expected"), [(measured, MEASURED), (failed, FAILED)])
def test_the_bytes_are_these(make: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    file = write_result(make(tmp_path))
    assert file == tmp_path / "results.json"
    assert file.read_text(encoding="utf-8") == json.dumps(expected, indent=2) + "\n"


def only_accurate(folder: Path) -> Result:
    """Of Offline, in two requests of three and one samples."""
    recorded = Recorded(*(np.array(column, np.uint32) for column in ([0, 0], [200_000, 400_000], [3, 1])))
    return dataclasses.replace(
        measured(folder),
        scenario=Scenario.OFFLINE,
        tests={Mode.ACCURACY: Outcome(test_s=0.5)},
        metric=None,
        figures=None,
        accuracy_figures=Figures.of_timeline(recorded, Scenario.OFFLINE, 0.5),
        search=None,
        rate_origin=None,
    )


def test_an_accuracy_test_alone_has_the_references_figures_too(tmp_path: Path) -> None:
    result = only_accurate(tmp_path)
    assert to_json(result)["TestScenario.Offline"] == {
        "took": 0.5,
        "mean": 0.25,
        "percentiles": {
            **dict.fromkeys((50.0,), 0.2),
            **dict.fromkeys((80.0, 90.0, 95.0, 97.0, 99.0, 99.9), 0.4),
        },
        "qps": 8.0,
        "count": 4,
        "total_items": 256,
        "good_items": 252,
        "accuracy": 98.4375,
    }
    # They are nobody's measure of speed.
    assert (result.figures, result.metric, result.percentiles_ms) == (None, None, {})


def test_a_test_without_an_answer_has_no_latencies() -> None:
    nothing = Recorded(*(np.array([], np.uint32) for _ in range(3)))
    assert Figures.of_timeline(nothing, Scenario.SERVER, 1.0) == Figures(took=1.0, count=0)


def test_a_query_of_multistream_is_counted_once() -> None:
    columns = ([0, 0, 500, 500], [200, 400, 600, 1500], [4, 4, 4, 4])
    recorded = Recorded(*(np.array(column, np.uint32) for column in columns))
    found = Figures.of_timeline(recorded, Scenario.MULTI_STREAM, 0.002)
    assert (found.count, found.qps, found.mean) == (2, 1000.0, pytest.approx(0.0007))


@pytest.mark.parametrize("make", [measured, failed, only_accurate])
def test_what_was_written_is_read_back_as_it_was(make: Any, tmp_path: Path) -> None:
    written = make(tmp_path)
    assert read_result(json.loads(write_result(written).read_text(encoding="utf-8")), tmp_path) == written


def test_offline_counts_samples_and_takes_as_long_as_its_one_query() -> None:
    log = DetailLog(
        {
            "result_query_count": 1,
            "effective_samples_per_query": 24_576,
            "result_max_latency_ns": 2_500_000_000,
            "result_samples_per_second": 9_830.4,
        },
        (),
    )
    assert Figures.of(log, Scenario.OFFLINE, 3.0) == Figures(took=2.5, qps=9_830.4, count=24_576)


def test_all_scenarios_are_in_one_file_by_their_bounds(tmp_path: Path) -> None:
    both = [measured(tmp_path / "a"), failed(tmp_path / "b")]
    write_all(tmp_path / "all.json", (0.05, 0.1), both)
    written = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert list(written) == [
        *("runtime", "version", "time", "args", "cmdline"),
        *("TestScenario.Server-0.05", "TestScenario.Server-0.1"),
    ]
    assert written["TestScenario.Server-0.05"] == {
        **MEASURED["TestScenario.Server"],
        "verdict": "INVALID",
        "folder": str(tmp_path / "a"),
    }
    assert written["TestScenario.Server-0.1"] == {
        "total_items": 9000,
        "good_items": 450,
        "accuracy": 5.0,
        "mAP": 25.0,
        "verdict": "FAILED",
        "folder": str(tmp_path / "b"),
    }
