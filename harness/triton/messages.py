"""Bytes on the wire: ready-made ModelInfer requests, and responses read without protobuf where possible.

Triton's protocol is tritonclient's generated schema. Building and parsing its messages costs more than
everything else that a query costs the client, so requests are serialised beforehand but for what differs from
one to the next, the samples or where they lie; nothing is kept of a query, as MLPerf's rules want. And a
response that has the length and the leading bytes of one that was parsed and checked before is read in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from harness.errors import InferenceError, RequestFailed
from harness.models.spec import TensorSpec
from harness.triton.http2 import Message, message_prefix

_INPUT_TAG = b"\x2a"
"""Field 5 (`inputs`), length-delimited, of ModelInferRequest."""
_RAW_INPUT_TAG = b"\x3a"
"""Field 7 (`raw_input_contents`), length-delimited, of ModelInferRequest."""
_INFER_RESPONSE_TAG = 0x12
"""Field 2 (`infer_response`), length-delimited, of ModelStreamInferResponse."""
_LARGEST_MESSAGE = 2**31 - 1
"""Bytes, in gRPC and protobuf: Triton takes no more, and they count no further."""
_HEADER_BYTES = 1 << 16
"""Of a request without its samples, at most: some names."""
_OFFSET_BYTES = 6
"""Of a varint, seven bits each: 4 TB, which no /dev/shm holds."""
_DESCRIBE = "describe_execution"
"""`DESCRIBE` of backends/batching.py."""


def name_and_version(entry: str) -> tuple[str, str]:
    """What Triton calls an entry, and its version: `resnet_prod/3`; or without one, for Triton to choose."""
    name, _, version = entry.partition("/")
    return name, version


def _request(
    entry: str, source: TensorSpec, outputs: Sequence[TensorSpec], batch: int
) -> service_pb2.ModelInferRequest:
    name, version = name_and_version(entry)
    request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
    request.inputs.add(name=source.name, datatype=source.dtype.triton, shape=source.batch_shape(batch))
    for output in outputs:
        request.outputs.add(name=output.name)
    return request


def shared_memory_request_header(
    entry: str, source: TensorSpec, outputs: Sequence[TensorSpec], region: str, batch: int
) -> bytes:
    """Serialise all of a request for `batch` consecutive samples of a registered region but their place.

    `offset_bytes` must follow to complete it.
    """
    request = _request(entry, source, outputs, batch)
    tensor = request.inputs.pop()
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = batch * source.sample_bytes
    # Messages may be joined, and fields come in any order: the offset can be the last of all.
    last = service_pb2.ModelInferRequest.InferInputTensor()
    last.parameters["shared_memory_offset"].int64_param = (1 << 7 * _OFFSET_BYTES) - 1
    whole = tensor.SerializeToString() + last.SerializeToString()
    body = b"".join((request.SerializeToString(), _INPUT_TAG, _varint(len(whole)), whole))
    return message_prefix(len(body)) + body[:-_OFFSET_BYTES]


def offset_bytes(offset: int) -> bytes:
    """Where samples begin in a region, in bytes, as a varint whose length is always the same."""
    return bytes(
        (
            offset & 0x7F | 0x80,
            offset >> 7 & 0x7F | 0x80,
            offset >> 14 & 0x7F | 0x80,
            offset >> 21 & 0x7F | 0x80,
            offset >> 28 & 0x7F | 0x80,
            offset >> 35,
        )
    )


def message_request_header(
    entry: str, source: TensorSpec, outputs: Sequence[TensorSpec], batch: int
) -> bytes:
    """Serialise all of a request but the samples, whose raw bytes must follow to complete it."""
    size = batch * source.sample_bytes
    request = _request(entry, source, outputs, batch)
    header = b"".join((request.SerializeToString(), _RAW_INPUT_TAG, _varint(size)))
    return message_prefix(len(header) + size) + header


def most_in_message(source: TensorSpec) -> int:
    """How many samples a request can carry itself."""
    return max(1, (_LARGEST_MESSAGE - _HEADER_BYTES) // source.sample_bytes)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def description_request(entry: str, source: TensorSpec, outputs: Sequence[TensorSpec]) -> Message:
    """Serialise a request that has our backends say how they execute a model.

    It holds a sample of zeros, since other backends take it for an inference.
    """
    request = _request(entry, source, outputs, 1)
    request.parameters[_DESCRIBE].bool_param = True
    request.raw_input_contents.append(bytes(source.sample_bytes))
    return _message(request)


def _message(request: service_pb2.ModelInferRequest) -> Message:
    body = bytes(request.SerializeToString())
    return message_prefix(len(body)) + body


def streamed_response(response: bytes) -> bytes:
    """The serialised ModelInferResponse in a ModelStreamInferResponse.

    Raises:
        RequestFailed: it says that the request failed.
        InferenceError: it is malformed.
    """
    if response and response[0] == _INFER_RESPONSE_TAG:
        # Its length as a varint, seven bits a byte: the high bit says that another follows.
        length = shift = 0
        for start, byte in enumerate(response[1:6], 2):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if start + length == len(response):
                    return response[start:]
                break
    try:
        message = service_pb2.ModelStreamInferResponse.FromString(response)
    except DecodeError as error:
        raise InferenceError(f"malformed response: {error}") from error
    if message.error_message:
        raise RequestFailed(message.error_message, is_fatal=False)
    return bytes(message.infer_response.SerializeToString())


@dataclass(frozen=True)
class _Template:
    """Where the tensors of a response of one batch size are, once one such response was parsed."""

    length: int
    constants: tuple[tuple[int, bytes], ...]
    """(offset, bytes) of all that is not tensor data: names, dtypes, shapes and lengths."""
    tensors: tuple[tuple[int, np.dtype[np.generic], int, tuple[int, ...]], ...]
    """(offset, dtype, element count, shape) in the order of the requested outputs."""


class ResponseReader:
    """Checks and reads ModelInfer responses of one entry."""

    def __init__(self, outputs: Sequence[TensorSpec]) -> None:
        self._outputs = tuple(outputs)
        # Responses whose length varies with the image have no template.
        self._has_open_shape = any(-1 in output.shape for output in outputs)
        self._templates: dict[int, _Template] = {}

    def read(self, response: bytes, batch: int) -> list[npt.NDArray[np.generic]]:
        """Tensors of a response, in the order of the requested outputs, as views of its bytes.

        Raises:
            InferenceError: an output is missing, or has another dtype, shape or byte length than declared.
        """
        template = self._templates.get(batch)
        if (
            template is None
            or len(response) != template.length
            or any(not response.startswith(text, at) for at, text in template.constants)
        ):
            return self._parse(response, batch)
        return [
            np.frombuffer(response, dtype, count, offset).reshape(shape)
            for offset, dtype, count, shape in template.tensors
        ]

    def _parse(self, response: bytes, batch: int) -> list[npt.NDArray[np.generic]]:
        try:
            message = service_pb2.ModelInferResponse.FromString(response)
        except DecodeError as error:
            raise InferenceError(f"malformed response: {error}") from error
        answered = {output.name: index for index, output in enumerate(message.outputs)}
        tensors = []
        for spec in self._outputs:
            if spec.name not in answered:
                raise InferenceError(f"malformed response: no output {spec.name!r}, only {list(answered)}")
            index = answered[spec.name]
            output, raw = message.outputs[index], _raw_contents(message, index)
            _check_tensor(spec, output, raw, batch)
            shape = tuple(output.shape) if spec.shape else spec.batch_shape(batch)
            tensors.append(np.frombuffer(raw, spec.dtype.value).reshape(shape))
        if not self._has_open_shape:
            self._templates[batch] = self._template(response, message, batch)
        return tensors

    def _template(self, response: bytes, message: service_pb2.ModelInferResponse, batch: int) -> _Template:
        """Find the tensors in the bytes: they come last, in order, each behind its tag and length."""
        offsets = {}
        constants = []
        end = len(response)
        for output, raw in reversed(list(zip(message.outputs, message.raw_output_contents, strict=True))):
            offsets[output.name] = end - len(raw)
            head = service_pb2.ModelInferResponse(raw_output_contents=[raw]).SerializeToString()
            start = end - len(head)
            constants.append((start, response[start : end - len(raw)]))
            end = start
        constants.append((0, response[:end]))
        return _Template(
            length=len(response),
            constants=tuple(reversed(constants)),
            tensors=tuple(
                (
                    offsets[spec.name],
                    np.dtype(spec.dtype.value),
                    int(np.prod(spec.batch_shape(batch))),
                    spec.batch_shape(batch),
                )
                for spec in self._outputs
            ),
        )


def _raw_contents(message: service_pb2.ModelInferResponse, index: int) -> bytes:
    if index >= len(message.raw_output_contents):
        return b""
    return bytes(message.raw_output_contents[index])


def _check_tensor(
    spec: TensorSpec, got: service_pb2.ModelInferResponse.InferOutputTensor, raw: bytes, batch: int
) -> None:
    """Compare with the declaration; the byte length too, since Triton can send well-shaped empty tensors."""
    want, shape = spec.batch_shape(batch), tuple(got.shape)
    # One number per sample comes without its axis where the model has no batch axis either.
    is_right_shape = (shape == (batch,) and not spec.shape) or (
        len(shape) == len(want) and all(b in (a, -1) for a, b in zip(shape, want, strict=True))
    )
    size = int(np.prod(shape)) * np.dtype(spec.dtype.value).itemsize
    if got.datatype != spec.dtype.triton or not is_right_shape or len(raw) != size:
        raise InferenceError(
            f"malformed response: output {spec.name!r} is {got.datatype} {shape} in {len(raw)} bytes, "
            f"expected {spec.dtype.triton} {want} (-1: any size)"
        )
