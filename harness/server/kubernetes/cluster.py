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

    def ask(self, *words: str, text: str | None = None) -> str:
        """What kubectl answers.

        Raises:
            ServerError: it is not installed, or says no.
        """
        try:
            asked = subprocess.run(
                self.command(*words), input=text, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ServerError("no cluster: the command `kubectl` is not installed") from error
        if asked.returncode:
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
    words = ["rollout", "status", f"deployment/{SERVERS}"]
    if choice.overlay == "kserve":
        words = ["wait", "--for=condition=Ready", f"inferenceservice/{SERVERS}-kserve"]
    if not cluster.show(*words, f"--timeout={_READY_TIMEOUT_S}s"):
        raise ServerError(
            f"not every server is ready (see above); kubectl describe pods --selector {PART_OF} says why"
        )


def bench(cluster: Cluster, choice: Choice, results: Path) -> int:
    """Run one benchmark in the cluster, show what it prints, and copy its results.

    Returns:
        The benchmark's exit code.

    Raises:
        ConfigError: the number of servers is not fixed.
        ServerError: there are no servers, or the client cannot be started.
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
    text = manifests.render(choice, key)
    cluster.ask("delete", "job", JOB, "--ignore-not-found", "--wait")
    cluster.ask("apply", "--filename", "-", text=manifests.of_kinds(text, {"Job"}))
    try:
        pod = _started(cluster)
        # What the client says is shown as it comes; where the connection is lost, the pod tells how it ended.
        subprocess.run(cluster.command("logs", "--follow", f"pod/{pod}"), check=False)
        code = _ended(cluster)
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
    known = set(cluster.ask("api-resources", "--output", "name").split())
    kinds = [*_REMOVED, *(kind for kind in _REMOVED_IF_KNOWN if kind in known)]
    if with_volumes:
        kinds += ["persistentvolumeclaim"]
    said = cluster.ask("delete", ",".join(kinds), "--selector", PART_OF, "--ignore-not-found", "--wait")
    logger.info("%s", said.strip() or "there was nothing")


def _started(cluster: Cluster) -> str:
    """The name of the client's pod, once its container has started."""
    deadline, last = time.monotonic() + _READY_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        for pod in cluster.items("pod", f"job-name={JOB}"):
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


def _ended(cluster: Cluster) -> int:
    """The exit code of the client's container, once it has ended."""
    while pods := cluster.items("pod", f"job-name={JOB}"):
        for pod in pods:
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
            cluster.ask("wait", "--for=condition=Ready", "--timeout=120s", f"pod/{READER}")
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
