"""The configuration that a model is served with, as Triton 2.51 gave it to us, and what is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.live_config import has_settings, laid_over, read, said_in, settings_of, with_settings
from harness.models.model_config import ServerSettings, model_config, to_json
from harness.models.platforms import Platform

ONNX = Platform.ONNXRUNTIME.facts
LIVE: dict[str, Any] = {
    "name": "resnet_prod",
    "backend": "onnxruntime",
    "version_policy": {"specific": {"versions": ["1", "3"]}},
    "max_batch_size": 16,
    "dynamic_batching": {"preferred_batch_size": [16], "max_queue_delay_microseconds": "3000"},
    "instance_group": [{"name": "resnet_prod_0", "kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}],
    "parameters": {
        "intra_op_thread_count": {"string_value": "3"},
        "arena": {"string_value": "1"},
    },
    "optimization": {"priority": "PRIORITY_MAX"},
}


def test_what_a_run_can_choose_is_read_from_what_is_live() -> None:
    assert settings_of(LIVE, ONNX) == ServerSettings(
        # Two on each of two GPUs.
        instances=4,
        threads=3,
        max_batch_size=16,
        max_queue_delay_us=3000,
        device="gpu",
        parameters=(("arena", "1"),),
        gpus=(0, 1),
    )
    preferring = {**LIVE, "dynamic_batching": {"preferred_batch_size": [8, 16]}}
    assert settings_of(preferring, ONNX).preferred_batch == (8, 16)
    assert not settings_of({**LIVE, "dynamic_batching": None}, ONNX).joins


def test_a_part_of_a_configuration_is_laid_over_the_rest_and_lists_are_replaced() -> None:
    part = """
        dynamic_batching { max_queue_delay_microseconds: 0 preferred_batch_size: [4, 8] }
        instance_group { count: 1 }
        parameters { key: "arena" value { string_value: "0" } }
        optimization { graph { level: 1 } }
    """
    found = json.loads(laid_over(LIVE, part))
    assert found["instance_group"] == [{"count": 1}]
    assert found["dynamic_batching"] == {"preferred_batch_size": [4, 8]}
    assert found["parameters"] == {**LIVE["parameters"], "arena": {"string_value": "0"}}
    assert found["optimization"] == {"graph": {"level": 1}, "priority": "PRIORITY_MAX"}
    assert (found["max_batch_size"], found["version_policy"]) == (16, LIVE["version_policy"])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("optimization { graph { level: 1 } } dynamic_batching { }", {}),
        ("max_batch_size: 0", {"max_batch_size": 0}),
        ("dynamic_batching { max_queue_delay_microseconds: 0 }", {"max_queue_delay_us": 0}),
        ("dynamic_batching { preferred_batch_size: 1 }", {"preferred_batch": (1,)}),
        (
            "instance_group { count: 3 kind: KIND_GPU gpus: 2 }",
            {"instances": 3, "device": "gpu", "gpus": (2,)},
        ),
        ("instance_group { count: 3 }", {"instances": 3, "device": "auto", "gpus": ()}),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "2" } }'
            'parameters { key: "arena" value { string_value: "0" } }',
            {"threads": 2, "parameters": (("arena", "0"),)},
        ),
        ("sequence_batching { }", {"max_queue_delay_us": 0, "preferred_batch": (), "joins": False}),
    ],
)
def test_what_a_part_of_a_configuration_says_is_told_from_what_it_leaves_open(
    part: str, said: dict[str, Any]
) -> None:
    assert said_in(part, ONNX) == {"parameters": (), "joins": True, **said}


def test_a_preferred_batch_that_triton_filled_in_goes_with_the_limit_that_it_came_from() -> None:
    found = json.loads(laid_over(LIVE, "max_batch_size: 4"))
    assert found["dynamic_batching"] == {"max_queue_delay_microseconds": "3000"}
    chosen = {**LIVE, "dynamic_batching": {"preferred_batch_size": [2, 4]}}
    assert json.loads(laid_over(chosen, "max_batch_size: 4"))["dynamic_batching"] == {
        "preferred_batch_size": [2, 4]
    }


def test_settings_of_a_run_leave_a_servers_tensors_versions_and_devices_alone() -> None:
    variant = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]
    ours = model_config("resnet_prod", variant, ServerSettings(instances=1, threads=2, max_batch_size=32))
    found = json.loads(with_settings(LIVE, ours, is_any_device=True))
    changed = ("max_batch_size", "dynamic_batching", "instance_group", "parameters")
    assert {key: value for key, value in found.items() if key not in changed} == {
        key: value for key, value in LIVE.items() if key not in changed
    }
    assert found["max_batch_size"] == 16
    assert found["dynamic_batching"] == {}
    assert found["instance_group"] == [{**LIVE["instance_group"][0], "count": 1}]
    assert found["parameters"]["intra_op_thread_count"] == {"string_value": "2"}
    larger = model_config("resnet_prod", variant, ServerSettings(max_batch_size=256))
    found = json.loads(with_settings(LIVE, larger, is_any_device=True, is_batch_asked=True))
    assert found["max_batch_size"] == 256
    without = {**LIVE, "max_batch_size": 0}
    assert "max_batch_size" not in json.loads(
        with_settings(without, larger, is_any_device=True, is_batch_asked=True)
    )
    of_another = {**LIVE, "backend": "tensorrt"}
    found = json.loads(with_settings(of_another, ours, is_any_device=False))
    assert found["parameters"] == LIVE["parameters"]
    assert found["instance_group"] == [{"count": 1}]


def group(count: int, *gpus: int, **others: object) -> dict[str, Any]:
    return {"count": count, "kind": "KIND_GPU", "gpus": list(gpus), **others}


ON_CPU = {"count": 2, "kind": "KIND_CPU"}


@pytest.mark.parametrize(
    ("live", "instances", "found"),
    [
        ([group(1, 0), group(1, 1)], 2, [group(2, 0), group(2, 1)]),
        ([group(1, 0, 1)], 2, [group(2, 0, 1)]),
        # Of one GPU, as with host policies: three on it, together.
        ([group(1, 0, host_policy="a"), group(4, 0)], 3, [group(2, 0, host_policy="a"), group(1, 0)]),
        ([group(4, 0), group(4, 0), group(4, 1)], 1, [group(1, 0), group(1, 1)]),
        ([group(1, 0, 1), group(1, 0)], 2, [group(2, 0, 1)]),
        # None is without.
        ([group(1, 0), group(1, 0, 1)], 1, [group(1, 0), group(1, 0, 1)]),
        ([group(9, 0, passive=True), group(1, 1)], 2, [group(2, 1)]),
        ([group(1, 0), ON_CPU], 3, [group(3, 0), {**ON_CPU, "count": 3}]),
        # On any device as many as are asked for.
        ([ON_CPU, ON_CPU], 3, [{**ON_CPU, "count": 3}]),
        ([group(9, 0, passive=True)], 3, [{"count": 3}]),
        ([], 3, [{"count": 3}]),
    ],
)
def test_each_device_of_a_live_model_gets_the_instances_that_are_asked_for(
    live: list[dict[str, Any]], instances: int, found: list[dict[str, Any]]
) -> None:
    variant = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]
    ours = model_config("resnet_prod", variant, ServerSettings(instances=instances))
    changed = json.loads(with_settings({**LIVE, "instance_group": live}, ours, is_any_device=True))
    assert changed["instance_group"] == found


ACCELERATED = """
    optimization {
      execution_accelerators {
        gpu_execution_accelerator [ {
          name: "tensorrt"
          parameters { key: "precision_mode" value: "FP16" }
          parameters { key: "trt_engine_cache_path" value: "/cache" }
        } ]
        cpu_execution_accelerator [ { name: "openvino" } ]
      }
      cuda { graphs: true busy_wait_events: true }
    }
"""


def test_accelerators_providers_and_cuda_graphs_pass_through_over_settings_of_a_run() -> None:
    variant = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]
    settings = ServerSettings(
        *(2, 0, 256, 500), device="gpu", gpus=(0, 3), preferred_batch=(128, 256), parameters=(("arena", "1"),)
    )
    ours = json.loads(to_json(model_config("resnet50_onnxruntime", variant, settings)))
    found = json.loads(laid_over(ours, ACCELERATED))
    optimization = found.pop("optimization")
    assert found == ours
    assert optimization == {
        "execution_accelerators": {
            "gpu_execution_accelerator": [
                {
                    "name": "tensorrt",
                    "parameters": {"precision_mode": "FP16", "trt_engine_cache_path": "/cache"},
                }
            ],
            "cpu_execution_accelerator": [{"name": "openvino"}],
        },
        "cuda": {"graphs": True, "busy_wait_events": True},
    }
    assert found["instance_group"] == [{"count": 2, "kind": "KIND_GPU", "gpus": [0, 3]}]
    assert found["max_batch_size"] == 256
    assert found["dynamic_batching"] == {
        "max_queue_delay_microseconds": "500",
        "preferred_batch_size": [128, 256],
    }


def test_a_batch_beyond_the_declared_limit_takes_a_free_batch_axis() -> None:
    settings = ServerSettings(max_batch_size=256)
    of = {"resnet50": 256, "ssd-resnet34": 0}
    for name, most in of.items():
        variant = MODELS[name].variants[Platform.ONNXRUNTIME]
        assert model_config("x", variant, settings).max_batch_size == most


def test_what_was_sent_is_recognised_whatever_triton_adds_to_it() -> None:
    sent = json.dumps({**LIVE, "instance_group": [{"count": 2}], "parameters": {}})
    assert has_settings(LIVE, sent)
    for other in ({"max_batch_size": 8}, {"instance_group": [{"count": 1}]}, {"dynamic_batching": {}}):
        assert not has_settings({**LIVE, **other}, sent)
    assert not has_settings({**LIVE, "parameters": {}}, json.dumps(LIVE))


@pytest.mark.parametrize("content", [b"max_batch_size: many", b"no_such_field: 1", b"\xff\xfe", b"name: 'a"])
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "part.pbtxt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"part\.pbtxt is no config\.pbtxt: ") as caught:
        read(file)
    assert "\n" not in str(caught.value)
