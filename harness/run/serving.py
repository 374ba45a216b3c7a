"""The model under test on the server: loaded with the scenario's settings, and proven to be the right one."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from harness.answers.precision import FP16, REDUCED, UNKNOWN
from harness.errors import RequestFailed, ServerError
from harness.machine import file_lock, paths, progress
from harness.models.model_config import dims
from harness.models.spec import Precision, TensorSpec, Variant
from harness.run.config.tuning import Tuning
from harness.triton.client import TritonClient, is_on_this_host
from harness.triton.messages import description_request

logger = logging.getLogger(__name__)

_DESCRIPTION = re.compile(r"execution: (\{.*\})")


@contextlib.contextmanager
def borrowed(client: TritonClient, entry: str) -> Iterator[None]:
    """Leave somebody else's server as it was found: the model with its own settings, or not loaded.

    On this machine another run waits until this one is over: it would change what this one measures.
    """
    with contextlib.ExitStack() as stack:
        if is_on_this_host(client.url):
            paths.STATE_DIR.mkdir(parents=True, exist_ok=True)
            port = client.url.rsplit(":", 1)[1]
            stack.enter_context(file_lock.hold(paths.STATE_DIR / f"measuring-port-{port}.lock"))
        was_ready = client.is_model_ready(entry)
        try:
            yield
        finally:
            # A server that died or that does not let us has nothing to be put back.
            with contextlib.suppress(ServerError):
                if was_ready:
                    client.load(entry, None)
                else:
                    client.unload(entry)


class ModelLoader:
    """Loads one model, again only when its settings change: that may take a framework many seconds."""

    def __init__(self, client: TritonClient, entry: str) -> None:
        self.client, self._entry = client, entry
        self._loaded = ""
        self._is_ours = True

    def load(self, config_json: str) -> bool:
        """Have the model served with these settings; False where the server lets no client load models.

        Raises:
            ServerError: the server cannot load it.
        """
        if config_json != self._loaded:
            self._is_ours = self._try(config_json)
            self._loaded = config_json
        return self._is_ours

    def _try(self, config_json: str) -> bool:
        try:
            with progress.waiting(f"loading {self._entry} into the server"):
                self.client.load(self._entry, config_json)
        except ServerError as error:
            if "explicit model load" not in str(error) or not self.client.is_model_ready(self._entry):
                raise
            logger.warning(
                "the server does not let clients load models: %s is measured as it is set up", self._entry
            )
            return False
        return True


def check_served(client: TritonClient, entry: str, variant: Variant, tuning: Tuning) -> dict[str, Any]:
    """Compare the live configuration with the declaration, and return it.

    Raises:
        ServerError: another model under that name, a batch limit that is too low, or a response cache,
            which would answer repeated samples without computing them.
    """
    if not client.is_model_ready(entry):
        raise ServerError(f"{entry} is not ready on {client.url}; see the server's log")
    live = client.model_config(entry)
    has_batch_axis = variant.max_batch_size > 0
    _check_tensors(client, entry, "input", (variant.input,), has_batch_axis, live)
    _check_tensors(client, entry, "output", variant.requested_outputs, has_batch_axis, live)
    limit = int(live.get("max_batch_size", 0)) if has_batch_axis else 1
    if limit < tuning.client_batch:
        raise ServerError(
            f"{entry} on {client.url} takes at most {limit} samples at once, {tuning.client_batch} are "
            f"wanted; run with --max-batchsize {max(limit, 1)}"
        )
    if live.get("response_cache", {}).get("enable"):
        raise ServerError(
            f"{entry} on {client.url} has its response cache switched on, which MLPerf forbids; "
            "remove response_cache from its config.pbtxt"
        )
    return live


def executed_precision(
    clients: Sequence[TritonClient], entry: str, variant: Variant, wanted: Precision
) -> str | None:
    """Ask the servers what they really calculate in.

    Returns:
        `fp32`, `bf16`, …, or `unknown` where one does not say, as NVIDIA's native backend. On platforms
        that have no choice, `fp16` where the file says so, else None.

    Raises:
        ServerError: it is not what was wanted, or not the same everywhere.
        RequestFailed: the model cannot answer.
    """
    if not variant.platform.facts.chooses_precision:
        return FP16 if variant.is_half else None
    answers = {client.url: _asked_precision(client, entry, variant) for client in clients}
    if len(set(answers.values())) > 1:
        found = ", ".join(f"{precision} on {url}" for url, precision in answers.items())
        raise ServerError(f"{entry} is calculated in {found}; ask for --precision {Precision.FP32}")
    (precision,) = set(answers.values())
    if wanted == Precision.FP32 and precision == UNKNOWN:
        logger.warning("%s does not say whether it calculates in fp32, as --precision asks", entry)
    elif wanted == Precision.FP32 and precision in REDUCED:
        raise ServerError(
            f"{entry} on {clients[0].url} calculates in {precision}, not in {wanted} as --precision asks: "
            "set INFERENCE_PRECISION_HINT to f32 in its config.pbtxt"
        )
    return precision


def _asked_precision(client: TritonClient, entry: str, variant: Variant) -> str:
    try:
        client.infer_now(description_request(entry, variant.input, variant.requested_outputs))
    except RequestFailed as answer:
        # Our backends can send text only as an error.
        found = _DESCRIPTION.search(str(answer))
        if not found:
            raise
        return str(json.loads(found[1])["precision"])
    return UNKNOWN


def _check_tensors(
    client: TritonClient,
    entry: str,
    kind: str,
    specs: tuple[TensorSpec, ...],
    has_batch_axis: bool,
    live: dict[str, Any],
) -> None:
    served = {tensor["name"]: tensor for tensor in live.get(kind, [])}
    for spec in specs:
        if spec.name not in served:
            raise ServerError(
                f"another model is served as {entry} on {client.url}: no {kind} {spec.name!r}, "
                f"it has {sorted(served)}; convert it again, or check the server's repository"
            )
        tensor = served[spec.name]
        have = (tensor["data_type"].removeprefix("TYPE_"), [int(dim) for dim in tensor["dims"]])
        want = (spec.dtype.triton, list(dims(spec, has_batch_axis)))
        if have != want:
            raise ServerError(
                f"another model is served as {entry} on {client.url}: {kind} {spec.name!r} is "
                f"{have[0]} {have[1]}, expected {want[0]} {want[1]}"
            )
