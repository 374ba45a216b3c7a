import re
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.machine import paths
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.spec import Nms, Precision
from harness.run.config.resolution import resolve, sweep
from harness.run.config.run_config import RunMode
from harness.run.mlperf.rounds import Scenario

MINIMAL = {"model": "resnet50", "platform": "onnxruntime"}


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_DIR", raising=False)


def test_what_is_not_given_has_a_default_that_says_so() -> None:
    config = resolve(MINIMAL)
    assert config.request.scenarios == (Scenario.SINGLE_STREAM,)
    assert config.request.mode == RunMode.PERFORMANCE
    assert config.output.output == paths.RESULTS_DIR
    assert config.provenance["scenario"] == "default"
    assert config.provenance["model"] == "command line"
    assert not config.changes.is_official


def test_aliases_and_case_are_accepted() -> None:
    config = resolve({"model": "resnet50-v1.5", "platform": "pytorch", "scenario": "offline,SERVER"})
    assert (config.model, config.platform) == ("resnet50", Platform.PYTORCH)
    assert config.request.scenarios == (Scenario.OFFLINE, Scenario.SERVER)


def test_a_scenario_named_twice_runs_once() -> None:
    assert resolve({**MINIMAL, "scenario": "Offline,Offline"}).request.scenarios == (Scenario.OFFLINE,)


def test_several_latency_bounds_are_kept_in_order() -> None:
    server = {**MINIMAL, "scenario": "Server"}
    assert resolve({**server, "max_latency": "0.2,0.05,0.20"}).changes.max_latency_s == (0.2, 0.05)
    in_units = resolve({**server, "max_latency": "15MS, 0.015, 500us,100s"})
    assert in_units.changes.max_latency_s == (0.015, 0.0005, 100.0)


def test_what_has_no_effect_on_the_scenarios_is_said_and_not_refused() -> None:
    """As the reference's own README gives --max-latency without --scenario Server."""
    config = resolve({**MINIMAL, "max_latency": "0.2", "queries_offline": "9", "queries_single": "9"})
    assert config.notes == (
        "--max-latency has no effect on SingleStream: it is for Server",
        "--queries-offline has no effect on SingleStream: it is for Offline",
    )


def test_data_dir_is_the_data_set_path_and_known_as_its_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    config = resolve({**MINIMAL, "dataset": "imagenet"})
    assert config.data.dataset_path == tmp_path
    assert config.provenance["dataset_path"] == "DATA_DIR"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"model": None}, "--model is missing"),
        ({"model": "resnet5"}, "did you mean resnet50\\?.*models: resnet50, mobilenet"),
        ({"platform": "onnx"}, "unknown platform 'onnx'.*platforms: .*onnxruntime"),
        ({"scenario": "Ofline"}, "did you mean Offline.*SingleStream, MultiStream, Server, Offline"),
        ({"scenario": ""}, "--scenario is empty"),
        ({"mode": "Fast"}, "--mode 'Fast' is unknown.*Submission"),
        ({"qps": "0"}, "--qps 0 is impossible"),
        ({"qps": "nan"}, "--qps nan is impossible"),
        ({"qps": "inf"}, "--qps inf is impossible"),
        ({"qps": "many"}, "--qps many is impossible"),
        ({"count": "0"}, "--count 0 is impossible: it takes a whole number above 0"),
        ({"count": "1.5"}, "--count 1.5 is impossible"),
        ({"time": "-3"}, "--time -3 is impossible"),
        ({"max_latency": "0.1,0"}, "--max-latency 0 is impossible"),
        ({"max_latency": "15min"}, "--max-latency 15min is impossible"),
        (
            {"max_latency": "100", "scenario": "Server"},
            "--max-latency 100 would be 100 seconds: did you mean 100ms\\? Write 100s if not",
        ),
        ({"max_batchsize": "-1"}, "--max-batchsize -1 is impossible"),
        ({"threads": "0"}, "--threads 0 is impossible"),
        ({"device": "tpu"}, "--device 'tpu' is unknown.*auto, cpu, gpu"),
        ({"transport": "http"}, "--transport 'http' is unknown"),
        ({"dataset": "imagenet"}, "needs --dataset-path"),
        (
            {"dataset": "imagenet_mobilenet", "dataset_path": "."},
            "resnet50 on onnxruntime is preprocessed as",
        ),
        ({"dataset": "synthetic", "dataset_path": "."}, "takes no --dataset-path"),
        ({"dataset_list": "val_map.txt"}, "--dataset-path, which is missing"),
        ({"weights": "/no/such/file.onnx"}, "/no/such/file.onnx: no such file"),
        ({"round": "v9"}, "unknown round 'v9'; rounds: v0.5"),
        ({"round": "v6.1", "time": "10"}, "--round runs by MLPerf's rules and takes no --time"),
        ({"round": "v6.1", "count": "10", "max_latency": "1"}, "takes no --count, --max-latency"),
        ({"mode": "Submission", "time": "10"}, "--mode Submission runs by MLPerf's rules"),
        ({"mode": "FindPeakPerformance"}, "use --scenario Server"),
        (
            {"mode": "FindPeakPerformance", "scenario": "Server", "count": "30"},
            "--count 30 alone would let a search go on for ever: .* add --time",
        ),
        ({"nms": "exact"}, "--nms 'exact' is unknown.*corrected, reference"),
        ({"nms": "reference"}, "resnet50 on onnxruntime has no choice of NMS"),
        ({"precision": "bf16"}, "--precision 'bf16' is unknown.*auto, fp32"),
        ({"precision": "fp32"}, "resnet50 on onnxruntime has no choice of precision: .* is for openvino"),
        ({"save_images": "3"}, "resnet50 on onnxruntime is a classifier: --save-images"),
        ({"save_images": "0"}, "--save-images 0 is impossible"),
        ({"dataset": "coco", "dataset_path": "."}, "is a classifier: --dataset coco"),
        ({"dataset": "coco-300", "dataset_path": "."}, "is a classifier: --dataset coco-300"),
        ({"dataset": "coco-300", "dataset_path": ".", "weights": __file__}, "is a classifier"),
        ({"quick": True, "time": "5"}, "--quick .* takes no --time"),
        ({"quick": True, "round": "v6.1"}, "--quick .* takes no --round"),
        ({"quick": True, "mode": "Submission"}, "--quick .* takes no --mode Submission"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(given: dict[str, str | None], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        resolve({**MINIMAL, **given})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


DETECTOR = {"model": "ssd-resnet34", "platform": "pytorch"}


@pytest.mark.parametrize("name", ["coco", "coco-1200", "coco-1200-onnx", "coco-1200-pt", "coco-1200-tf"])
def test_all_names_of_one_arithmetic_are_accepted(name: str, tmp_path: Path) -> None:
    assert resolve({**DETECTOR, "dataset": name, "dataset_path": tmp_path}).data.dataset == name


def test_another_size_is_refused_for_a_detector(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ssd-resnet34 on pytorch is preprocessed as coco-1200-pt"):
        resolve({**DETECTOR, "dataset": "coco-300", "dataset_path": tmp_path})


def test_the_nms_is_chosen_where_there_is_a_choice() -> None:
    assert resolve(DETECTOR).choice.nms is None
    assert resolve({**DETECTOR, "nms": "Reference"}).choice.nms == Nms.REFERENCE
    with pytest.raises(ConfigError, match="no choice of NMS"):
        resolve({"model": "ssd-resnet34", "platform": "tensorflow", "nms": "reference"})


def test_the_precision_is_chosen_where_there_is_a_choice() -> None:
    assert resolve(MINIMAL).choice.precision == Precision.AUTO
    assert resolve({**MINIMAL, "precision": "auto"}).choice.precision == Precision.AUTO
    chosen = resolve({"model": "resnet50", "platform": "openvino", "precision": "FP32"})
    assert (chosen.choice.precision, chosen.provenance["precision"]) == (Precision.FP32, "command line")
    with pytest.raises(ConfigError, match="resnet50 on tensorflow has no choice of precision"):
        sweep({"precision": "fp32"})
    assert {config.choice.precision for config in sweep({"platform": "openvino", "precision": "fp32"})} == {
        "fp32"
    }


def test_quick_runs_every_scenario_with_accuracy_on_the_models_own_few_samples() -> None:
    config = resolve({**MINIMAL, "quick": True, "scenario": "Offline"})
    assert (config.request.scenarios, config.request.accuracy, config.changes.count) == (
        (Scenario.OFFLINE,),
        True,
        16,
    )
    assert (config.provenance["scenario"], config.provenance["count"]) == ("command line", "--quick")
    assert resolve({**MINIMAL, "quick": True}).request.scenarios == tuple(Scenario)


def test_a_sweep_is_every_model_on_every_platform_or_those_asked_for() -> None:
    pairs = [(config.model, config.platform) for config in sweep({})]
    assert ("ssd-resnet34", Platform.PYTORCH) in pairs
    assert len(pairs) == sum(len(spec.variants) for spec in MODELS.values())
    assert {config.platform for config in sweep({"model": "mobilenet", "platform": "tflite"})} == {"tflite"}
    with pytest.raises(ConfigError, match=r"--all .*: add --model to use --nms"):
        sweep({"nms": "reference"})
    for option in ("model", "platform"):
        with pytest.raises(ConfigError, match=f"unknown {option} ''"):
            sweep({option: ""})
    assert {config.data.dataset for config in sweep({"platform": "tflite"})} == {"synthetic"}
    on_pytorch = [config.model for config in sweep({"platform": "pytorch"})]
    assert on_pytorch == ["resnet50", "mobilenet", "ssd-resnet34"]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:8001,127.0.0.1:8001", "names one server twice: localhost:8001 and 127.0.0.1:8001"),
        ("http://a:8001", "'http://a:8001' is not HOST:PORT"),
        ("a", "'a' is not HOST:PORT"),
        ("a:99999", "'a:99999' is not HOST:PORT"),
        (",", "'' is not HOST:PORT"),
    ],
)
def test_addresses_are_checked_before_anything_is_done(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        resolve({"model": "mobilenet", "platform": "onnxruntime", "url": url})


def test_several_addresses_are_kept_in_order() -> None:
    config = resolve({"model": "mobilenet", "platform": "onnxruntime", "url": "b:1, [::1]:2,a.b-c:3"})
    assert config.server.urls == ("b:1", "[::1]:2", "a.b-c:3")


def test_processes_and_requests_in_flight_have_bounds() -> None:
    for option, most in (("client_processes", 64), ("in_flight", 65536)):
        with pytest.raises(ConfigError, match=f"above 0, and up to {most}"):
            resolve({"model": "mobilenet", "platform": "onnxruntime", option: str(most + 1)})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5", 0.5), ("90s", 90), ("10M", 600), ("1 h", 3600), ("2min", 120)]
)
def test_a_duration_is_in_seconds_or_in_the_unit_behind_it(text: str, seconds: float) -> None:
    assert resolve({**MINIMAL, "time": text}).changes.time_s == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5d", "--time 5d is impossible: it takes seconds, or s, m, min, h behind"),
        ("s", "--time s is impossible: it takes seconds"),
        ("-1", "--time -1 is impossible: it takes a number above 0"),
        ("0m", "--time 0 is impossible: it takes a number above 0"),
    ],
)
def test_what_is_no_duration_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({**MINIMAL, "time": text})
