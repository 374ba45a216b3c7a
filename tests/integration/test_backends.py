"""Our Triton backends, asked through a real tritonserver with NVIDIA's own client."""

import json
import os
import queue
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from harness.models.model_config import RUN_BATCH
from harness.models.platforms import Platform
from harness.server import lifecycle
from tests import small_models
from tests.small_models import PLATFORMS, tensor_name

Client = tritonclient.grpc.InferenceServerClient
AddModel = Callable[..., str]

ALL = pytest.mark.parametrize("platform", PLATFORMS)


def inputs(platform: Platform, pixels: np.ndarray, index: np.ndarray) -> list[tritonclient.grpc.InferInput]:
    tensors = []
    # One number a sample is (n, 1) on the wire.
    for role, array in (("pixels", pixels.astype(np.uint8)), ("index", index.astype(np.int64)[:, None])):
        tensor = tritonclient.grpc.InferInput(
            tensor_name(platform, role), array.shape, {"pixels": "UINT8", "index": "INT64"}[role]
        )
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def samples(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 4)), random.integers(0, 3, count)


def infer_at_once(client: Client, name: str, requests: list[list[Any]]) -> list[Any]:
    """Send requests together; returns each one's result, or its error."""
    answers: queue.Queue[tuple[int, Any]] = queue.Queue()
    for position, tensors in enumerate(requests):
        client.async_infer(
            name,
            tensors,
            lambda result, error, position=position: answers.put((position, error or result)),
        )
    return [answer for _, answer in sorted((answers.get(timeout=60) for _ in requests), key=lambda a: a[0])]


def check(platform: Platform, result: Any, pixels: np.ndarray, index: np.ndarray) -> None:
    doubled, row, best = (result.as_numpy(tensor_name(platform, role)) for role in ("doubled", "row", "best"))
    assert (doubled.dtype, row.dtype, best.dtype) == (np.int32, np.float32, np.int64)
    np.testing.assert_array_equal(doubled, pixels * 2)
    np.testing.assert_array_equal(row, [[[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]][i] for i in index])
    np.testing.assert_array_equal(best, pixels.argmax(1)[:, None])


@pytest.fixture(scope="module")
def small(triton: lifecycle.ServerInfo, client: Client):
    """`small(platform)`: the small model, loaded once for the tests that only ask it."""
    loaded: dict[Platform, str] = {}

    def entry(platform: Platform) -> str:
        if platform not in loaded:
            name = loaded[platform] = f"small_{platform}"
            version = triton.repository / name / "1"
            version.mkdir(parents=True)
            small_models.write(platform, version / platform.facts.model_filename)
            (version.parent / "config.pbtxt").write_text(small_models.config_text(platform))
            client.load_model(name)
        return loaded[platform]

    yield entry
    for name in loaded.values():
        client.unload_model(name)
        shutil.rmtree(triton.repository / name)


def executions(client: Client, name: str, batch_size: int) -> int:
    """How often the server has run a batch of this size."""
    (statistics,) = client.get_inference_statistics(name).model_stats
    return sum(e.compute_infer.count for e in statistics.batch_stats if e.batch_size == batch_size)


def grows_beyond(before: int, count: Callable[[], int]) -> int:
    """What a count of the server's statistics, which are updated after the answer is sent, soon is."""
    for _ in range(20):
        if (found := count()) > before:
            break
        time.sleep(0.05)
    return found


def infer_as_one_batch(client: Client, name: str, requests: list[list[Any]], rows: int) -> list[Any]:
    """Send requests until the server has run them together, which on a busy machine it may not at once."""
    for _ in range(5):
        before = executions(client, name, rows)
        answers = infer_at_once(client, name, requests)
        if grows_beyond(before, lambda: executions(client, name, rows)) > before:
            return answers
    pytest.fail(f"{name} never ran a batch of {rows}")


@ALL
def test_every_element_type_and_one_number_a_sample_arrive_as_declared(
    client: Client, small: Any, platform: Platform
) -> None:
    pixels, index = np.array([[1, 200, 3, 4], [9, 8, 7, 255]]), np.array([2, 0])
    result = client.infer(small(platform), inputs(platform, pixels, index))
    check(platform, result, pixels, index)
    assert result.as_numpy(tensor_name(platform, "best")).tolist() == [[1], [3]]


@ALL
def test_concurrent_requests_of_mixed_sizes_are_run_as_one_batch_and_each_gets_its_own_rows(
    client: Client, small: Any, platform: Platform
) -> None:
    name = small(platform)
    data = [samples(count, seed) for seed, count in enumerate((1, 3, 2, 1, 1))]
    results = infer_as_one_batch(client, name, [inputs(platform, *sample) for sample in data], rows=8)
    for result, sample in zip(results, data, strict=True):
        check(platform, result, *sample)


@ALL
def test_a_request_that_makes_the_framework_fail_does_not_fail_the_others_of_its_batch(
    client: Client, small: Any, platform: Platform
) -> None:
    name = small(platform)
    data = [samples(2, 1), (np.zeros((1, 4), int), np.array([99])), samples(3, 2)]
    requests = [inputs(platform, *sample) for sample in data]
    good, bad, also_good = infer_as_one_batch(client, name, requests, rows=6)
    check(platform, good, *data[0])
    check(platform, also_good, *data[2])
    assert isinstance(bad, InferenceServerException)
    assert name in str(bad)


@ALL
def test_only_requested_outputs_are_answered(client: Client, small: Any, platform: Platform) -> None:
    wanted = {"doubled": 2, "best": 3}
    requests = [
        client.infer(
            small(platform),
            inputs(platform, *samples(count)),
            outputs=[tritonclient.grpc.InferRequestedOutput(tensor_name(platform, role))],
        ).get_response()
        for role, count in wanted.items()
    ]
    assert [[(o.name, o.shape[0]) for o in response.outputs] for response in requests] == [
        [(tensor_name(platform, role), count)] for role, count in wanted.items()
    ]


def test_requests_of_one_batch_may_want_different_outputs(client: Client, small: Any) -> None:
    name = small(Platform.ONNXRUNTIME)
    answers: queue.Queue[Any] = queue.Queue()
    for role in ("row", "best"):
        client.async_infer(
            name,
            inputs(Platform.ONNXRUNTIME, *samples(2)),
            lambda result, error, role=role: answers.put((role, result, error)),
            outputs=[tritonclient.grpc.InferRequestedOutput(role)],
        )
    for role, result, error in (answers.get(timeout=60), answers.get(timeout=60)):
        assert error is None
        assert [output.name for output in result.get_response().outputs] == [role]


@ALL
def test_a_batch_that_is_calculated_in_parts_is_answered_whole(
    client: Client, add_model: AddModel, platform: Platform
) -> None:
    parts = f'parameters {{ key: "{RUN_BATCH}" value {{ string_value: "3" }} }}'
    config = small_models.config_text(platform, parts)
    name = add_model(f"parts_{platform}", config, platform.facts.model_filename, writer(platform))
    data = [samples(count, seed) for seed, count in enumerate((7, 1))]
    results = infer_as_one_batch(client, name, [inputs(platform, *sample) for sample in data], rows=8)
    for result, sample in zip(results, data, strict=True):
        check(platform, result, *sample)


@ALL
def test_a_model_without_batching_is_run_request_by_request(
    client: Client, add_model: AddModel, platform: Platform
) -> None:
    config = small_models.config_text(platform, whole_batch=2)
    name = add_model(f"whole_{platform}", config, platform.facts.model_filename, writer(platform))
    pixels, index = samples(2)

    def request(index: np.ndarray) -> list[Any]:
        tensors = inputs(platform, pixels, index)
        tensors[1].set_shape([2])
        return tensors

    good, bad = infer_at_once(client, name, [request(index), request(np.array([0, 99]))])
    np.testing.assert_array_equal(good.as_numpy(tensor_name(platform, "doubled")), pixels * 2)
    assert good.as_numpy(tensor_name(platform, "best")).shape == (2,)
    assert isinstance(bad, InferenceServerException)
    assert grows_beyond(1, lambda: client.get_inference_statistics(name).model_stats[0].execution_count) == 2


def writer(platform: Platform) -> Callable[[Path], None]:
    return lambda path: small_models.write(platform, path)


def stub_threads(triton: lifecycle.ServerInfo, name: str) -> int:
    """Threads of a model's one instance, a process of its own; one that is being unloaded is older."""
    stubs = [
        process
        for process in psutil.Process(triton.pid).children(recursive=True)
        # Triton reaps some of its ended stubs late, and those tell no command line.
        if process.status() != psutil.STATUS_ZOMBIE
        and any(f"/{name}/" in argument for argument in process.cmdline())
    ]
    return max(stubs, key=psutil.Process.create_time).num_threads()


THREAD_PARAMETERS = {
    Platform.ONNXRUNTIME: "intra_op_thread_count",
    Platform.TENSORFLOW: "TF_NUM_INTRA_THREADS",
    Platform.PYTORCH: "INTRA_OP_THREAD_COUNT",
    Platform.TFLITE: "num_threads",
}


@pytest.mark.parametrize("platform", THREAD_PARAMETERS)
def test_a_reload_with_another_thread_count_changes_the_threads_of_the_instance(
    triton: lifecycle.ServerInfo, client: Client, add_model: AddModel, platform: Platform
) -> None:
    parameter = THREAD_PARAMETERS[platform]
    one = f'parameters {{ key: "{parameter}" value {{ string_value: "1" }} }}'
    config = small_models.config_text(platform, one)
    name = add_model(f"threads_{platform}", config, platform.facts.model_filename, writer(platform))
    with_one = stub_threads(triton, name)
    override = client.get_model_config(name, as_json=True)["config"]
    override["parameters"][parameter]["string_value"] = "4"
    client.load_model(name, config=json.dumps(override))
    with_four = stub_threads(triton, name)
    assert with_four - with_one == 3


def described(client: Client, name: str) -> dict[str, str]:
    """What OpenVINO says of how it executes a model."""
    with pytest.raises(InferenceServerException) as answer:
        client.infer(name, inputs(Platform.OPENVINO, *samples(1)), parameters={"describe_execution": True})
    text = answer.value.message()
    assert text.startswith(f"{name}: execution: ")
    return dict(json.loads(text.removeprefix(f"{name}: execution: ")))


def test_openvino_says_how_it_executes_a_model_to_those_who_ask(
    client: Client, small: Any, add_model: AddModel
) -> None:
    assert described(client, small(Platform.OPENVINO))["precision"] == "fp32"
    one = 'parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "1" } }'
    name = add_model(
        "one_thread",
        small_models.config_text(Platform.OPENVINO, one),
        "model.onnx",
        writer(Platform.OPENVINO),
    )
    assert described(client, name)["threads"] == "1"
    sample = samples(2)
    check(Platform.OPENVINO, client.infer(name, inputs(Platform.OPENVINO, *sample)), *sample)


@ALL
def test_a_corrupt_file_is_a_load_error_that_names_it(add_model: AddModel, platform: Platform) -> None:
    config = small_models.config_text(platform)
    with pytest.raises(InferenceServerException) as failure:
        add_model(
            f"corrupt_{platform}",
            config,
            platform.facts.model_filename,
            lambda path: path.write_bytes(b"not a model at all" * 100),
        )
    assert f"corrupt_{platform}: cannot load" in first_line(failure)
    assert platform.facts.model_filename in first_line(failure)


def first_line(failure: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return failure.value.message().splitlines()[0]


def test_a_tflite_file_with_a_batch_of_one_built_in_answers_larger_batches(
    client: Client, add_model: AddModel
) -> None:
    config = small_models.config_text(Platform.TFLITE)
    name = add_model(
        "fixed_tflite", config, "model.tflite", lambda path: small_models.write_tflite(path, batch=1)
    )
    data = [samples(3, 5), samples(1, 6), (np.zeros((1, 4), int), np.array([99]))]
    first, second, bad = infer_at_once(client, name, [inputs(Platform.TFLITE, *sample) for sample in data])
    check(Platform.TFLITE, first, *data[0])
    check(Platform.TFLITE, second, *data[1])
    assert isinstance(bad, InferenceServerException)


def test_torchscript_inputs_may_be_named_after_the_arguments_of_forward(
    client: Client, add_model: AddModel
) -> None:
    config = small_models.config_text(Platform.PYTORCH)
    # Declared in the other order: it is the names that count.
    first, second = (line for line in config.splitlines() if line.startswith("input"))
    config = config.replace(first, "").replace(second, f"{second}\n{first}")
    config = config.replace("INPUT__0", "pixels").replace("INPUT__1", "index")
    name = add_model("arguments", config, "model.pt", writer(Platform.PYTORCH))
    sample = samples(2)
    result = client.infer(name, inputs(Platform.ONNXRUNTIME, *sample))
    check(Platform.PYTORCH, result, *sample)


def test_graphdef_names_may_carry_the_output_number(client: Client, add_model: AddModel) -> None:
    config = small_models.config_text(Platform.TENSORFLOW).replace('"best"', '"best:0"')
    name = add_model("numbered", config, "model.graphdef", writer(Platform.TENSORFLOW))
    pixels, index = samples(2)
    result = client.infer(name, inputs(Platform.TENSORFLOW, pixels, index))
    np.testing.assert_array_equal(result.as_numpy("best:0"), pixels.argmax(1)[:, None])


def test_kind_auto_runs_on_the_cpu_and_kind_gpu_is_refused_by_cpu_builds(add_model: AddModel) -> None:
    config = small_models.config_text(Platform.ONNXRUNTIME)
    add_model("auto", config.replace("KIND_CPU", "KIND_AUTO"), "model.onnx", writer(Platform.ONNXRUNTIME))
    with pytest.raises(InferenceServerException) as failure:
        add_model("gpu", config.replace("KIND_CPU", "KIND_GPU"), "model.onnx", writer(Platform.ONNXRUNTIME))
    assert "KIND_GPU" in first_line(failure)


def test_a_region_whose_name_is_removed_after_registration_still_serves(client: Client, small: Any) -> None:
    name = small(Platform.ONNXRUNTIME)
    region = Path("/dev/shm") / f"test_unlinked_{name}_{os.getpid()}"
    pixels, index = samples(2)
    region.write_bytes(pixels.astype(np.uint8).tobytes())
    client.register_system_shared_memory("unlinked", region.name, 8)
    region.unlink()
    tensors = inputs(Platform.ONNXRUNTIME, pixels, index)
    tensors[0].set_shared_memory("unlinked", 8)
    check(Platform.ONNXRUNTIME, client.infer(name, tensors), pixels, index)
    client.unregister_system_shared_memory("unlinked")


@pytest.fixture(scope="module")
def completing(tmp_path_factory: pytest.TempPathFactory):
    """A server that lets the backends fill in what configurations omit."""
    repository = tmp_path_factory.mktemp("completing")
    state_dir = tmp_path_factory.mktemp("completing_server")
    info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True, auto_complete=True)
    yield info
    lifecycle.stop(info, state_dir)


def add_to(info: lifecycle.ServerInfo, name: str, platform: Platform, config: str) -> Client:
    version = info.repository / name / "1"
    version.mkdir(parents=True)
    small_models.write(platform, version / platform.facts.model_filename)
    (version.parent / "config.pbtxt").write_text(config)
    client = tritonclient.grpc.InferenceServerClient(info.grpc_url)
    client.load_model(name)
    return client


@pytest.mark.parametrize(
    "platform",
    [Platform.ONNXRUNTIME, Platform.OPENVINO, Platform.TENSORFLOW_SAVEDMODEL, Platform.TFLITE],
)
def test_a_configuration_without_tensors_is_completed_from_the_file(
    completing: lifecycle.ServerInfo, platform: Platform
) -> None:
    with add_to(completing, f"bare_{platform}", platform, small_models.bare_config_text(platform)) as client:
        config = client.get_model_config(f"bare_{platform}").config
        assert {(t.name, t.data_type, tuple(t.dims)) for t in config.input} == {
            ("pixels", 2, (4,)),  # 2, 9, 8, 11: TYPE_UINT8, INT64, INT32, FP32 of model_config.proto
            ("index", 9, (1,)),
        }
        assert {(t.name, t.data_type, tuple(t.dims)) for t in config.output} == {
            ("doubled", 8, (4,)),
            # OpenVINO goes by the graph, which computes this shape, not by what the file says of it.
            ("row", 11, (-1,) if platform == Platform.OPENVINO else (2,)),
            ("best", 9, (1,)),
        }
        assert config.max_batch_size == 4
        assert config.HasField("dynamic_batching")
        sample = samples(3)
        check(platform, client.infer(f"bare_{platform}", inputs(platform, *sample)), *sample)


def test_a_complete_configuration_is_left_as_it_is(completing: lifecycle.ServerInfo) -> None:
    text = small_models.config_text(Platform.ONNXRUNTIME)
    with add_to(completing, "complete", Platform.ONNXRUNTIME, text) as client:
        config = client.get_model_config("complete").config
        assert config.max_batch_size == 8
        assert config.dynamic_batching.max_queue_delay_microseconds == 100_000
        assert len(config.input) == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_detector_finds_every_class_with_any_number_of_threads(
    client: Client, add_model: AddModel, threads: int
) -> None:
    classes = 6
    # LiteRT's operation counts from the second class on: the first column is the background's.
    config = f"""
        backend: "tflite" max_batch_size: 0 instance_group {{ count: 1 kind: KIND_CPU }}
        input {{ name: "scores" data_type: TYPE_FP32 dims: [1, {classes}, {classes}] }}
        output {{ name: "classes_of_op" data_type: TYPE_FP32 dims: [1, {classes}] }}
        output {{ name: "count_of_op" data_type: TYPE_FP32 dims: [1] }}
        parameters {{ key: "num_threads" value {{ string_value: "{threads}" }} }}
    """
    name = add_model(
        f"detector_{threads}",
        config,
        "model.tflite",
        lambda path: small_models.write_detector(path, classes),
    )
    scores = np.diag(np.linspace(0.9, 0.5, classes)).astype(np.float32)[None]
    tensor = tritonclient.grpc.InferInput("scores", scores.shape, "FP32")
    tensor.set_data_from_numpy(scores)
    result = client.infer(name, [tensor])
    count = int(result.as_numpy("count_of_op")[0])
    assert result.as_numpy("classes_of_op")[0, :count].tolist() == list(range(classes))
