"""Results folders as the harness leaves them, made up but for their shape, which is a real run's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# However long an example takes on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

WriteRun = Callable[..., Path]

SERVER_RUN: dict[str, Any] = {
    "runtime": "triton",
    "version": "2.51.0",
    "time": 1795617037,
    "args": {
        "model": "mobilenet",
        "platform": "onnxruntime",
        "scenarios": ["Server"],
        "time_s": 8.0,
        "qps": None,
        "in_flight": None,
        "provenance": {
            "model": "command line",
            "platform": "command line",
            "scenario": "command line",
            "time": "command line",
            "qps": "default",
            "in_flight": "model",
        },
    },
    "cmdline": "/home/me/harness/__main__.py --model mobilenet --platform onnxruntime --scenario Server",
    "TestScenario.Server": {
        "took": 20.0,
        "mean": 0.04,
        "percentiles": {"50.0": 0.025, "90.0": 0.09, "99.0": 0.18, "99.9": 0.25},
        "qps": 40.0,
        "count": 800,
    },
    "model": "mobilenet",
    "platform": "onnxruntime",
    "precision": None,
    "scenario": "Server",
    "kind": "quick",
    "deviations": ["seeded weights", "8 s instead of 600 s"],
    "verdict": "INVALID",
    "reasons": ["p99 latency is 180.00 ms, bound 100.00 ms: lower --qps below 40.0 <&>"],
    "metric": {"name": "completed samples", "value": 40.0, "unit": "samples/s"},
    "accuracy": {
        "metric": "top-1 agreement",
        "truth": "source framework",
        "value": 0.984375,
        "total": 256,
        "threshold": 1.0,
        "good": 252,
        "figures": {},
        "truth_file": "",
        "is_met": False,
    },
    "tests": {
        "PerformanceOnly": {
            "plan": {
                "scenario": "Server",
                "mode": "PerformanceOnly",
                "min_duration_ms": 8000,
                "min_query_count": 800,
                "performance_sample_count": 256,
                "samples_per_query": 1,
                "server_target_latency_ns": 100_000_000,
                "qsl_seed": 2085463073848966840,
                "sample_index_seed": 2747215439041700203,
                "schedule_seed": 16159082839903944936,
                "target_qps": 39.5,
                "expected_latency_ns": 1_000_000,
            },
            "calibration": "calibration: 39.5 queries/s",
            "transport": "shm",
            "statistics": {
                "requests": 800,
                "failures": 0,
                "samples": 800,
                "executions": 600,
                "queue_ns": 8_000_000_000,
                "compute_input_ns": 160_000_000,
                "compute_infer_ns": 20_000_000_000,
                "compute_output_ns": 640_000_000,
                "executions_by_batch_size": {"1": 450, "2": 100, "3": 50},
                "executions_ns": 12_000_000_000,
                "mean_batch_size": 1.33,
            },
            "test_s": 20.0,
            "client_cpu_s": 1.4,
        }
    },
    "server": {
        "version": "2.51.0",
        "urls": ["127.0.0.1:8001"],
        "config": {
            "name": "mobilenet_onnxruntime",
            "dynamic_batching": {"max_queue_delay_microseconds": "0"},
        },
        "client_processes": 1,
        "tuning": {
            "server": {"instances": 1, "threads": 2, "max_queue_delay_us": 0, "parameters": [["spin", "0"]]},
            "client_batch": 1,
            "in_flight": 2048,
            "origin": "rule",
        },
    },
    "rules": {"round": "v6.1", "min_duration_ms": 600_000, "qsl_seed": 2085463073848966840},
    "manifest": {
        "weights": "seeded",
        "graph_sha256": "7aa7ed86656d7f38",
        "weights_sha256": "37e2f158267b9cfe",
    },
    "dataset": {"name": "synthetic", "samples": 256, "fingerprint": "d07c59da533742bd"},
    "loadgen": "6.0.17",
    "environment": {"cpu": "a CPU", "cpus_usable": 2, "memory_bytes": 2**34, "packages": {"numpy": "1.26.4"}},
}


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a Server run: `write_run("a", latencies_us=…, verdict="VALID", tests={…}) -> its folder`.

    `latencies_us` are of queries that are issued 25 ms after each other; None for a run without a timeline.
    Other changes replace values of results.json, merged into objects.
    """

    def write(name: str, *, latencies_us: Any = None, samples: Any = None, **changes: Any) -> Path:
        folder = write_folder(tmp_path / name, **changes)
        if latencies_us is not None:
            issued_us = np.arange(len(latencies_us)) * 25_000
            write_timeline(folder, issued_us, issued_us + latencies_us, samples)
        return folder

    return write


def write_folder(folder: Path, **changes: Any) -> Path:
    """Write the Server run, changed, but for its timeline."""
    (folder / "performance" / "run_1").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(_merged(SERVER_RUN, changes)), encoding="utf-8")
    return folder


def write_timeline(
    folder: Path, issued_us: Any, completed_us: Any, samples: Any = None, test: str = "performance/run_1"
) -> None:
    """Write when each request was issued and answered; one sample in each unless told."""
    (folder / test).mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / test / "timeline.npz",
        issued_us=np.asarray(issued_us, np.uint32),
        completed_us=np.asarray(completed_us, np.uint32),
        samples=np.asarray(np.ones(len(issued_us)) if samples is None else samples, np.uint32),
    )


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }
    return {**base, **both}
