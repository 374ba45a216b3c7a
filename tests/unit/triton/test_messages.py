import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from harness.errors import InferenceError, RequestFailed
from harness.models.spec import DType, TensorSpec
from harness.triton.messages import (
    ResponseReader,
    message_request_header,
    most_in_message,
    offset_bytes,
    shared_memory_request_header,
    streamed_response,
)

IMAGE = TensorSpec("input:0", DType.FP32, (3, 4, 5))
CLASS = TensorSpec("ArgMax:0", DType.INT64, ())
SCORES = TensorSpec("scores", DType.FP32, (3,))


def response(*tensors: tuple[str, str, tuple[int, ...], bytes], model: str = "m") -> bytes:
    message = service_pb2.ModelInferResponse(model_name=model, model_version="1")
    for name, datatype, shape, raw in tensors:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(raw)
    return bytes(message.SerializeToString())


def class_response(*classes: int) -> bytes:
    return response(("ArgMax:0", "INT64", (len(classes), 1), np.array(classes, np.int64).tobytes()))


def test_a_message_request_is_what_protobuf_reads_back() -> None:
    samples = np.arange(2 * 60, dtype=np.float32).reshape(2, 3, 4, 5)
    message = service_pb2.ModelInferRequest.FromString(
        (message_request_header("resnet", IMAGE, [CLASS], 2) + samples.tobytes())[5:]
    )
    assert message.model_name == "resnet"
    assert [(i.name, i.datatype, list(i.shape)) for i in message.inputs] == [
        ("input:0", "FP32", [2, 3, 4, 5])
    ]
    assert [output.name for output in message.outputs] == ["ArgMax:0"]
    assert list(message.raw_input_contents) == [samples.tobytes()]


def test_a_message_holds_no_more_than_grpc_and_protobuf_count() -> None:
    vector = TensorSpec("input:0", DType.FP32, (3, 224, 224))
    most = most_in_message(vector)
    header = message_request_header("a" * 255, vector, [CLASS, SCORES], most)
    assert len(header) - 5 + most * vector.sample_bytes < 2**31 < (most + 1) * vector.sample_bytes
    assert most_in_message(TensorSpec("input:0", DType.FP32, (3, 20000, 20000))) == 1


def test_a_request_names_the_version_that_is_asked() -> None:
    for entry, version in (("prod", ""), ("prod/3", "3")):
        wire = message_request_header(entry, IMAGE, [CLASS], 1) + bytes(IMAGE.sample_bytes)
        request = service_pb2.ModelInferRequest.FromString(wire[5:])
        assert (request.model_name, request.model_version) == ("prod", version)


@given(st.integers(0, 2**42 - 1))
@example(0)
@example(7 * 240)
def test_a_shared_memory_request_points_at_its_rows(offset: int) -> None:
    request = shared_memory_request_header("resnet", IMAGE, [CLASS], "region", 2) + offset_bytes(offset)
    length = int.from_bytes(request[1:5], "big")
    assert (request[0], length) == (0, len(request) - 5)
    message = service_pb2.ModelInferRequest.FromString(request[5:])
    wanted = service_pb2.ModelInferRequest(model_name="resnet")
    image = wanted.inputs.add(name="input:0", datatype="FP32", shape=[2, 3, 4, 5])
    image.parameters["shared_memory_region"].string_param = "region"
    image.parameters["shared_memory_byte_size"].int64_param = 2 * 240
    image.parameters["shared_memory_offset"].int64_param = offset
    wanted.outputs.add(name="ArgMax:0")
    assert message == wanted


def test_responses_are_read_alike_before_and_after_their_layout_is_known() -> None:
    reader = ResponseReader([CLASS])
    first = reader.read(class_response(5, 6), 2)
    second = reader.read(class_response(700, 1), 2)
    assert first[0].tolist() == [[5], [6]]
    assert second[0].tolist() == [[700], [1]]


def test_outputs_come_in_the_order_asked_for_whatever_the_server_sends() -> None:
    reader = ResponseReader([SCORES, CLASS])
    for seed in (1, 2, 3):
        scores = np.array([[seed, 2.5, 3]], np.float32)
        got = reader.read(
            response(
                ("ArgMax:0", "INT64", (1, 1), np.int64(seed).tobytes()),
                ("scores", "FP32", (1, 3), scores.tobytes()),
            ),
            1,
        )
        assert got[0].tolist() == scores.tolist()
        assert got[1].tolist() == [[seed]]


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (response(("other", "INT64", (1, 1), bytes(8))), "no output 'ArgMax:0'"),
        (response(("ArgMax:0", "INT32", (1, 1), bytes(4))), "INT32"),
        (response(("ArgMax:0", "INT64", (1, 2), bytes(16))), r"\(1, 2\)"),
        (response(("ArgMax:0", "INT64", (1, 1), b"")), "in 0 bytes"),
        (response(), "no output"),
        (b"\xff\xff", "malformed"),
        (b"", "no output"),
    ],
)
def test_a_malformed_response_is_refused(bad: bytes, complaint: str, is_warm: bool) -> None:
    reader = ResponseReader([CLASS])
    if is_warm:
        reader.read(class_response(3), 1)
    with pytest.raises(InferenceError, match=complaint):
        reader.read(bad, 1)


def test_a_well_shaped_response_without_contents_is_refused() -> None:
    # Seen from Triton 2.51's Python backend under numpy 2.
    message = service_pb2.ModelInferResponse(model_name="m")
    message.outputs.add(name="ArgMax:0", datatype="INT64", shape=(1, 1))
    with pytest.raises(InferenceError, match="in 0 bytes, expected INT64"):
        ResponseReader([CLASS]).read(message.SerializeToString(), 1)


def test_a_response_of_another_model_version_is_still_checked() -> None:
    reader = ResponseReader([CLASS])
    reader.read(class_response(3), 1)
    other = response(("ArgMax:0", "INT64", (1, 1), np.int64(9).tobytes()), model="n")
    assert reader.read(other, 1)[0].tolist() == [[9]]


def test_responses_of_any_number_of_boxes_are_read_each_for_itself() -> None:
    reader = ResponseReader([TensorSpec("boxes", DType.FP32, (-1, 4))])
    for count in (3, 0, 5, 3):
        boxes = np.random.default_rng(count).random((1, count, 4), np.float32)
        (found,) = reader.read(response(("boxes", "FP32", (1, count, 4), boxes.tobytes())), 1)
        assert found.shape == (1, count, 4)
        assert found.tobytes() == boxes.tobytes()
    with pytest.raises(InferenceError, match=r"\(1, 3, 5\).*expected FP32 \(1, -1, 4\)"):
        reader.read(response(("boxes", "FP32", (1, 3, 5), bytes(60))), 1)


@pytest.mark.parametrize("size", [0, 1, 100, 16_384, 3_000_000])
def test_a_streamed_response_is_the_same_bytes(size: int) -> None:
    inner = service_pb2.ModelInferResponse(model_name="m", raw_output_contents=[bytes(size)])
    streamed = service_pb2.ModelStreamInferResponse(infer_response=inner)
    assert streamed_response(streamed.SerializeToString()) == inner.SerializeToString()


def test_a_streamed_failure_is_one() -> None:
    for response in (None, service_pb2.ModelInferResponse(id="7")):
        streamed = service_pb2.ModelStreamInferResponse(
            error_message="no such input", infer_response=response
        )
        with pytest.raises(RequestFailed, match=r"^no such input"):
            streamed_response(streamed.SerializeToString())


@pytest.mark.parametrize("response", [b"\x12", b"\x12\x05ab", b"\x12\xff\xff\xff\xff\xff\xff", b"\xff"])
def test_a_streamed_response_that_is_cut_short_is_malformed(response: bytes) -> None:
    with pytest.raises(InferenceError, match="malformed response"):
        streamed_response(response)
