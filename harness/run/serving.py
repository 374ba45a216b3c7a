"""The model under test on the server: loaded with the scenario's settings, and proven to be the right one."""

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.answers.precision import FP16, REDUCED, UNKNOWN
from harness.errors import ConfigError, RequestFailed, ServerError
from harness.machine import kernel, progress
from harness.machine.host import use
from harness.models import live_config
from harness.models.model_config import ServerSettings, dims, model_config, to_json
from harness.models.spec import Precision, TensorSpec, Variant
from harness.run.borrowing import Loan
from harness.run.config.run_config import KEEP, OURS
from harness.run.config.tuning import SERVERS_OWN
from harness.triton.address import Address
from harness.triton.client import TritonClient, is_on_this_host
from harness.triton.messages import description_request, name_and_version

logger = logging.getLogger(__name__)

_CLOSED, _NOT_THERE = "explicit model load", "failed to poll from model repository"
"""What Triton says where no client may load models, and where its repository lacks one."""
_PROCESS = "tritonserver"
"""What a server's process is called."""
_DESCRIPTION = re.compile(r"execution: (\{.*\})")


class ModelLoader:
    """Loads one model, again only when its settings change: that may take a framework many seconds."""

    def __init__(
        self, client: TritonClient, entry: str, loan: Loan | None = None, *, has_our_files: bool = False
    ) -> None:
        """`loan`: of a server that outlives the run; `has_our_files`: its repository is ours."""
        self.client, self._entry, self._loan, self._has_our_files = client, entry, loan, has_our_files
        self._found = loan.before if loan else None
        self._is_found = bool(self._found)
        self._loaded: str | None = ""
        self._is_ours, self._is_own = True, True

    def set_up(self, wanted: str | None, variant: Variant, settings: ServerSettings, *, is_own: bool) -> str:
        """Have the model served for a run.

        Args:
            wanted: `ServerChoice.server_config`.
            variant: the model.
            settings: of this run, for where they are wanted.
            is_own: whether it is an entry that was converted here.

        Returns:
            Where its settings come from: `SERVERS_OWN`, the file, or nothing where they are of this run.

        Raises:
            ServerError: the server has no such model, or cannot load it so.
            ConfigError: the file that is wanted is no config.pbtxt.
        """
        self._is_own = is_own
        wanted = wanted or (KEEP if self._is_found else OURS)
        if wanted == KEEP:
            self._as_found()
            return SERVERS_OWN
        if wanted == OURS:
            return "" if self.load(self._ours(variant, settings, is_own)) else SERVERS_OWN
        under = self._as_found() if self._is_found else json.loads(self._ours(variant, settings, is_own))
        config = live_config.laid_over(under, live_config.read(Path(wanted)))
        return wanted if self.load(config) else SERVERS_OWN

    def _ours(self, variant: Variant, settings: ServerSettings, is_own: bool) -> str:
        """The configuration with this run's settings: of an entry of ours, or of what else the server has."""
        name, _ = name_and_version(self._entry)
        ours = model_config(name, variant, settings)
        if is_own and not self._has_settings():
            return to_json(ours)
        return live_config.with_settings(
            self._as_found(),
            ours,
            is_any_device=settings.device == "auto",
            is_batch_asked=ours.max_batch_size > variant.max_batch_size,
        )

    def _has_settings(self) -> bool:
        """Whether the server has settings of its own, whose batch limit is kept; perhaps in its file only."""
        if self._loan and not self._has_our_files:
            # A file that cannot be served may still be with ours.
            with contextlib.suppress(ServerError):
                self._as_found()
        return self._found is not None

    def _as_found(self) -> live_config.Live:
        """The configuration that is the server's own."""
        if self._found is None:
            self.load(None)
            self._found = self.client.model_config(self._entry)
        return self._found

    def load(self, config_json: str | None) -> bool:
        """Have the model served with these settings; False where the server lets no client load models.

        Args:
            config_json: None: as its file says.

        Raises:
            ServerError: the server cannot load it.
        """
        if config_json != self._loaded:
            self._is_ours = self._try(config_json)
            self._loaded = config_json
        return self._is_ours

    def _try(self, config_json: str | None) -> bool:
        if self._loan:
            self._loan.changes_to(config_json)
        try:
            with progress.waiting(f"loading {self._entry} into the server"):
                self.client.load(self._entry, config_json)
        except ServerError as error:
            if not any(words in str(error) for words in (_CLOSED, _NOT_THERE)):
                raise
            if self._loan:
                self._loan.stays()
            if _NOT_THERE in str(error) or not self.client.is_model_ready(self._entry):
                raise ServerError(self._missing()) from error
            logger.warning("the server at %s does not let clients load models", self.client.url)
            return False
        return True

    def _missing(self) -> str:
        """What the server has instead, and what to do."""
        name, _ = name_and_version(self._entry)
        ready = ", ".join(self.client.ready_models()) or "no model"
        remedy = "say with --served-name what it is called"
        if self._is_own:
            remedy = f"copy the folder model_repository/{name} into its model repository, or {remedy}"
        return f"the server at {self.client.url} has no {name}, it serves {ready}: {remedy}"


def processes_of(servers: Sequence[Address]) -> tuple[set[int], str]:
    """The processes of those that run on this machine, and why these are not all, where they are not."""
    found: set[int] = set()
    for server in servers:
        if is_on_this_host(server):
            port = server.host_and_port[1]
            pids = kernel.listeners(int(port)) if port.isdecimal() else set()
            named = kernel.processes()
            if not any(pid in named and named[pid].name == _PROCESS for pid in pids):
                return found, f"the processes of the server at {server.url} cannot be seen"
            found |= pids
        elif not use.sees_all_processes():
            return found, f"the server at {server.url} may be on this machine, in another container"
    return found, ""


def check_served(client: TritonClient, entry: str, variant: Variant) -> dict[str, Any]:
    """Compare the live configuration with the declaration, and return it.

    Raises:
        ServerError: another model under that name, or a response cache, which would answer repeated samples
            without computing them.
    """
    if not client.is_model_ready(entry):
        raise ServerError(f"{entry} is not ready on {client.url}; see the server's log")
    live = client.model_config(entry)
    has_batch_axis = variant.max_batch_size > 0
    limit = int(live.get("max_batch_size", 0)) if has_batch_axis else 1
    if limit == 0:
        raise ServerError(
            f"{entry} on {client.url} is served without batching, which its samples need: set max_batch_size "
            "to 1 or more in its config.pbtxt"
        )
    _check_tensors(client, entry, "input", (variant.input,), has_batch_axis, live)
    _check_tensors(client, entry, "output", variant.requested_outputs, has_batch_axis, live)
    if live.get("response_cache", {}).get("enable"):
        raise ServerError(
            f"{entry} on {client.url} has its response cache switched on, which MLPerf forbids; "
            "remove response_cache from its config.pbtxt"
        )
    return live


def triton_version(clients: Sequence[TritonClient]) -> str:
    """Triton's own, which is the same on all servers of a run.

    Raises:
        ServerError: one does not answer.
        ConfigError: it is not.
    """
    first, *others = ((client, str(client.check_is_triton().get("version", ""))) for client in clients)
    for client, version in others:
        if version != first[1]:
            raise ConfigError(
                f"the servers of a run must be alike: Triton is {first[1]} at {first[0].url} and {version} "
                f"at {client.url}"
            )
    return first[1]


def check_alike(clients: Sequence[TritonClient], entry: str, live: Sequence[dict[str, Any]]) -> None:
    """See that several servers serve one model: a run is of them together, and tells one configuration.

    Args:
        clients: of each server.
        entry: the model's name there.
        live: its configuration at each of them.

    Raises:
        ConfigError: one has another version of it, or other settings.
    """
    first, *others = clients
    if not others:
        return
    version = first.answering_version(entry)
    for client, config in zip(others, live[1:], strict=True):
        both = f"at {first.url} and at {client.url}"
        if (other := client.answering_version(entry)) != version:
            raise ConfigError(
                f"the servers of a run must be alike: {entry} is version {version} and {other} {both}; name "
                "one that all have with --served-version"
            )
        if keys := sorted(key for key in {*live[0], *config} if live[0].get(key) != config.get(key)):
            raise ConfigError(
                f"the servers of a run must be alike: {entry} has another {', '.join(keys)} {both}; give all "
                f"of them one config.pbtxt, or have this run do so with --server-config {OURS}"
            )


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
        if have[0] != want[0] or not _is_fitting(have[1], want[1]):
            raise ServerError(
                f"another model is served as {entry} on {client.url}: {kind} {spec.name!r} is "
                f"{have[0]} {have[1]}, expected {want[0]} {want[1]}"
            )


def _is_fitting(have: Sequence[int], want: Sequence[int]) -> bool:
    """Whether a tensor of one shape may have the other's; -1 is any size."""
    return len(have) == len(want) and all(mine in (-1, other) for mine, other in zip(have, want, strict=True))
