"""`args` of results.json: their names, their order and their values, which others read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.machine import paths
from harness.run.config.resolution import resolve

DEFAULTS: dict[str, Any] = {
    "model": "resnet50",
    "platform": "onnxruntime",
    "profile": "",
    "scenarios": ["SingleStream"],
    "mode": "Performance",
    "accuracy": False,
    "dataset": "auto",
    "dataset_path": None,
    "dataset_list": None,
    "inputs": [],
    "outputs": [],
    "data_format": None,
    "count": None,
    "time_s": None,
    "qps": None,
    "max_latency_s": [],
    "queries_single": None,
    "queries_multi": None,
    "queries_offline": None,
    "samples_per_query": None,
    "performance_sample_count": None,
    "user_conf": {"path": "", "values": {}},
    "max_batchsize": None,
    "threads": None,
    "device": "auto",
    "transport": "auto",
    "urls": [],
    "rpc": "auto",
    "tls_ca": None,
    "tls_cert": None,
    "tls_key": None,
    "headers": [],
    "client_processes": 1,
    "in_flight": None,
    "server_config": None,
    "served_name": None,
    "served_version": None,
    "weights": "auto",
    "nms": None,
    "precision": "auto",
    "tolerance": None,
    "preprocess": "",
    "label_offset": None,
    "classes": None,
    "boxes": "",
    "save_images": 0,
    "output": str(paths.RESULTS_DIR),
    "label": "",
    "is_anonymous": False,
    "output_file": None,
    "cache": str(paths.CACHE_DIR),
    "round": "v6.1",
    "is_official": False,
    "is_quick": False,
    "debug": False,
    "quiet": False,
    "provenance": {
        "model": "command line",
        "platform": "command line",
        "mode": "default",
        "find_peak_performance": "default",
        "profile": "default",
        "scenario": "default",
        "accuracy": "default",
        "quick": "default",
        "data_format": "model",
        "nms": "model",
        "precision": "default",
        "classes": "model",
        "boxes": "model",
        "weights": "default",
        "tolerance": "precision",
        "preprocess": "model",
        "label_offset": "model",
        "inputs": "model",
        "outputs": "model",
        "cache": "default",
        "dataset": "default",
        "dataset_path": "default",
        "dataset_list": "default",
        "user_conf": "default",
        "round": "default",
        "count": "default",
        "time": "round",
        "qps": "calibrated",
        "max_latency": "round",
        "queries_single": "round",
        "queries_multi": "round",
        "queries_offline": "round",
        "samples_per_query": "round",
        "performance_sample_count": "round",
        "in_flight": "measured, or by rule",
        "client_processes": "default",
        "device": "default",
        "threads": "number of CPUs",
        "url": "default",
        "max_batchsize": "model",
        "transport": "default",
        "rpc": "default",
        "tls_ca": "default",
        "tls_cert": "default",
        "tls_key": "default",
        "header": "default",
        "server_config": "keep what others have loaded, else ours",
        "served_name": "model and platform",
        "served_version": "the server's choice",
        "output": "default",
        "debug": "default",
        "quiet": "default",
        "save_images": "default",
        "label": "default",
        "anonymous": "default",
    },
    "notes": [],
    "scenario": "SingleStream",
    "time": None,
    "max_latency": [],
    "backend": "onnxruntime",
    "model_name": "resnet50",
    "cache_dir": str(paths.CACHE_DIR),
    "audit_conf": None,
    "preprocessed_dir": None,
    "use_preprocessed_dataset": None,
    "find_peak_performance": False,
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "MODEL_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)


def test_args_of_a_run_that_nothing_was_asked_of() -> None:
    config = resolve({"model": "resnet50", "platform": "onnxruntime"})
    assert json.dumps(config.to_json()) == json.dumps(DEFAULTS)


def test_args_of_a_run_that_much_was_asked_of(tmp_path: Path) -> None:
    conf, image_list = tmp_path / "user.conf", tmp_path / "list.txt"
    conf.write_text("*.Server.target_qps = 20\n*.*.min_duration = 1500\n")
    given = {
        "profile": "ssd-resnet34-pytorch",
        "scenario": "Server,offline",
        "mode": "accuracy",
        "accuracy": True,
        "dataset": "coco",
        "dataset_path": str(tmp_path),
        "dataset_list": str(image_list),
        "inputs": "INPUT__0",
        "outputs": "OUTPUT__0,OUTPUT__1,OUTPUT__2",
        "data_format": "nchw",
        "count": "9",
        "time": "2.5",
        "qps": "3",
        "max_latency": "0.2,0.1",
        "queries_single": "11",
        "queries_multi": "12",
        "queries_offline": "13",
        "samples_per_query": "4",
        "performance_sample_count": "5",
        "user_conf": str(conf),
        "max_batchsize": "2",
        "threads": "1",
        "device": "cpu",
        "transport": "grpc",
        "url": "a:1,b:2",
        "rpc": "grpcio",
        "header": ["Authorization: Bearer $HOME", "key: secret"],
        "client_processes": "2",
        "in_flight": "6",
        "server_config": "ours",
        "served_name": "detector",
        "served_version": "2",
        "weights": "official",
        "nms": "Reference",
        "tolerance": "0.1",
        "save_images": "7",
        "label": "one thread ",
        "anonymous": True,
        "output": str(tmp_path / "all.json"),
        "cache": str(tmp_path / "cache"),
        "debug": True,
    }
    expected = {
        **DEFAULTS,
        "model": "ssd-resnet34",
        "platform": "pytorch",
        "profile": "ssd-resnet34-pytorch",
        "scenarios": ["Server", "Offline"],
        "mode": "Accuracy",
        "accuracy": True,
        "dataset": "coco",
        "dataset_path": str(tmp_path),
        "dataset_list": str(image_list),
        "inputs": ["INPUT__0"],
        "outputs": ["OUTPUT__0", "OUTPUT__1", "OUTPUT__2"],
        "data_format": "NCHW",
        "count": 9,
        "time_s": 2.5,
        "qps": 3.0,
        "max_latency_s": [0.2, 0.1],
        "queries_single": 11,
        "queries_multi": 12,
        "queries_offline": 13,
        "samples_per_query": 4,
        "performance_sample_count": 5,
        "user_conf": {
            "path": str(conf),
            "values": {
                "Server": {"target_qps": 20.0, "min_duration": 1500.0},
                "SingleStream": {"min_duration": 1500.0},
                "MultiStream": {"min_duration": 1500.0},
                "Offline": {"min_duration": 1500.0},
            },
        },
        "max_batchsize": 2,
        "threads": 1,
        "device": "cpu",
        "transport": "grpc",
        "urls": ["a:1", "b:2"],
        "rpc": "grpcio",
        "headers": ["authorization: Bearer $HOME", "key: (hidden)"],
        "client_processes": 2,
        "in_flight": 6,
        "server_config": "ours",
        "served_name": "detector",
        "served_version": 2,
        "weights": "official",
        "nms": "reference",
        "tolerance": 0.1,
        "save_images": 7,
        "label": "one thread",
        "is_anonymous": True,
        "output_file": str(tmp_path / "all.json"),
        "cache": str(tmp_path / "cache"),
        "debug": True,
        "scenario": "Server,Offline",
        "time": 2.5,
        "max_latency": [0.2, 0.1],
        "backend": "pytorch",
        "model_name": "ssd-resnet34",
        "cache_dir": str(tmp_path / "cache"),
        "provenance": {
            **dict.fromkeys(DEFAULTS["provenance"], "command line"),
            "model": "--profile ssd-resnet34-pytorch",
            "platform": "--profile ssd-resnet34-pytorch",
            **dict.fromkeys(("precision", "find_peak_performance", "quick", "round", "quiet"), "default"),
            **dict.fromkeys(("tls_ca", "tls_cert", "tls_key"), "default"),
            **dict.fromkeys(("preprocess", "label_offset", "classes", "boxes"), "model"),
        },
        "notes": [
            "--queries-single has no effect on Server, Offline: it is for SingleStream",
            "--samples-per-query has no effect on Server, Offline: it is for MultiStream",
        ],
    }
    assert json.dumps(resolve(given).to_json()) == json.dumps(expected)


def test_args_of_a_round_and_of_a_quick_run() -> None:
    words = {"model": "mobilenet", "platform": "openvino"}
    official = resolve({**words, "round": "v0.5", "precision": "fp32", "quiet": True}).to_json()
    assert (official["round"], official["is_official"], official["precision"]) == ("v0.5", True, "fp32")
    assert (official["quiet"], official["is_quick"]) == (True, False)
    quick = resolve({**words, "quick": True}).to_json()
    assert (quick["round"], quick["is_official"], quick["is_quick"]) == ("v6.1", False, True)


def test_every_field_of_every_group_is_in_args_once() -> None:
    config = resolve({"model": "resnet50", "platform": "onnxruntime"})
    groups = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert len(groups) == 6
    assert sorted([*names, "model", "platform", "provenance", "notes"]) == sorted(config.fields())
