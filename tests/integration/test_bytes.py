"""Both kinds of connection outlast 2^31 bytes of answers, the largest window that HTTP/2 has."""

import asyncio
from collections.abc import Callable

import psutil
import pytest
from tritonclient.grpc import service_pb2

from harness.errors import InferenceError
from harness.server import lifecycle
from harness.triton.address import Address
from harness.triton.channel import BlockingChannel, Channel
from harness.triton.http2 import message_prefix
from harness.triton.messages import streamed_response
from tests.integration.conftest import AddModel

ANSWER_BYTES = 1 << 20
ANSWERS = (3 << 30) // ANSWER_BYTES
IN_FLIGHT = 4
TIMEOUT_S = 60.0
CONFIG = f"""
backend: "python"
input {{ name: "IN" data_type: TYPE_UINT8 dims: [1] }}
output {{ name: "OUT" data_type: TYPE_UINT8 dims: [{ANSWER_BYTES}] }}
instance_group {{ kind: KIND_CPU }}
"""
MODEL = f"""
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        answer = pb_utils.Tensor("OUT", np.full({ANSWER_BYTES}, 7, np.uint8))
        self.response = pb_utils.InferenceResponse([answer])
    def execute(self, requests):
        return [self.response for _ in requests]
"""


@pytest.fixture
def request_bytes(add_model: AddModel) -> bytes:
    name = add_model("megabyte", CONFIG, "model.py", lambda file: file.write_text(MODEL))
    request = service_pb2.ModelInferRequest(model_name=name, raw_input_contents=[b"\0"])
    request.inputs.add(name="IN", datatype="UINT8", shape=[1])
    body = request.SerializeToString()
    return message_prefix(len(body)) + body


def ask_one_after_another(server: Address, request: bytes) -> int:
    """How many answers were whole."""
    channel = BlockingChannel(server)
    try:
        answers = (streamed_response(channel.infer(request, TIMEOUT_S)) for _ in range(ANSWERS))
        return sum(is_whole(answer) for answer in answers)
    finally:
        channel.close()


def ask_several_at_once(server: Address, request: bytes) -> int:
    """How many answers were whole."""

    async def ask() -> int:
        channel = await Channel.open(server, TIMEOUT_S)
        whole, left, ended = 0, ANSWERS, asyncio.get_running_loop().create_future()

        def done(outcome: bytes | InferenceError) -> None:
            nonlocal whole, left
            whole, left = whole + is_whole(outcome), left - 1
            if left >= IN_FLIGHT:
                channel.infer(request, done)
            elif not left:
                ended.set_result(None)

        for _ in range(IN_FLIGHT):
            channel.infer(request, done)
        await ended
        await channel.close()
        return whole

    return asyncio.run(ask())


def is_whole(answer: bytes | InferenceError) -> bool:
    return isinstance(answer, bytes) and len(answer) > ANSWER_BYTES and answer.endswith(bytes([7] * 64))


@pytest.mark.nightly
@pytest.mark.parametrize("ask", [ask_one_after_another, ask_several_at_once])
def test_three_gigabytes_of_answers_come_over_one_connection_and_none_stay_in_memory(
    triton: lifecycle.ServerInfo, request_bytes: bytes, ask: Callable[[Address, bytes], int]
) -> None:
    before = psutil.Process().memory_info().rss
    assert ask(Address(triton.grpc_url), request_bytes) == ANSWERS
    assert psutil.Process().memory_info().rss - before < 256 << 20
