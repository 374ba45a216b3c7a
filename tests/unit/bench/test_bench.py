"""What the side-by-side benchmark concludes from what it measured, and what it can be asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.bench import tables
from harness.bench.comparison import Comparison
from harness.bench.figures import Row, Target, Unit, speed_ratio
from harness.bench.limit.frameworks import DoesNotFit, check
from harness.bench.limit.search import Setup, setups
from harness.bench.options import resolve
from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.run.mlperf.rounds import Scenario
from harness.run.results.bottleneck import Bound, Evidence, find
from harness.triton import statistics


def evidence(**changed: float) -> Evidence:
    """64 requests in flight of 6.4 ms each: 10,000 a second."""
    fields = {
        "request_us": 6400.0,
        "requests_per_s": 10_000.0,
        "in_flight_limit": 64,
        "client_us": 20.0,
        "client_cores": 0.2,
        "client_processes": 1,
        "queue_us": 300.0,
        "compute_us": 340.0,
        "instances_busy": 0.3,
        "mean_batch_size": 4.0,
    }
    return Evidence(**{**fields, **changed}, executions_by_batch_size={1: 10, 4: 90, 8: 20, 16: 5})


def test_a_run_that_nobody_computes_for_is_transport_bound() -> None:
    found = find(evidence())
    assert found.bound == Bound.TRANSPORT
    assert found.server_share == pytest.approx(0.1)
    assert found.client_share == pytest.approx(0.2)
    assert found.transport_share == pytest.approx(0.7)


def test_a_client_that_uses_all_of_its_core_is_the_bound_however_full_the_server_is() -> None:
    found = find(evidence(client_us=95.0, client_cores=0.95, queue_us=5000.0))
    assert found.bound == Bound.CLIENT
    assert found.client_share == pytest.approx(0.95)


def test_several_client_processes_share_the_client_work() -> None:
    assert find(evidence(client_us=95.0, client_processes=2)).client_share == pytest.approx(0.475)


def test_instances_that_never_rest_are_the_bound_even_if_the_client_is_busy() -> None:
    assert find(evidence(client_us=60.0, instances_busy=0.97)).bound == Bound.SERVER


def test_of_two_that_never_rest_the_busier_is_the_bound() -> None:
    assert find(evidence(client_us=98.0, instances_busy=0.93)).bound == Bound.CLIENT
    assert find(evidence(client_us=93.0, instances_busy=0.98)).bound == Bound.SERVER


@pytest.mark.parametrize(
    ("client_us", "compute_us", "bound"),
    [(100, 700, Bound.SERVER), (600, 200, Bound.CLIENT), (200, 200, Bound.TRANSPORT)],
)
def test_a_lone_request_is_held_back_by_what_takes_most_of_its_life(
    client_us: float, compute_us: float, bound: Bound
) -> None:
    lone = {"request_us": 1000.0, "requests_per_s": 950.0, "in_flight_limit": 1, "queue_us": 10.0}
    assert find(evidence(**lone, client_us=client_us, compute_us=compute_us)).bound == bound


def test_a_client_that_is_mostly_idle_may_still_be_most_of_a_rare_request() -> None:
    # Server: 100 requests a second of 1 ms, which is a tenth of one in flight.
    rare = {"request_us": 1000.0, "requests_per_s": 100.0, "queue_us": 50.0, "compute_us": 250.0}
    found = find(evidence(**rare, client_us=600.0, client_cores=0.06))
    assert found.bound == Bound.CLIENT
    assert found.client_share == pytest.approx(0.6)


def test_the_evidence_is_told_in_words() -> None:
    text = "\n".join(find(evidence()).reasons)
    assert "CPU 20% of a core, 0.02 ms a request" in text
    assert "64.0 of up to 64, of these in the server 6.4" in text
    assert "6.4 ms = 0.3 in Triton's queue + 0.34 in its batch + 5.76 in client and transport" in text
    assert (
        "instances busy 30%; mean batch 4.0, of 4 (90 times), 8 (20 times), 1 (10 times) and 1 other" in text
    )


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine was half as fast in the second round; the ratio of the medians would be 80 / 60.
    assert speed_ratio((80, 40, 90), (100, 50, 60), Unit.SAMPLES_PER_S) == pytest.approx(0.8)


def test_of_latencies_and_cpu_time_less_is_faster() -> None:
    assert speed_ratio((2.0,), (3.0,), Unit.MS) == pytest.approx(1.5)
    assert speed_ratio((100.0,), (400.0,), Unit.CLIENT_US) == pytest.approx(4.0)


def test_a_row_says_how_far_it_is_from_the_limit() -> None:
    row = Row("p50", Unit.MS, ours=(10.0, 12.0, 20.0), plain=(20.0, 24.0, 40.0), bare=(9.0, 11.5, 19.0))
    assert row.over_bare == pytest.approx(1.0)
    assert row.ratio_to_bare == pytest.approx(0.95)
    assert row.ratio_to_plain == pytest.approx(2.0)


def test_what_bare_cannot_do_has_no_ratio() -> None:
    row = Row("p99", Unit.MS, ours=(10.0,), plain=(20.0,))
    assert row.ratio_to_bare is None
    assert row.over_bare is None


RATES = Row("64 in flight", Unit.QUERIES_PER_S, ours=(18000.0,), plain=(7500.0,), grpc=(13500.0,))


def test_a_path_has_a_column_where_a_row_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    without = Row("client CPU", Unit.CLIENT_US, ours=(30.0,), plain=(650.0,))
    for rows, headings in [([without], "ours plain ours/plain"), ([RATES, without], "ours grpc plain")]:
        tables.show([Comparison("null model", rows)], resolve({"null_only": True}), Path("bench.json"))
        assert f"unit {headings}" in " ".join(capsys.readouterr().out.split())


def test_the_way_over_grpcs_library_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    tables.write([Comparison("null model", [RATES])], resolve({"null_only": True}), file)
    (row,) = json.loads(file.read_text())["comparisons"][0]["rows"]
    assert (row["grpc"], row["median_grpc"]) == ([13500.0], 13500.0)
    assert row["ratio_to_grpc"] == pytest.approx(4 / 3)


def test_targets_are_bounds_on_either_side() -> None:
    assert Target("rate", 100, True, "", 100).is_met
    assert not Target("rate", 100, True, "", 99).is_met
    assert Target("time", 100, False, " us", 99).is_met
    assert not Target("time", 100, False, " us", 101).is_met
    assert str(Target("time", 100, False, " us", 101)) == "MISSED: time 101 us, wanted <= 100 us"


def test_every_even_split_of_the_cpus_is_tried() -> None:
    assert setups(2, Platform.ONNXRUNTIME) == [Setup(1, 2, False), Setup(1, 2, True), Setup(2, 1, False)]
    assert setups(6, Platform.TFLITE) == [Setup(p, 6 // p, False) for p in (1, 2, 3, 6)]
    assert setups(1, Platform.PYTORCH) == [Setup(1, 1, False)]


def test_a_graph_that_answers_for_fewer_samples_than_it_was_given_does_not_count() -> None:
    variant = MODELS["mobilenet"].variants[Platform.TFLITE]
    check(lambda: [np.zeros((4, 1001))], 4, variant)
    with pytest.raises(DoesNotFit, match="answered with"):
        check(lambda: [np.zeros((1, 1001))], 4, variant)


def test_a_graph_that_refuses_a_batch_does_not_fit() -> None:
    def refuse() -> list[object]:
        raise RuntimeError("reshape")

    with pytest.raises(DoesNotFit, match="a batch of 4: reshape"):
        check(refuse, 4, MODELS["mobilenet"].variants[Platform.TFLITE])


def test_a_batch_of_several_requests_is_counted_once_as_the_instances_time() -> None:
    def reading(requests: int, batches: int) -> dict[str, object]:
        durations = {"compute_input": 10, "compute_infer": 500, "compute_output": 5}
        return {
            "inference_count": str(requests),
            "execution_count": str(batches),
            "inference_stats": {
                k: {"count": str(requests), "ns": str(requests * ns)} for k, ns in durations.items()
            },
            "batch_stats": [
                {
                    "batch_size": "8",
                    **{k: {"count": str(batches), "ns": str(batches * ns)} for k, ns in durations.items()},
                }
            ],
        }

    found = statistics.difference(reading(8, 1), reading(32, 4))
    assert found.compute_infer_ns == 24 * 500
    assert found.executions_ns == 3 * 515


def test_what_is_not_asked_for_has_a_default() -> None:
    options = resolve({})
    assert [(c.model, c.platform) for c in options.configs] == [
        ("resnet50", Platform.ONNXRUNTIME),
        ("mobilenet", Platform.ONNXRUNTIME),
    ]
    assert {c.request.scenarios for c in options.configs} == {tuple(Scenario)}
    assert (options.rounds, options.seconds, options.is_quick) == (3, 10.0, False)


def test_quick_can_be_overridden() -> None:
    options = resolve({"quick": True, "rounds": "2", "scenario": "offline"})
    assert [(c.model, c.request.scenarios) for c in options.configs] == [("mobilenet", (Scenario.OFFLINE,))]
    assert (options.rounds, options.seconds, options.is_quick) == (2, 3.0, True)


def test_every_model_is_paired_with_every_platform() -> None:
    options = resolve({"model": "resnet50,mobilenet", "platform": "pytorch,tflite"})
    assert [(c.model, c.platform.value) for c in options.configs] == [
        ("resnet50", "pytorch"),
        ("resnet50", "tflite"),
        ("mobilenet", "pytorch"),
        ("mobilenet", "tflite"),
    ]


def test_large_images_make_fewer_samples() -> None:
    counts = [resolve({"model": model}).configs[0].changes.count for model in ("mobilenet", "ssd-resnet34")]
    assert counts == [64, 16]


def test_null_only_measures_no_model() -> None:
    assert resolve({"null_only": True}).configs == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"model": "resnet51"}, "unknown model 'resnet51'"),
        ({"platform": "caffe"}, "unknown platform 'caffe'"),
        ({"model": "ssd-resnet34", "platform": "tflite"}, "tflite"),
        ({"scenario": "Offlin"}, "did you mean Offline"),
        ({"model": ""}, "--model is empty"),
        ({"platform": ","}, "--platform is empty"),
        ({"scenario": ""}, "--scenario is empty"),
        ({"output": ""}, "--output is empty"),
        ({"rounds": "0"}, "--rounds 0 is impossible"),
        ({"rounds": "1.5"}, "--rounds 1.5 is impossible"),
        ({"rounds": "1000"}, "up to 100"),
        ({"time": "nan"}, "--time nan is impossible"),
        ({"time": "soon"}, "--time soon is impossible"),
        ({"null_only": True, "scenario": "Offline"}, "--null-only measures no model and takes no --scenario"),
    ],
)
def test_what_cannot_be_done_is_refused(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve(given)
