"""What is asked of a cluster, over kubectl: servers brought up, one benchmark run, all of it removed."""

import json
import logging
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import ConfigError, ServerError
from harness.machine import files
from harness.server.kubernetes import manifests
from harness.server.kubernetes.manifests import JOB, PART_OF, READER, SERVERS, Choice

logger = logging.getLogger(__name__)

_READY_TIMEOUT_S = 900
"""An image of 10 GB may have to be pulled first."""
_POLL_S = 2.0
_SETTLING_S = 30.0
"""Longest that servers which were removed may still be there when a benchmark begins."""
_SERVER = "app.kubernetes.io/name=mlperf-triton-vision,app.kubernetes.io/component=server"
"""The labels of the servers' pods, whoever runs them."""
_STDERR = 2
_OF_ITS_LOG = re.compile(r"[EWI]\d{4} ")
"""How a line of kubectl's own log begins; what it answers comes after these."""
_CLIENT_KINDS = {"Job", "Pod"}
_KEPT_KINDS = {"PersistentVolumeClaim"}
_REMOVED = (
    *("job", "pod", "deployment", "service", "secret"),
    *("networkpolicy", "poddisruptionbudget", "horizontalpodautoscaler"),
)
_REMOVED_IF_KNOWN = (
    *("servicemonitors.monitoring.coreos.com", "inferenceservices.serving.kserve.io"),
    "servingruntimes.serving.kserve.io",
)
_OVER = {"Failed", "Succeeded"}
"""Phases of pods that nothing runs in any more."""
_NEVER_STARTS = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "InvalidImageName",
}


@dataclass(frozen=True)
class Cluster:
    """The cluster and the namespace that kubectl is set up for, or another namespace of it."""

    namespace: str = ""

    def ask(self, *words: str, text: str | None = None, takes_a_part: bool = False) -> str:
        """What kubectl answers.

        Args:
            words: its command.
            text: what it reads.
            takes_a_part: whether an answer counts though it also fails at something.

        Raises:
            ServerError: it is not installed, or says no.
        """
        try:
            asked = subprocess.run(
                self.command(*words), input=text, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ServerError("no cluster: the command `kubectl` is not installed") from error
        if asked.returncode and not (takes_a_part and asked.stdout):
            lines = (line for line in asked.stderr.splitlines() if not _OF_ITS_LOG.match(line))
            said = " ".join(" ".join(lines).split()) or "nothing"
            raise ServerError(f"kubectl {words[0]} fails: {said}")
        return asked.stdout

    def show(self, *words: str) -> bool:
        """Have it say what it says, on stderr; whether it said yes."""
        return subprocess.run(self.command(*words), stdout=_STDERR, check=False).returncode == 0

    def command(self, *words: str) -> list[str]:
        """How it is asked."""
        return ["kubectl", *(["--namespace", self.namespace] if self.namespace else []), *words]

    def items(self, kind: str, selector: str = PART_OF) -> list[Mapping[str, Any]]:
        """What there is of a kind."""
        return list(json.loads(self.ask("get", kind, "--selector", selector, "--output", "json"))["items"])

    def key(self) -> str | None:
        """The key of the servers that are there; None where there are none."""
        return manifests.key_in(self.ask("get", "secret", "--selector", PART_OF, "--output", "json"))


def up(cluster: Cluster, choice: Choice) -> None:
    """Have as many servers as were chosen, and wait until each is ready.

    Raises:
        ServerError: they are not.
    """
    text = manifests.render(choice, cluster.key() or manifests.new_key())
    said = cluster.ask("apply", "--filename", "-", text=manifests.not_of_kinds(text, _CLIENT_KINDS))
    logger.info("%s", said.strip())
    logger.info("waiting until every server is ready")
    words = ["rollout", "status"]
    if choice.overlay == "kserve":
        words = ["wait", "--for=condition=Ready"]
    if not cluster.show(*words, _servers_of(choice), f"--timeout={_READY_TIMEOUT_S}s"):
        raise ServerError(
            f"not every server is ready (see above); {_unbound(cluster)}kubectl describe pods --selector "
            f"{PART_OF} says why"
        )
    if choice.overlay == "kserve":
        # It is Ready as soon as some of them are.
        _await_all(cluster, choice, _READY_TIMEOUT_S)


def _servers_of(choice: Choice) -> str:
    """What keeps the servers' number."""
    return f"inferenceservice/{SERVERS}-kserve" if choice.overlay == "kserve" else f"deployment/{SERVERS}"


def _unbound(cluster: Cluster) -> str:
    """Which claims have no volume, the commonest reason for pods that wait; empty where all have."""
    names = [
        str(claim["metadata"]["name"])
        for claim in cluster.items("persistentvolumeclaim")
        if claim.get("status", {}).get("phase") != "Bound"
    ]
    return f"no volume for the claim {', '.join(names)} (--storage-class, --access-mode); " if names else ""


def _await_all(cluster: Cluster, choice: Choice, timeout_s: float) -> None:
    """Wait until as many servers as there should be are ready, and no others are there."""
    deadline = time.monotonic() + timeout_s
    while missing := _missing(cluster, choice):
        if time.monotonic() > deadline:
            raise ServerError(missing)
        time.sleep(_POLL_S)


def _missing(cluster: Cluster, choice: Choice) -> str:
    """What is wrong with the number of servers, or nothing; one that waits for a node has no address yet.

    Raises:
        ServerError: nobody keeps any.
    """
    spec = json.loads(cluster.ask("get", _servers_of(choice), "--output", "json"))["spec"]
    wanted = spec["predictor"]["minReplicas"] if choice.overlay == "kserve" else spec["replicas"]
    pods = [pod for pod in cluster.items("pod", _SERVER) if pod["status"].get("phase") not in _OVER]
    ready = sum(map(_is_ready, pods))
    if ready == len(pods) == wanted:
        return ""
    of = f"{len(pods)} pods of servers" if len(pods) > wanted else f"{wanted} servers"
    remedy = "down removes those of another overlay, then up" if len(pods) > wanted else "up waits for them"
    return f"{ready} of {of} are ready, and {wanted} are wanted: ./run.sh kubernetes {remedy}"


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def bench(cluster: Cluster, choice: Choice, results: Path) -> int:
    """Run one benchmark in the cluster, show what it prints, and copy its results.

    Returns:
        The benchmark's exit code.

    Raises:
        ConfigError: the number of servers is not fixed.
        ServerError: there are no servers, or not as many as there should be, or the client cannot be started.
    """
    if choice.replicas is not None:
        up(cluster, choice)
    key = cluster.key()
    if key is None:
        raise ServerError("there are no servers: ./run.sh kubernetes up brings them up")
    if cluster.items("horizontalpodautoscaler"):
        raise ConfigError(
            "an autoscaler may change the number of servers while they are measured: "
            "./run.sh kubernetes down, then up without --overlay hpa"
        )
    _await_all(cluster, choice, _SETTLING_S)
    text = manifests.render(choice, key)
    # Its pods may be there for a while longer than an earlier job, and ask the servers all the time.
    cluster.ask("delete", "job", JOB, "--ignore-not-found", "--cascade=foreground", "--wait")
    cluster.ask("delete", "pod", "--selector", f"job-name={JOB}", "--ignore-not-found", "--wait")
    cluster.ask("apply", "--filename", "-", text=manifests.of_kinds(text, {"Job"}))
    try:
        job = json.loads(cluster.ask("get", "job", JOB, "--output", "json"))
        pods = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
        pod = _started(cluster, pods)
        # What the client says is shown as it comes; where the connection is lost, the pod tells how it ended.
        subprocess.run(cluster.command("logs", "--follow", f"pod/{pod}"), check=False)
        code = _ended(cluster, pods)
    except KeyboardInterrupt:
        cluster.ask("delete", "job", JOB, "--ignore-not-found", "--wait=false")
        raise
    _copy_results(cluster, manifests.of_kinds(text, {"Pod"}), results)
    return code


def down(cluster: Cluster, *, with_volumes: bool) -> None:
    """Remove all that is ours, but for what the volumes hold where that is not wanted.

    Raises:
        ServerError: the cluster does not answer, or lets us not.
    """
    # Where an API is down that others serve, such as a metrics adapter's, it tells of all others and fails.
    known = set(cluster.ask("api-resources", "--output", "name", takes_a_part=True).split())
    kinds = [*_REMOVED, *(kind for kind in _REMOVED_IF_KNOWN if kind in known)]
    if with_volumes:
        kinds += ["persistentvolumeclaim"]
    said = cluster.ask("delete", ",".join(kinds), "--selector", PART_OF, "--ignore-not-found", "--wait")
    logger.info("%s", said.strip() or "there was nothing")


def _started(cluster: Cluster, pods: str) -> str:
    """The name of the client's pod, which a selector tells, once its container has started."""
    deadline, last = time.monotonic() + _READY_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        for pod in cluster.items("pod", pods):
            state = _state(pod)
            if "running" in state or "terminated" in state:
                return str(pod["metadata"]["name"])
            why = _why_waiting(pod, state)
            if state.get("waiting", {}).get("reason") in _NEVER_STARTS:
                raise ServerError(f"the client cannot be started: {why}")
            if why != last:
                logger.info("waiting for the client: %s", why)
                last = why
        time.sleep(_POLL_S)
    raise ServerError(f"the client did not start within {_READY_TIMEOUT_S} s: {last or 'it has no pod'}")


def _ended(cluster: Cluster, pods: str) -> int:
    """The exit code of the client's container, once it has ended."""
    while found := cluster.items("pod", pods):
        for pod in found:
            if ended := _state(pod).get("terminated"):
                return int(ended["exitCode"])
            if pod["status"].get("phase") == "Failed":
                raise ServerError(
                    f"the client was ended: {pod['status'].get('reason', 'no reason is given')}"
                )
        time.sleep(_POLL_S)
    raise ServerError("the client's pod was removed while it ran")


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{"waiting": ...}`, `{"running": ...}` or `{"terminated": ...}` of the only container; empty before."""
    statuses: Sequence[Mapping[str, Any]] = pod["status"].get("containerStatuses", ())
    return dict(statuses[0]["state"]) if statuses else {}


def _why_waiting(pod: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    unmet = [each for each in pod["status"].get("conditions", ()) if each["status"] != "True"]
    for cause in (state.get("waiting", {}), *unmet):
        if reason := cause.get("reason"):
            return f"{reason}: {cause['message']}" if cause.get("message") else str(reason)
    return "Pending"


def _copy_results(cluster: Cluster, reader: str, results: Path) -> None:
    """Copy the results that are not here yet; what cannot be copied stays in the volume, and that is said."""
    try:
        cluster.ask("apply", "--filename", "-", text=reader)
        try:
            cluster.ask("wait", "--for=condition=Ready", f"--timeout={_READY_TIMEOUT_S}s", f"pod/{READER}")
            count = _unpack(cluster, results)
        finally:
            cluster.ask("delete", "pod", READER, "--ignore-not-found", "--wait=false")
    except (OSError, ServerError, tarfile.TarError) as error:
        logger.warning("results are in the volume of the claim `client`, and could not be copied: %s", error)
        return
    logger.info("%d files: %s", count, results)


def _unpack(cluster: Cluster, results: Path) -> int:
    """Write the files of the volume that are not in `results` yet; how many those were."""
    command = cluster.command("exec", READER, "--", "tar", "--create", "--directory=/results", ".")
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                name, content = PurePosixPath(member.name), archive.extractfile(member)
                target = results / name
                if content is None or name.is_absolute() or ".." in name.parts or target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with files.whole(target) as partial, partial.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
                count += 1
    return count
