"""What becomes of tests that have ended: made-up outcomes, and logs in LoadGen's own form."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.annotations import COCO_CATEGORIES, Annotations, CocoImage
from harness.data.dataset import Dataset, Sample
from harness.models.manifest import OFFICIAL, SEEDED, USER_FILE, Manifest, Parity
from harness.models.model_config import ServerSettings
from harness.run import truth
from harness.run.config.resolution import resolve
from harness.run.config.scenario import scenarios_of
from harness.run.config.tuning import SERVERS_OWN
from harness.run.judgement import Ended, judge
from harness.run.mlperf import logs
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rate_search import Probe, Search
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.run.results.result import DataSet, Result, Server
from harness.run.results.result import test_folder as folder_of
from harness.run.truth import Truths
from harness.run.worker import timeline
from harness.run.worker.job import Failures, Outcome
from harness.run.worker.timeline import Timeline

LABELS = (65, 970, 230, 809)
"""Of the made-up data set: one for each of its samples."""
VALID = {"result_validity": "VALID", "early_stopping_latency_ss": 12_500_000}
"""SingleStream, with 12.5 ms."""
OF_EACH = {
    Scenario.SINGLE_STREAM: VALID,
    Scenario.MULTI_STREAM: {"result_validity": "VALID", "early_stopping_latency_ms": 80_000_000},
    Scenario.SERVER: {"result_validity": "VALID", "result_completed_samples_per_sec": 250.5},
    Scenario.OFFLINE: {"result_validity": "VALID", "result_samples_per_second": 175.25},
}
MINIMAL = {"model": "resnet50", "platform": "onnxruntime"}
DETECTOR = {"model": "ssd-mobilenet", "platform": "openvino"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "MODEL_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)


class Run:
    """One scenario whose tests have ended: official weights on a whole data set, unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = OFFICIAL
        self.dataset = Dataset(
            "imagenet",
            folder,
            tuple(Sample(folder / f"{label}.JPEG", label) for label in LABELS),
            fingerprint="f" * 64,
            is_complete=True,
            has_labels=True,
        )
        self.outcomes: dict[Mode, Outcome] = {}
        self.given: Mapping[str, Any] = MINIMAL
        self.precision: str | None = None
        self.search: Search | None = None
        self.served: ServerSettings | None = None
        """Of a server that keeps its own."""

    def ended(
        self, mode: Mode, log: Mapping[str, Any], answers: Sequence[bytes] = (), *, errors: Sequence[str] = ()
    ) -> None:
        """Write what LoadGen leaves of a test to which nothing happened."""
        log_dir = folder_of(self.folder, mode)
        log_dir.mkdir(parents=True)
        lines = [_line(key, value) for key, value in log.items()]
        lines += [_line("error_runtime", error, is_error=True) for error in errors]
        (log_dir / logs.DETAIL_LOG).write_text("\n".join(lines))
        records = [
            {"seq_id": index, "qsl_idx": index, "data": answer.hex().upper(), "token_count": 0}
            for index, answer in enumerate(answers)
        ]
        (log_dir / logs.ACCURACY_LOG).write_text(json.dumps(records))
        self.outcomes[mode] = Outcome()

    def answered(self, *labels: int, log: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Write what LoadGen leaves of a classifier's accuracy test."""
        self.ended(Mode.ACCURACY, log or {}, [np.float32(label).tobytes() for label in labels], **more)

    def predicted(self, answers: Sequence[Any], *, graph: str = "", is_scores: bool = False) -> None:
        """Put into the cache what the source framework answers itself."""
        prepared = self.prepared()
        config, variant = prepared.config, prepared.manifest.variant
        read_as = hashlib.sha256(repr(variant).encode()).hexdigest()
        end = f"samples{graph}{'_scores' if is_scores else ''}.npy"
        name = f"{config.model}_{config.platform}_{'e' * 16}_{read_as[:16]}_{end}"
        file = config.data.cache / "source-labels" / name
        file.parent.mkdir(parents=True)
        np.save(file, np.asarray(answers))

    def prepared(self) -> Prepared:
        config = resolve({**self.given, "cache": self.folder / "cache"})
        variant = config.spec.variants[config.platform]
        facts = Manifest(
            entry=config.spec.entry_name(config.platform),
            model=config.model,
            weights=self.weights,
            weights_file="weights",
            weights_sha256="e" * 64,
            variant=variant,
            parity=Parity(0, 0.0, 0.0, 1.0),
            graph_sha256="a" * 64,
            tools={},
        )
        return Prepared(config, facts, self.folder, self.dataset, self.folder / "samples" / "all.npy")

    def judged(self, **given: Any) -> Result:
        self.given = {**self.given, **given}
        prepared = self.prepared()
        config = prepared.config
        (scenario,) = config.request.scenarios
        if not self.outcomes:
            self.ended(Mode.PERFORMANCE, OF_EACH[scenario])
        test = list(scenarios_of(config))[-1]
        tuning = test.tuning(prepared.manifest.variant, config.server.servers)
        if self.served:
            tuning = dataclasses.replace(tuning, server=self.served, server_origin=SERVERS_OWN)
        ended = Ended(self.folder, self.outcomes, tuning, Server(), self.precision, self.search)
        return judge(prepared, Truths(prepared), test, ended)


def _line(key: str, value: Any, *, is_error: bool = False) -> str:
    metadata = {"is_error": is_error, "is_warning": False, "file": "logging.cc", "line_no": 1, "pid": 1}
    record = {"key": key, "value": value, "time_ms": 0.5, "namespace": "mlperf::logging"}
    return ":::MLLOG " + json.dumps({**record, "event_type": "POINT_IN_TIME", "metadata": metadata})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_valid_test_by_the_rules_is_an_official_result_with_loadgens_figure(run: Run) -> None:
    result = run.judged()
    assert (result.is_official, result.deviations, result.reasons) == (True, (), ())
    assert (result.verdict, result.exit_code) == ("VALID", 0)
    assert result.metric is not None
    assert (result.metric.value, result.metric.unit) == (12.5, "ms")
    assert (result.model, result.platform, result.scenario) == ("resnet50", "onnxruntime", "SingleStream")


@pytest.mark.parametrize(
    ("scenario", "value", "unit"),
    [
        (Scenario.SINGLE_STREAM, 12.5, "ms"),
        (Scenario.MULTI_STREAM, 80.0, "ms"),
        (Scenario.SERVER, 250.5, "samples/s"),
        (Scenario.OFFLINE, 175.25, "samples/s"),
    ],
)
def test_every_scenario_has_its_own_figure(run: Run, scenario: Scenario, value: float, unit: str) -> None:
    metric = run.judged(scenario=scenario.value).metric
    assert metric is not None
    assert (metric.value, metric.unit) == (value, unit)


@pytest.mark.parametrize(
    ("given", "deviations"),
    [
        ({"time": "5"}, ["5 s instead of 600 s"]),
        ({"time": "900.5"}, ["900.5 s instead of 600 s"]),
        ({"count": "2"}, ["shortened to --count 2"]),
        ({"count": "2", "time": "5"}, ["5 s instead of 600 s"]),
        ({"count": "2", "queries_single": "70"}, ["shortened to --count 2"]),
        ({"queries_single": "70"}, ["70 queries instead of 100"]),
        ({"queries_single": "100"}, []),
        ({"queries_single": "9000"}, []),
        ({"queries_offline": "70"}, []),
        ({"queries_offline": "70", "scenario": "Offline"}, ["70 queries instead of 24576"]),
        ({"queries_multi": "70", "scenario": "Server"}, ["70 queries instead of 100"]),
        ({"max_latency": "0.1", "scenario": "Server"}, ["another latency bound than MLPerf's"]),
        ({"max_latency": "0.1"}, []),
        (
            {"samples_per_query": "4", "scenario": "MultiStream"},
            ["4 samples in a query instead of 8"],
        ),
        ({"samples_per_query": "4"}, []),
        ({"performance_sample_count": "9"}, ["9 samples to draw from instead of 1024"]),
        ({"performance_sample_count": "4096"}, []),
        ({"qps": "9", "scenario": "Server"}, []),
        ({"threads": "1", "in_flight": "3", "max_batchsize": "2", "transport": "grpc"}, []),
        ({"mode": "FindPeakPerformance", "scenario": "Server"}, []),
        (
            # A tunnel's end is at this address too; nothing answers there that maps our memory.
            {"url": "localhost:1"},
            [
                "a server on another machine, or not seen to be on this one (it cannot map our memory): "
                "MLPerf's Network division has other rules"
            ],
        ),
        ({"round": "v5.0"}, []),
        (
            {"round": "v1.0", "scenario": "MultiStream"},
            ["round v1.0 had another MultiStream, or none"],
        ),
        ({"round": "v1.0", "scenario": "Offline"}, []),
        ({"model": "mobilenet"}, ["mobilenet is not a benchmark of round v6.1"]),
        ({"model": "mobilenet", "round": "v0.5"}, []),
    ],
)
def test_what_is_not_as_the_round_says_is_a_deviation(
    run: Run, given: dict[str, str], deviations: list[str]
) -> None:
    result = run.judged(**given)
    assert list(result.deviations) == deviations
    assert result.is_official == (not deviations)


@pytest.mark.parametrize(
    ("line", "scenario", "deviations"),
    [
        ("*.Server.min_duration = 1500", "Server", ["1.5 s instead of 600 s"]),
        ("*.Server.min_duration = 600000", "Server", []),
        ("*.Server.min_duration = 1500", "Offline", []),
        ("*.*.min_query_count = 70", "SingleStream", ["70 queries instead of 100"]),
        ("*.Server.target_latency = 50", "Server", ["another latency bound than MLPerf's"]),
        ("*.Server.target_qps = 50", "Server", []),
        ("*.*.samples_per_query = 4", "MultiStream", ["4 samples in a query instead of 8"]),
        ("*.*.performance_sample_count_override = 7", "Server", ["7 samples to draw from instead of 1024"]),
    ],
)
def test_what_user_conf_changes_is_a_deviation_of_the_scenarios_that_it_is_of(
    run: Run, line: str, scenario: str, deviations: list[str]
) -> None:
    (run.folder / "user.conf").write_text(line)
    found = run.judged(user_conf=str(run.folder / "user.conf"), scenario=scenario).deviations
    assert list(found) == deviations


def synthetic(dataset: Dataset) -> Dataset:
    return dataclasses.replace(dataset, name="synthetic", has_labels=False, is_complete=False)


def unlabelled(dataset: Dataset) -> Dataset:
    return dataclasses.replace(dataset, has_labels=False, is_complete=False)


def incomplete(dataset: Dataset) -> Dataset:
    return dataclasses.replace(dataset, is_complete=False)


@pytest.mark.parametrize(
    ("weights", "change", "deviations"),
    [
        (SEEDED, None, ["seeded weights"]),
        (USER_FILE, None, ["weights from a user's file"]),
        (OFFICIAL, synthetic, ["synthetic images"]),
        (OFFICIAL, unlabelled, ["images without labels"]),
        (OFFICIAL, incomplete, ["4 images instead of the whole data set"]),
        (SEEDED, synthetic, ["seeded weights", "synthetic images"]),
    ],
)
def test_other_weights_and_other_images_are_deviations(
    run: Run, weights: str, change: Callable[[Dataset], Dataset] | None, deviations: list[str]
) -> None:
    run.weights = weights
    run.dataset = change(run.dataset) if change else run.dataset
    assert list(run.judged().deviations) == deviations


@pytest.mark.parametrize(
    ("weights", "given", "kind"),
    [
        (OFFICIAL, {}, "official"),
        (SEEDED, {}, "unofficial"),
        (OFFICIAL, {"performance_sample_count": "9"}, "unofficial"),
        (OFFICIAL, {"queries_single": "70"}, "quick"),
        (SEEDED, {"time": "5"}, "quick"),
        (SEEDED, {"time": "900"}, "unofficial"),
        (SEEDED, {"count": "2"}, "quick"),
    ],
)
def test_what_is_not_shortened_is_no_quick_run(
    run: Run, weights: str, given: dict[str, str], kind: str
) -> None:
    run.weights = weights
    assert run.judged(**given).kind == kind


def test_a_test_whose_worker_failed_is_failed_and_its_logs_are_not_read(run: Run) -> None:
    run.outcomes[Mode.PERFORMANCE] = Outcome(error="the server died")
    result = run.judged()
    assert (result.verdict, result.exit_code) == ("FAILED", 3)
    assert result.reasons == ("the server died",)
    assert (result.metric, result.figures) == (None, None)


def test_failed_samples_fail_a_test_that_loadgen_calls_valid(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, VALID)
    failures = Failures(samples=20, requests=3, first="timeout", first_sample_indices=tuple(range(30, 50)))
    run.outcomes[Mode.PERFORMANCE] = Outcome(failures=failures)
    result = run.judged()
    assert (result.verdict, result.metric) == ("FAILED", None)
    assert result.reasons == (
        "20 samples in 3 requests failed, the first (sample indices [30, 31, 32, 33, 34, 35, 36, 37]) with "
        "timeout",
    )


def test_the_figure_of_a_test_before_the_one_that_failed_is_kept(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, VALID)
    run.outcomes[Mode.ACCURACY] = Outcome(error="the server died")
    result = run.judged()
    assert (result.verdict, result.reasons) == ("FAILED", ("the server died",))
    assert result.metric is not None


def timed(run: Run, mode: Mode, latencies_ms: Sequence[int]) -> None:
    """Queries that were issued every 10 ms."""
    noted = Timeline()
    for at, latency_ms in enumerate(latencies_ms):
        noted.record(at * 10**7, at * 10**7 + latency_ms * 10**6, 1)
    folder_of(run.folder, mode).mkdir(parents=True, exist_ok=True)
    noted.save(folder_of(run.folder, mode) / timeline.FILE_NAME)


def test_an_accuracy_test_alone_has_figures_of_its_timeline_and_no_other_result_has(run: Run) -> None:
    run.answered(*LABELS)
    run.outcomes[Mode.ACCURACY] = Outcome(test_s=0.05)
    timed(run, Mode.ACCURACY, [20, 20, 30, 10])
    result = run.judged(mode="Accuracy")
    assert result.accuracy_figures is not None
    assert (result.accuracy_figures.took, result.accuracy_figures.count) == (0.05, 4)
    assert (result.accuracy_figures.mean, result.accuracy_figures.qps) == (0.02, 80.0)
    run.ended(Mode.PERFORMANCE, VALID)
    assert run.judged().accuracy_figures is None


CUT = Plan(Scenario.SERVER, Mode.PERFORMANCE, 10_000, 459, 4, 1, 50_000_000, 1, 2, 3, target_qps=100.0)


def test_a_test_that_was_ended_early_is_invalid_and_has_figures_until_then_but_no_metric(run: Run) -> None:
    run.outcomes[Mode.PERFORMANCE] = Outcome(plan=CUT, cut_p99_ns=90_000_000, transport="shm")
    timed(run, Mode.PERFORMANCE, [5] * 100 + [90] * 10)
    result = run.judged(scenario="Server", qps="100", time="10", max_latency="0.05")
    assert (result.verdict, result.exit_code, result.metric) == ("INVALID", 1, None)
    # Of 1000 queries, and 159 more by chance, LoadGen's early stopping lets 4 be over the bound.
    assert result.reasons == (
        "ended early after 1.2 of 10 s, since it could not be VALID any more: 10 queries were over the bound "
        "of 50.00 ms, at most 4 of the whole test may be; p99 was 90.00 ms until then: lower --qps 100, or "
        "see all of it with --no-early-end",
    )
    assert result.figures is not None
    assert (result.figures.took, result.figures.count) == (1.18, 110)
    assert result.percentiles_ms[50.0] == 5.0
    assert result.is_cut
    assert "a test that was ended early" in result.deviations
    assert result.rate_note == "100 queries/s were offered as asked for, until it was ended early"


def test_a_lower_rate_is_no_advice_where_each_query_alone_is_over_the_bound(run: Run) -> None:
    run.outcomes[Mode.PERFORMANCE] = Outcome(plan=CUT, cut_p99_ns=70_000_000)
    timed(run, Mode.PERFORMANCE, [60] * 20 + [70] * 5)
    (reason,) = run.judged(scenario="Server", qps="100", time="10", max_latency="0.05").reasons
    assert "until then: the median alone is 60.00 ms, which a lower rate does not help: relax" in reason
    assert "--qps" not in reason


def test_by_the_rules_there_is_no_test_that_was_ended_early(run: Run) -> None:
    run.outcomes[Mode.PERFORMANCE] = Outcome(plan=CUT, cut_p99_ns=90_000_000)
    timed(run, Mode.PERFORMANCE, [90] * 10)
    assert run.judged(scenario="Server", qps="100").kind == "unofficial"


def test_an_accuracy_log_without_an_answer_fails_the_result_but_keeps_the_figure(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, VALID)
    run.answered(*LABELS[:3])
    result = run.judged()
    assert (result.verdict, result.accuracy) == ("FAILED", None)
    assert result.reasons == ("the accuracy log has no answer for 1 of 4 samples, first 3",)
    assert result.metric is not None


def test_what_loadgen_calls_invalid_is_invalid_for_its_reason(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, {"result_validity": "INVALID", "result_invalid_reason": "just so"})
    result = run.judged()
    assert (result.verdict, result.exit_code, result.reasons) == ("INVALID", 1, ("just so",))


@pytest.mark.parametrize("mode", [Mode.PERFORMANCE, Mode.ACCURACY])
def test_an_error_that_loadgen_logged_makes_any_test_invalid(run: Run, mode: Mode) -> None:
    if mode == Mode.ACCURACY:
        run.answered(*LABELS, errors=["disk full"])
    else:
        run.ended(mode, VALID, errors=["disk full"])
    result = run.judged()
    assert result.verdict == "INVALID"
    assert result.reasons == ("LoadGen logged an error: error_runtime: disk full",)


PEAK = {
    "result_validity": "INVALID",
    "generic_message": "FindPeakPerformance: Found peak performance field: 123.5",
}
CONFIRMED = Search((Probe(123.5, 9.0, is_kept=True, is_confirming=True),))
NOT_CONFIRMED = Search(tuple(Probe(rate, 12.0, is_kept=False, is_confirming=True) for rate in (123.5, 110.0)))


def test_a_peak_counts_by_the_test_that_confirms_it(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, OF_EACH[Scenario.SERVER])
    run.ended(Mode.FIND_PEAK, PEAK)
    run.search = CONFIRMED
    result = run.judged(mode="FindPeakPerformance", scenario="Server")
    assert (result.verdict, result.rate_origin, result.search) == ("VALID", "found", CONFIRMED)
    assert result.metric is not None
    assert (result.metric.value, result.metric.unit) == (250.5, "samples/s")


def test_a_peak_that_loadgen_calls_invalid_when_it_is_confirmed_is_invalid(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, {"result_validity": "INVALID", "result_invalid_reason": "just so"})
    run.ended(Mode.FIND_PEAK, PEAK)
    run.search = NOT_CONFIRMED
    result = run.judged(mode="FindPeakPerformance", scenario="Server")
    assert (result.verdict, result.rate_origin) == ("INVALID", "tried")
    assert result.reasons == (
        "just so",
        "no rate was confirmed to keep the bound, between 110 and 123.5 queries/s, at the lowest of which "
        "p99 was 12.00 ms: relax it with --max-latency",
    )


@pytest.mark.parametrize(
    ("given", "search", "origin"),
    [
        ({"qps": "9"}, None, "offered"),
        ({"time": "5"}, CONFIRMED, "found"),
        ({"time": "5"}, NOT_CONFIRMED, "tried"),
        ({"count": "9"}, None, "tried"),
    ],
)
def test_where_servers_rate_comes_from_is_told(run: Run, given, search: Search | None, origin: str) -> None:
    run.search = search
    assert run.judged(scenario="Server", **given).rate_origin == origin


def test_other_scenarios_have_no_rate_to_tell_of(run: Run) -> None:
    assert run.judged(scenario="Offline").rate_origin is None


def test_a_search_that_found_no_rate_is_invalid(run: Run) -> None:
    run.ended(Mode.FIND_PEAK, {"result_validity": "VALID", "effective_target_qps": 40.0})
    result = run.judged(mode="FindPeakPerformance", scenario="Server")
    assert (result.verdict, result.metric) == ("INVALID", None)
    assert "start it lower than --qps 40" in result.reasons[0]


def test_labels_of_the_whole_data_set_have_mlperfs_target(run: Run) -> None:
    run.answered(*LABELS)
    assert run.judged().verdict == "VALID"


def test_below_mlperfs_target_a_result_is_invalid(run: Run) -> None:
    run.answered(*LABELS[:3], 0)
    result = run.judged()
    assert (result.verdict, result.exit_code) == ("INVALID", 1)
    # 99 % of the published 76.46 %.
    assert result.reasons == ("top-1 75.000% (3 of 4 samples, against the data set) is below 75.695%",)


@pytest.mark.parametrize(("weights", "change"), [(USER_FILE, None), (OFFICIAL, incomplete)])
def test_nothing_is_prescribed_for_other_weights_or_a_part_of_the_data_set(
    run: Run, weights: str, change: Callable[[Dataset], Dataset] | None
) -> None:
    run.weights = weights
    run.dataset = change(run.dataset) if change else run.dataset
    run.answered(0, 0, 0, 0)
    result = run.judged()
    assert (result.verdict, result.reasons) == ("VALID", ())
    assert result.accuracy is not None
    assert (result.accuracy.metric, result.accuracy.value, result.accuracy.threshold) == ("top-1", 0.0, None)


def test_what_is_kept_of_the_source_framework_is_for_one_way_to_read_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.weights = SEEDED
    run.predicted([1, 2, 3, 4])
    prepared = run.prepared()
    monkeypatch.setattr(truth.manifest, "check_unchanged", lambda *_: None)
    monkeypatch.setattr(truth, "run_converter", lambda *words: np.save(words[-1], [2, 3, 4, 5]))
    assert Truths(prepared).exact.labels == (1, 2, 3, 4)
    variant = dataclasses.replace(prepared.manifest.variant, label_offset=1)
    facts = dataclasses.replace(prepared.manifest, variant=variant)
    shifted = dataclasses.replace(prepared, manifest=facts)
    assert Truths(shifted).exact.labels == (2, 3, 4, 5)
    assert Truths(prepared).exact.labels == (1, 2, 3, 4)


def test_seeded_weights_must_answer_as_their_source_framework_does(run: Run) -> None:
    run.weights = SEEDED
    run.predicted([1, 2, 3, 4])
    run.answered(1, 2, 3, 5)
    result = run.judged()
    assert result.verdict == "INVALID"
    assert result.reasons == (
        "top-1 agreement 75.000% (3 of 4 samples, against the source framework) is below 100.000%",
    )


NEARLY_EQUAL = [[0.0] * 500 + [9.0, 8.99] + [0.0] * 499] * 4
"""Of 1001 classes: 500 is best, that is label 499 (class 0 is background), and 501 nearly as good."""


@pytest.mark.parametrize(("precision", "given"), [("bf16", {}), ("fp32", {"tolerance": "0.1"})])
def test_in_fewer_bits_a_class_that_is_nearly_as_good_is_right(
    run: Run, precision: str, given: dict[str, str]
) -> None:
    run.weights, run.precision = SEEDED, precision
    run.given = {**MINIMAL, "platform": "openvino"}
    run.predicted(NEARLY_EQUAL, is_scores=True)
    run.answered(499, 500, 499, 500)
    result = run.judged(**given)
    assert result.verdict == "VALID"
    assert result.accuracy is not None
    assert result.accuracy.metric == "top-1 agreement but for near-equal classes"
    assert (result.accuracy.good, result.accuracy.threshold) == (4, 1.0)
    assert result.precision == precision


def test_in_fewer_bits_another_class_is_wrong(run: Run) -> None:
    run.weights, run.precision = SEEDED, "bf16"
    run.given = {**MINIMAL, "platform": "openvino"}
    run.predicted(NEARLY_EQUAL, is_scores=True)
    run.answered(499, 500, 499, 7)
    result = run.judged()
    assert result.verdict == "INVALID"
    assert result.reasons[0].startswith("top-1 agreement but for near-equal classes 75.000% (3 of 4")


def record(index: int, left: float, score: float = 0.9) -> np.ndarray:
    """A dog (18) in the middle of an image."""
    return np.array([index, 0.25, left, 0.75, left + 0.5, score, 18], np.float32)


def with_boxes(run: Run) -> None:
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    images = tuple(CocoImage(number, f"{number}", 100, 100) for number in range(4))
    coco = Annotations(images, (), ids, names)
    run.given, run.weights = DETECTOR, SEEDED
    run.dataset = dataclasses.replace(synthetic(run.dataset), coco=coco)
    run.predicted([record(index, 0.25) for index in range(4)])


@pytest.mark.parametrize(
    ("precision", "threshold"), [("fp32", 0.99), (None, 0.99), ("bf16", 0.75), ("unknown", 0.75)]
)
def test_boxes_must_be_the_source_frameworks_and_in_fewer_bits_most_of_them(
    run: Run, precision: str | None, threshold: float
) -> None:
    with_boxes(run)
    run.precision = precision
    run.ended(Mode.ACCURACY, {}, [record(index, 0.25).tobytes() for index in range(4)])
    result = run.judged()
    assert result.verdict == "VALID"
    assert result.accuracy is not None
    assert (result.accuracy.metric, result.accuracy.truth) == ("mAP agreement", "source framework")
    assert (result.accuracy.value, result.accuracy.threshold) == (pytest.approx(1.0), threshold)
    assert Path(result.accuracy.truth_file).exists()


def test_boxes_elsewhere_are_below_any_threshold(run: Run) -> None:
    with_boxes(run)
    run.precision = "bf16"
    run.ended(Mode.ACCURACY, {}, [record(index, 0.0).tobytes() for index in range(4)])
    result = run.judged()
    assert result.verdict == "INVALID"
    assert result.reasons == (
        "mAP agreement 0.000% (on 4 samples, against the source framework) is below 75.000%",
    )


def test_a_choice_of_nms_is_told_with_the_figure(run: Run) -> None:
    with_boxes(run)
    run.given = {"model": "ssd-resnet34", "platform": "pytorch"}
    coco, ids = run.dataset.coco, [category for category, _ in COCO_CATEGORIES]
    truth = [
        {"id": n + 1, "image_id": n, "category_id": 18, "bbox": [25, 25, 50, 50], "area": 2500, "iscrowd": 0}
        for n in range(4)
    ]
    assert coco is not None
    run.dataset = dataclasses.replace(
        run.dataset, coco=dataclasses.replace(coco, annotations=tuple(truth)), has_labels=True
    )
    run.weights = USER_FILE
    boxes = [record(index, 0.25) for index in range(4)]
    for box in boxes:
        # Its classes are places in the list of categories, from 1.
        box[6] = ids.index(18) + 1
    run.ended(Mode.ACCURACY, {}, [box.tobytes() for box in boxes])
    accuracy = run.judged().accuracy
    assert accuracy is not None
    assert (accuracy.metric, accuracy.value) == ("mAP with corrected NMS", pytest.approx(1.0))


def test_a_detector_that_is_misread_is_doubted_and_the_verdict_stays(run: Run) -> None:
    with_boxes(run)
    coco = run.dataset.coco
    assert coco is not None
    truth = [
        {"id": n + 1, "image_id": n, "category_id": 18, "bbox": [0, 25, 50, 50], "area": 2500, "iscrowd": 0}
        for n in range(4)
    ]
    run.dataset = dataclasses.replace(
        run.dataset, coco=dataclasses.replace(coco, annotations=tuple(truth)), has_labels=True
    )
    run.weights = USER_FILE
    boxes = [record(index, 0.0) for index in range(4)]
    for box in boxes:
        box[6] = 16  # its place, from 0
    run.ended(Mode.ACCURACY, {}, [box.tobytes() for box in boxes])
    result = run.judged(weights=str(run.folder))
    assert (result.verdict, result.accuracy and result.accuracy.value) == ("VALID", 0.0)
    assert result.doubts == (
        "mAP of the first 4 images would be 100.00% instead of 0.00% with --classes 0-79",
    )


def test_the_settings_of_a_result_are_those_of_the_test_that_was_run(run: Run) -> None:
    run.ended(Mode.PERFORMANCE, OF_EACH[Scenario.SERVER])
    as_run = Plan(Scenario.SERVER, Mode.PERFORMANCE, 5000, 838, 4, 1, 200_000_000, 1, 2, 3, target_qps=38.5)
    run.outcomes[Mode.PERFORMANCE] = Outcome(plan=as_run)
    result = run.judged(scenario="Server", time="5", max_latency="0.1,0.2", threads="1")
    found = {setting.name: (setting.value, setting.origin) for setting in result.settings}
    expected = {
        "time": (5.0, "command line"),
        "max-latency": ([0.1, 0.2], "command line"),
        "images": ("synthetic", "default"),
        "shortest duration, s": (5.0, "command line"),
        "fewest queries": (838, "fewest that LoadGen can judge"),
        "samples to draw from": (4, "size of the data set"),
        "latency bound, ms": (200.0, "command line"),
        "offered rate, queries/s": (38.5, "searched"),
        "server: threads of each": (1, "command line"),
    }
    assert {name: found[name] for name in expected} == expected
    assert [setting.name for setting in result.settings if setting.of == "test"][:3] == [
        *("images", "preprocessing", "label of class k")
    ]
    assert {setting.of for setting in result.settings} == {"request", "test"}


def test_settings_are_the_servers_where_it_keeps_its_own(run: Run) -> None:
    run.served = ServerSettings(instances=2, max_batch_size=16, device="cpu")
    placed = {"gpus": "0", "instances": "3", "queue_delay": "0", "preferred_batch": "4"}
    result = run.judged(
        threads="1", device="gpu", max_batchsize="32", server_config="ours", time="5", **placed
    )
    found = {setting.name: (setting.value, setting.origin) for setting in result.settings}
    own, refused = "the server's configuration", "command line: not applied"
    expected = {
        "threads": (1, refused),
        "device": ("gpu", refused),
        "server-config": ("ours", refused),
        "gpus": ([0], refused),
        "instances": (3, refused),
        "preferred-batch": ([4], refused),
        # So it is.
        "queue-delay": (0, "command line"),
        # It is kept to by the client, and by a server that takes fewer.
        "max-batchsize": (32, "command line"),
        "server: instances": (2, own),
        "server: threads of each": (None, own),
        "server: largest batch": (16, own),
        "client: samples per request": (1, "rule for GPUs, not measured"),
    }
    assert {name: found[name] for name in expected} == expected


def test_a_result_says_what_it_was_measured_with(run: Run) -> None:
    result = run.judged()
    assert result.rules["min_duration_ms"] == 600_000
    assert result.manifest["weights_sha256"] == "e" * 64
    assert result.dataset == DataSet("imagenet", 4, "f" * 64, is_complete=True)
    assert result.args["model"] == "resnet50"
