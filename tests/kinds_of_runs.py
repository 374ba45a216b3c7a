"""A run of every kind, as the folder that the harness leaves: made up but for its shape."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from harness.answers.boxes import with_detections_as_truth
from harness.answers.drawing import save_pictures
from harness.data.annotations import COCO_CATEGORIES, Annotations, CocoImage
from harness.data.dataset import Dataset, Sample
from harness.run.config.options import OPTIONS
from harness.run.mlperf import schedule
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.results.result import test_folder
from harness.run.telemetry import record
from harness.run.telemetry.record import Course
from tests.unit.conftest import SERVER_RUN, write_folder, write_timeline

BOUND_MS, RATE = 100.0, 39.5
LONG = "a_detector-of-my-own.with-a-name.that-says-all-about-its-training-2026-11-28-epoch-00300-final"
NO_DOUBTS: dict[str, Any] = {"verdict": "VALID", "reasons": [], "accuracy": None}
GIVEN = ("model", "platform", "scenario", "weights", "dataset", "count", "time", "output")
OF_TEST = {
    "command line": {"images": "synthetic", "shortest duration, s": 8.0, "samples to draw from": 64},
    "searched": {"offered rate, queries/s": RATE},
    "model": {
        "preprocessing": "imagenet_mobilenet: size=224,resize=linear,crop=0.875,scale=1/255,mean=0.5,std=0.5,"
        "order=RGB,layout=NCHW",
        "label of class k": "k-1",
    },
    "round v6.1": {"latency bound, ms": BOUND_MS, "seed of the sample set": 2085463073848966840},
    "shipped table": {f"server: {name}": 2 for name in "abcdefg"},
}
SETTINGS = [
    *(
        {"name": name, "value": "auto", "origin": "default", "of": "request", "is_given": name in GIVEN}
        for name in OPTIONS
    ),
    *(
        {"name": name, "value": value, "origin": origin, "of": "test"}
        for origin, values in OF_TEST.items()
        for name, value in values.items()
    ),
]
"""As many as a run has."""
ENVIRONMENT = {
    "cpu": "AMD EPYC",
    "cpus_usable": 2,
    "memory_bytes": 25276514304,
    "python": "3.11.7",
    "host": "vm",
    "os": "Linux-6.18.44-x86_64-with-glibc2.36",
    "kernel": "6.18.44",
    "processor": {
        "sockets": 1,
        "cores": 2,
        "threads": 2,
        "numa_nodes": 1,
        "microcode": "0x1000065",
        "mhz": 2596.2,
        "is_virtual": True,
    },
    "tool": {"version": "0.1.0", "commit": "e028aff098a1ea4aecacd020c59636f12673cec3"},
}
DEVIATIONS = [
    *("seeded weights", "synthetic images", "8 s instead of 600 s"),
    *("another latency bound than MLPerf's", "mobilenet is not a benchmark of round v6.1"),
]
BINARY = "FindPeakPerformanceBinarySearch"
PERCENTILES = (50, 90, 95, 97, 99, 99.9)


def write(kind: str, folder: Path) -> Path:
    """Write a run of a kind of `KINDS`; returns its folder."""
    KINDS[kind](folder)
    document = json.loads((folder / "results.json").read_text())
    changes: dict[str, Any] = {"environment": ENVIRONMENT, "others_before": 0.98}
    if document["deviations"] == SERVER_RUN["deviations"]:
        changes["deviations"] = DEVIATIONS
    _change(folder, settings=[*document.get("settings", []), *SETTINGS], **changes)
    _watch(folder)
    return folder


def _watch(folder: Path) -> None:
    """Add what was seen of machine and servers during each test that ran: as the machine of a real run."""
    document = json.loads((folder / "results.json").read_text())
    tests, server = document["tests"], document["server"]
    for mode, test in tests.items():
        seconds = int(test.get("test_s", 0))
        if not seconds:
            continue
        busy = [0.2 + 0.4 * (at % 5 == 2) for at in range(seconds)]
        test["load"] = {
            "cpus": 2,
            "others": 0.28,
            "ours": 1.42,
            "steal": 0.001,
            "other_runs": 1,
            "series": {
                "span_s": test["test_s"] / seconds,
                "others": busy,
                "ours": [1.9 - one for one in busy],
                "steal": [0.001] * seconds,
                "mhz": [2596.2] * seconds,
            },
        }
        told = {"source": "http://127.0.0.1:8002/metrics", "readings": seconds}
        test["telemetry"] = [{"url": url, **told} for url in server["urls"]]
        at_s, nothing = tuple(at + 0.6 for at in range(seconds)), (None,) * seconds
        waiting = tuple(float(at % 7) for at in range(seconds))
        courses = [Course(url, at_s, nothing, waiting, nothing, nothing) for url in server["urls"]]
        record.save(courses, test_folder(folder, Mode(mode)))
    _change(folder, tests=tests, server={**server, "is_on_this_machine": True})


def _entry(scenario: str, latencies_us: Any, qps: float, count: int) -> dict[str, Any]:
    figures = {
        "took": 20.0,
        "mean": float(np.mean(latencies_us)) / 1e6,
        "percentiles": {str(float(p)): float(np.percentile(latencies_us, p)) / 1e6 for p in PERCENTILES},
        "qps": qps,
        "count": count,
    }
    return {f"TestScenario.{scenario}": figures, "scenario": scenario}


def _plan(scenario: Scenario, mode: Mode = Mode.PERFORMANCE, rate: float = RATE, **changed: Any) -> Plan:
    written = SERVER_RUN["tests"]["PerformanceOnly"]["plan"]
    return Plan(**{**written, "scenario": scenario, "mode": mode, "target_qps": rate, **changed})


def _slow(count: int, median_ms: float, seed: int = 1) -> Any:
    """Latencies in us as a server has them: skewed, with some hiccups, slower towards the end."""
    random = np.random.default_rng(seed)
    drift = np.linspace(1.0, 1.15, count)
    hiccups = np.where(random.random(count) < 0.01, 2.5, 1.0)
    return (random.lognormal(np.log(median_ms * 1e3), 0.18, count) * drift * hiccups).astype(np.int64)


def _stream(scenario: Scenario, folder: Path) -> None:
    samples = 8 if scenario == Scenario.MULTI_STREAM else 1
    latencies_us = _slow(700, 20.0 * samples)
    issued_us = np.cumsum(latencies_us) - latencies_us
    rank = 99 if samples > 1 else 90
    name = f"{rank}th percentile {'query ' if samples > 1 else ''}latency"
    metric = {"name": name, "value": float(np.percentile(latencies_us, rank)) / 1e3 * 1.02, "unit": "ms"}
    plan = {"plan": {"scenario": scenario, "samples_per_query": samples}}
    entry = _entry(scenario, latencies_us, 1e6 / float(latencies_us.mean()), 700)
    tests = {"PerformanceOnly": plan}
    write_folder(folder, **entry, **NO_DOUBTS, metric=metric, tests=tests)
    write_timeline(
        folder,
        np.repeat(issued_us, samples),
        (issued_us[:, None] + latencies_us[:, None] * np.linspace(1.0, 0.6, samples)).ravel(),
    )


def _asked(plan: Plan, count: int, median_ms: float, seed: int = 1) -> tuple[Any, Any, Any]:
    """Of a Server test: when queries were issued and answered, and their latencies from schedule; in us."""
    due_us = schedule.due_ns(plan, count) // 1000
    late_us = np.random.default_rng(seed).exponential(400, count).astype(np.int64)
    late_us[0] = 0
    latencies_us = _slow(count, median_ms, seed) + late_us
    return due_us + late_us, due_us + latencies_us, latencies_us


def _server(folder: Path, median_ms: float = 25.0, **changes: Any) -> None:
    count = 900
    issued_us, completed_us, latencies_us = _asked(_plan(Scenario.SERVER), count, median_ms)
    write_folder(folder, **{**_entry("Server", latencies_us, 40.01, count), **changes})
    write_timeline(folder, issued_us, completed_us)


def _probes(*tried: tuple[float, float], confirming: int = 1) -> dict[str, Any]:
    first = len(tried) - confirming
    return {
        "probes": [
            {"rate": rate, "p99_ms": p99_ms, "is_kept": p99_ms < BOUND_MS, "is_confirming": at >= first}
            for at, (rate, p99_ms) in enumerate(tried)
        ]
    }


def _server_found(folder: Path) -> None:
    tried = (
        (30.0, 38.0),
        (35.1, 44.0),
        (47.5, 900.0),
        (41.0, 130.0),
        (39.5, 51.0),
        (40.3, 210.0),
        (39.5, 47.0),
    )
    _server(folder, **NO_DOUBTS, rate_origin="found", search=_probes(*tried))


def _server_offered(folder: Path) -> None:
    _server(folder, 70.0, rate_origin="offered")


def _server_hopeless(folder: Path) -> None:
    """Its bound is below the fastest query."""
    plan = {"server_target_latency_ns": 10_000_000}
    _server(folder, 70.0, rate_origin="tried", tests={"PerformanceOnly": {"plan": plan}})


def _peak(folder: Path, *, is_confirmed: bool = True) -> None:
    base = 10.0 if is_confirmed else 320.0
    lines = [f"FindPeakPerformance: Check validity of the base settings field: {base:f}"]
    rates = [base]
    if is_confirmed:
        lines += [f"FindBoundaries: Checking fields [{low:f}, {2 * low:f})" for low in (10.0, 20.0, 40.0)]
        lines.append("FindPeakPerformance: Found boundaries: [40.000000, 80.000000)")
        bounds = ((40, 80, 60), (40, 60, 50), (40, 50, 45), (40, 45, 42), (40, 42, 41))
        lines += [
            f"{BINARY}: Testing the mid value of bounds [{low:f}, {high:f}): {middle:f}"
            for low, high, middle in bounds
        ]
        lines.append("FindPeakPerformance: Found peak performance field: 40.000000")
        rates += [20.0, 40.0, 80.0, *(float(middle) for _, _, middle in bounds)]
    plan = _plan(Scenario.SERVER, Mode.FIND_PEAK, base)
    peak = {"PerformanceOnly": {}} if is_confirmed else {"PerformanceOnly": None}
    document = {
        "tests": {**peak, Mode.FIND_PEAK: {"plan": vars(plan), "test_s": 180.0}},
        **({**NO_DOUBTS, "rate_origin": "found"} if is_confirmed else {"metric": None, "accuracy": None}),
    }
    if is_confirmed:
        _server(folder, **document, search=_probes((40.0, 47.0)))
    else:
        document["reasons"] = ["the search found no rate that keeps the bound; start it lower than --qps 320"]
        write_folder(folder, **document)
        _drop_performance(folder)
    _write_peak(folder, plan, rates, lines)


def _write_peak(folder: Path, plan: Plan, rates: Sequence[float], lines: Sequence[str]) -> None:
    issued, completed, start = [], [], 0
    for seed, rate in enumerate(rates):
        test = Plan(**{**vars(plan), "target_qps": rate})
        median_ms = 25.0 if rate <= 40 else 90.0
        issued_us, completed_us, _ = _asked(test, schedule.query_count(test), median_ms, seed)
        issued.append(issued_us + start)
        completed.append(completed_us + start)
        start = int(completed[-1].max()) + 50_000
    write_timeline(folder, np.concatenate(issued), np.concatenate(completed), test="search/peak")
    log = [{"key": "generic_message", "value": line, "metadata": {"is_error": False}} for line in lines]
    (folder / "search/peak/mlperf_log_detail.txt").write_text(
        "".join(f":::MLLOG {json.dumps(line)}\n" for line in log)
    )


def _drop_performance(folder: Path) -> None:
    """Leave no performance test in results.json."""
    tests = json.loads((folder / "results.json").read_text())["tests"]
    del tests["PerformanceOnly"]
    _change(folder, tests=tests, **{"TestScenario.Server": {"total_items": 256}})


def _change(folder: Path, **changes: Any) -> None:
    """Replace values of results.json as a whole."""
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _peak_not_found(folder: Path) -> None:
    _peak(folder, is_confirmed=False)


def _offline(folder: Path, **changes: Any) -> None:
    """26 batches of 64 on two instances, the first ones slow, and one of 20 at the end."""
    random = np.random.default_rng(3)
    free_us, completed = [0.0, 0.0], []
    for number in range(27):
        at = int(np.argmin(free_us))
        took_us = 410_000 * random.lognormal(0, 0.05) * (1.4 if number < 2 else 1.0)
        free_us[at] += took_us * (0.35 if number == 26 else 1.0)
        completed.append(free_us[at])
    completed_us = np.sort(np.array(completed)).astype(np.int64)
    samples = np.array([64] * 26 + [20])
    rate = samples.sum() / completed_us[-1] * 1e6
    test = {
        **SERVER_RUN["tests"]["PerformanceOnly"],
        "plan": vars(_plan(Scenario.OFFLINE)),
        "test_s": float(completed_us[-1]) / 1e6,
        "statistics": {
            "requests": 27,
            "failures": 0,
            "samples": int(samples.sum()),
            "executions": 27,
            "executions_by_batch_size": {"64": 26, "20": 1},
            "executions_ns": 10_900_000_000,
            "queue_ns": 9_000_000_000,
            "compute_input_ns": 160_000_000,
            "compute_infer_ns": 10_600_000_000,
            "compute_output_ns": 64_000_000,
        },
    }
    metric = {"name": "throughput", "value": rate, "unit": "samples/s"}
    tuning = {"in_flight": 4, "client_batch": 64, "server": {"instances": 2}}
    entry = _entry("Offline", np.repeat(completed_us, samples), rate, int(samples.sum()))
    document = {**entry, **NO_DOUBTS, "metric": metric, "server": {"tuning": tuning}}
    write_folder(folder, **{**document, **changes})
    cmdline = SERVER_RUN["cmdline"].replace("Server", "Offline")
    _change(folder, tests={"PerformanceOnly": test}, cmdline=cmdline)
    write_timeline(folder, np.zeros(27), completed_us, samples)


def _offline_at_once(folder: Path) -> None:
    """A machine so fast that there is one batch."""
    entry = _entry("Offline", [9_000] * 24, 2666.7, 24)
    metric = {"name": "throughput", "value": 2666.7, "unit": "samples/s"}
    tests = {"PerformanceOnly": {"plan": {"scenario": "Offline"}}}
    write_folder(folder, **entry, **NO_DOUBTS, metric=metric, tests=tests)
    write_timeline(folder, [0], [9_000], [24])


def _accuracy_only(folder: Path) -> None:
    accuracy = {"good": 256, "value": 1.0, "is_met": True}
    write_folder(
        folder, verdict="VALID", reasons=[], metric=None, accuracy=accuracy, tests={"AccuracyOnly": {}}
    )
    _drop_performance(folder)


def _quick(folder: Path, *, good: int = 32) -> None:
    """Far over the bound, of which nothing is asked."""
    args = {"is_quick": True}
    accuracy = {"good": good, "total": 32, "value": good / 32, "is_met": good == 32}
    _server(folder, 160.0, args=args, accuracy=accuracy, rate_origin="tried")


def _quick_wrong(folder: Path) -> None:
    _quick(folder, good=30)


def _failed(folder: Path) -> None:
    broken = {"plan": None, "statistics": None, "error": "the server is gone", "test_s": 0.0}
    reasons = ["127.0.0.1:8001: the server is gone: it ended with signal 9; see ./run.sh tritonserver-logs"]
    tests = {"PerformanceOnly": broken}
    write_folder(folder, verdict="FAILED", reasons=reasons, metric=None, accuracy=None, tests=tests)
    _change(folder, **{"TestScenario.Server": {}})


def _boxes(random: Any, index: int, count: int) -> bytes:
    corners = np.sort(random.random((count, 2, 2)) * [0.9, 0.9], axis=1)
    return b"".join(
        struct.pack("<7f", index, y1, x1, y2 + 0.1, x2 + 0.1, score, int(category))
        for ((y1, x1), (y2, x2)), score, category in zip(
            corners, random.uniform(0.2, 1.0, count), random.choice([1, 17, 44, 62, 84], count), strict=True
        )
    )


def _draw(folder: Path, count: int, name: str = "image") -> None:
    """Pictures of what a detector may find, by the code that draws those of a run."""
    random = np.random.default_rng(5)
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    paths = [folder / "images" / f"{name}_{number:012}.png" for number in range(count)]
    paths[0].parent.mkdir()
    for path in paths:
        cv2.imwrite(str(path), cv2.resize(random.integers(60, 200, (6, 8, 3), np.uint8), (640, 480)))
    images = tuple(CocoImage(number, path.name, 480, 640) for number, path in enumerate(paths, 1))
    annotations = Annotations(images, (), ids, names)
    dataset = Dataset(
        "coco", folder, tuple(Sample(path, None) for path in paths), "", False, False, annotations
    )
    found, true = ({index: _boxes(random, index, 12) for index in range(count)} for _ in range(2))
    truth = with_detections_as_truth(annotations, true, is_contiguous=False)
    save_pictures(folder / "pictures", dataset, found, count, is_contiguous=False, truth=truth)


DETECTED: Mapping[str, Any] = {
    "metric": "mAP",
    "truth": "data set",
    "value": 0.2231,
    "total": 20,
    "threshold": 0.2178,
    "good": None,
    "is_met": True,
    "figures": dict.fromkeys(("mAP", "mAP at IoU 0.50", "mAP at IoU 0.75"), 0.2231)
    | {"mAP of small objects": -1.0},
}


def _detection(folder: Path) -> None:
    _offline(folder, model="ssd-mobilenet", accuracy=DETECTED)
    _draw(folder, 5)


def _several_servers(folder: Path) -> None:
    urls = ["10.0.0.1:8001", "10.0.0.2:8001", f"triton-{LONG}.example.org:8001"]
    zero = dict.fromkeys(("answered_requests", "sent_again", "counted_samples", "counted_requests"), 0)
    more = dict.fromkeys(("executions", "cache_hits", "rehearsed_samples"), 0)
    books = [
        {"url": url, "answered_samples": samples, **zero, **more}
        for url, samples in zip(urls, (700, 600, 384), strict=True)
    ]
    _offline(folder, server={"urls": urls, "tuning": {"in_flight": 4, "server": {"instances": 1}}})
    tests = json.loads((folder / "results.json").read_text())["tests"]
    tests["PerformanceOnly"]["books"] = books
    _change(folder, tests=tests)


def _own_model(folder: Path) -> None:
    path = f"/data/models/{LONG}/{LONG}.onnx"
    settings = [
        {"name": "weights", "value": path, "origin": "command line", "of": "request"},
        {
            "name": "preprocess",
            "value": "scale=1/255,mean=0.485,0.456,0.406",
            "origin": path,
            "of": "request",
        },
    ]
    _server(
        folder,
        70.0,
        model=LONG,
        reasons=[f"{path} answers too late: lower --qps"],
        doubts=[f"no class of {path} is ever the first; --label-offset -1 may help"],
        deviations=["weights from a user's file", f"preprocessing of {path}"],
        cmdline=f"/home/me/harness/__main__.py --model {LONG} --weights {path}",
        settings=settings,
        server={"entry": LONG},
        rate_origin="tried",
    )
    _draw(folder, 1, LONG)


KINDS = {
    "SingleStream": lambda folder: _stream(Scenario.SINGLE_STREAM, folder),
    "MultiStream": lambda folder: _stream(Scenario.MULTI_STREAM, folder),
    "Server, found": _server_found,
    "Server, offered": _server_offered,
    "Server, hopeless": _server_hopeless,
    "Offline": _offline,
    "Offline, at once": _offline_at_once,
    "peak": _peak,
    "peak, not found": _peak_not_found,
    "accuracy only": _accuracy_only,
    "quick": _quick,
    "quick, wrong": _quick_wrong,
    "failed": _failed,
    "detection": _detection,
    "several servers": _several_servers,
    "own model": _own_model,
}
