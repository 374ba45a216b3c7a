"""A Triton server as this harness sees it. The only module that imports tritonclient's client.

Control (metadata, loading, statistics, shared memory) goes through tritonclient; inferences are ready-made
bytes on connections of our own, which cost a fraction of what gRPC's do (harness.triton.channels has both).
"""

import contextlib
import functools
import itertools
import logging
import mmap
import time
import uuid
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self

from google.protobuf import json_format
from tritonclient.grpc import InferenceServerClient, InferenceServerClientPlugin, InferenceServerException

from harness.errors import ServerError
from harness.triton import statistics, tls
from harness.triton.address import Address, with_hint
from harness.triton.channels import blocking_channel
from harness.triton.grpc_channel import channel_options, credentials
from harness.triton.http2 import Message
from harness.triton.messages import name_and_version, streamed_response
from harness.triton.shared_memory import Segment

logger = logging.getLogger(__name__)

_CONTROL_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 600.0
_STATISTICS_READINGS = 20
_STATISTICS_REST_S = 0.03
_COUNTING_S = 3.0
"""Far beyond the moment that it takes, however busy the machine: only what is never counted waits so long."""


class _Metadata(InferenceServerClientPlugin):  # type: ignore[misc]
    """Adds our headers to every call."""

    def __init__(self, server: Address) -> None:
        self._headers = dict(server.metadata())

    def __call__(self, request: Any) -> None:
        request.headers = self._headers


@functools.cache
def is_on_this_host(server: Address) -> bool:
    """Whether a server runs on this machine; found out once.

    It does if it can map our memory, whatever its address: a container that shares its IPC namespace with us
    has one of its own, while a tunnel, or a container's published port, is at the loopback's.
    """
    try:
        # No other machine has a segment of this name.
        segment = Segment(f"mlperf-probe-{uuid.uuid4().hex}", mmap.PAGESIZE)
        with contextlib.closing(segment), segment.named(), TritonClient(server) as client:
            refusal = client.refusal_of_shared_memory(segment.name, segment.size)
            client.unregister_shared_memory(segment.name)
    except ServerError as error:
        logger.debug("%s", error)
        return False
    logger.debug("%s: %s", server.url, refusal or "on this machine")
    return not refusal


class TritonClient:
    """One server; its entries are named as `messages.name_and_version` reads them."""

    def __init__(self, server: Address | str) -> None:
        """Connect with the first call.

        Args:
            server: a text is a plain host:port.

        Raises:
            ConfigError: a header's value or a file for TLS cannot be read.
        """
        # One look at the name for both connections, and for whoever is told of this server.
        self.server = (Address(server) if isinstance(server, str) else server).located()
        self.url = self.server.url
        self._control = InferenceServerClient(
            self.server.endpoint,
            creds=credentials(self.server),
            channel_args=channel_options(self.server),
        )
        self._control.register_plugin(_Metadata(self.server))
        self._channel = blocking_channel(self.server)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections."""
        self._channel.close()
        self._control.close()

    @property
    def sent_again(self) -> int:
        """How many requests of `infer_now` were given back and sent again."""
        return self._channel.sent_again

    def infer_now(self, request: Message, timeout_s: float = 300.0) -> bytes:
        """Send a ModelInferRequest, made by harness.triton.messages, and wait for its serialised response.

        Raises:
            RequestFailed: it was refused or lost.
            InferenceError: what answered is no Triton.
        """
        return streamed_response(self._channel.infer(request, timeout_s))

    def check_is_triton(self) -> dict[str, Any]:
        """Metadata of a server that is up, live and a Triton.

        Raises:
            ServerError: nothing answers there, something else does, it is not live, or TLS fails.
        """
        if self.server.is_encrypted:
            tls.check_trust(self.server)
        try:
            metadata = self._control.get_server_metadata(as_json=True, client_timeout=_CONTROL_TIMEOUT_S)
            # Not `is_server_ready`: one broken model, even another than ours, makes a server not ready.
            is_live = self._control.is_server_live(client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            raise ServerError(
                f"no Triton answers at {self.url} ({_reason(error)}); "
                "start one with ./run.sh tritonserver-up, or check --url (the gRPC port, 8001 by default; "
                "grpcs:// for TLS)"
            ) from error
        if metadata.get("name") != "triton":
            raise ServerError(f"{self.url} is {metadata.get('name')!r}, not a Triton Inference Server")
        if not is_live:
            raise ServerError(f"Triton at {self.url} is up but not ready; see its log")
        return dict(metadata)

    @contextlib.contextmanager
    def _asking(self, failure: str) -> Generator[None, None, None]:
        """Turn tritonclient's error in the block into ours: this server `failure`, and why."""
        try:
            yield
        except InferenceServerException as error:
            raise ServerError(f"Triton at {self.url} {failure}: {_reason(error)}") from error

    def load(self, entry: str, config_json: str | None) -> None:
        """Load (or reload) a model, with `config_json` in place of its config.pbtxt.

        Raises:
            ServerError: the server cannot load it; carries the server's reason.
        """
        name, _ = name_and_version(entry)
        with self._asking(f"cannot load {name}"):
            self._control.load_model(name, config=config_json, client_timeout=_LOAD_TIMEOUT_S)

    def unload(self, entry: str) -> None:
        """Have a model unloaded; the server may still be at it when this returns.

        Raises:
            ServerError: the server refuses.
        """
        name, _ = name_and_version(entry)
        with self._asking(f"cannot unload {name}"):
            self._control.unload_model(name, client_timeout=_CONTROL_TIMEOUT_S)

    def is_model_ready(self, entry: str) -> bool:
        """Whether the model can be inferred with."""
        with self._asking("does not answer"):
            return bool(
                self._control.is_model_ready(*name_and_version(entry), client_timeout=_CONTROL_TIMEOUT_S)
            )

    def model_config(self, entry: str) -> dict[str, Any]:
        """The live ModelConfig, with the schema's own field names.

        Raises:
            ServerError: no such model there.
        """
        with self._asking(f"has no model {entry}"):
            answer = self._control.get_model_config(
                *name_and_version(entry), client_timeout=_CONTROL_TIMEOUT_S
            )
        return dict(json_format.MessageToDict(answer.config, preserving_proto_field_name=True))

    def answering_version(self, entry: str) -> str:
        """The version of the model that answers a request: the one that was asked for, or the latest.

        Raises:
            ServerError: no such model there.
        """
        with self._asking(f"has no model {entry}"):
            answer = self._control.get_model_metadata(
                *name_and_version(entry), client_timeout=_CONTROL_TIMEOUT_S
            )
        return max(answer.versions, key=int, default="")

    def statistics(self, entry: str, samples: int = 0) -> dict[str, Any]:
        """Cumulative statistics of a model; see `harness.triton.statistics` for the difference of two.

        Triton counts a request a moment after it has answered it. So this reads until two readings agree (and
        no more than `_STATISTICS_READINGS` times: somebody else may be sending requests too), and waits for
        some seconds until so many `samples` were counted in all.

        Raises:
            ServerError: no such model there.
        """
        deadline = time.monotonic() + _COUNTING_S
        fields = self._statistics_now(entry)
        for number in itertools.count(1):
            time.sleep(_STATISTICS_REST_S)
            earlier, fields = fields, self._statistics_now(entry)
            is_settled = fields == earlier or number >= _STATISTICS_READINGS
            if is_settled and (statistics.samples(fields) >= samples or time.monotonic() > deadline):
                break
        return fields

    def _statistics_now(self, entry: str) -> dict[str, Any]:
        with self._asking("gives no statistics"):
            answer = self._control.get_inference_statistics(
                *name_and_version(entry), client_timeout=_CONTROL_TIMEOUT_S
            )
        # Of all versions, unless one was named; a request that names none is answered by the latest.
        latest = max(answer.model_stats, key=lambda stats: int(stats.version))
        return dict(json_format.MessageToDict(latest, preserving_proto_field_name=True))

    def refusal_of_shared_memory(self, name: str, size: int) -> str:
        """Have the server map /dev/shm/`name`; why it cannot, or nothing."""
        try:
            self._control.register_system_shared_memory(
                name, f"/{name}", size, client_timeout=_CONTROL_TIMEOUT_S
            )
        except InferenceServerException as error:
            return _reason(error)
        return ""

    def ready_models(self) -> list[str]:
        """Names of the models that can be inferred with; none where it does not tell."""
        try:
            answer = self._control.get_model_repository_index(client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            logger.debug("%s does not tell its models: %s", self.url, _reason(error))
            return []
        return sorted({model.name for model in answer.models if model.state == "READY"})

    def shared_memory_regions(self) -> list[str]:
        """Names of the regions that the server has mapped.

        Raises:
            ServerError: it does not tell.
        """
        with self._asking("does not tell its shared memory"):
            answer = self._control.get_system_shared_memory_status(client_timeout=_CONTROL_TIMEOUT_S)
        return list(answer.regions)

    def unregister_shared_memory(self, name: str) -> None:
        """Have the server unmap a region; a server that is gone has done so already."""
        try:
            self._control.unregister_system_shared_memory(name, client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            logger.debug("could not unregister %s: %s", name, _reason(error))


def _reason(error: InferenceServerException) -> str:
    """The first line of what the server (or gRPC) said."""
    text = str(error.message() or error)
    line = text.strip().splitlines()[0][:400] if text.strip() else type(error).__name__
    return with_hint(str(error.status()).removeprefix("StatusCode."), line)
