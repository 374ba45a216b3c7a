"""docker/kubernetes/ by Kubernetes' own schemas, and that what it says is what images and client expect.

No cluster runs here; `tests/integration/test_kubernetes.py` starts what the manifests start.
"""

import base64
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness.errors import ConfigError, ServerError
from harness.machine.paths import PROJECT_ROOT
from harness.run.config.options import OPTIONS
from harness.server.container.client import command_line
from harness.server.container.server import GIVEN_KEY_VARIABLE, KEY_FILE_VARIABLE
from harness.server.kubernetes import __main__ as command
from harness.server.kubernetes import cluster, manifests
from harness.server.kubernetes.manifests import OVERLAYS, Choice
from tests.docker_files import instructions, services

if not (shutil.which("kubectl") or shutil.which("kustomize")):
    pytest.skip("neither kubectl nor kustomize is installed", allow_module_level=True)

# The oldest and the newest release whose schemas the validator has, but for those out of support for years.
RELEASES = ("1.27", "1.37")
ALL = ("", *OVERLAYS)
OTHERS = ("ServiceMonitor", "ServingRuntime", "InferenceService")
"""Kinds of which Kubernetes has no schema: tests/integration/test_published_schemas.py."""

Document = dict[str, Any]


@functools.cache
def rendered(choice: Choice) -> str:
    return manifests.render(choice, "a key")


def documents(choice: Choice) -> list[Document]:
    return list(yaml.safe_load_all(rendered(choice)))


def one(kind: str, choice: Choice, name: str = "") -> Document:
    (found,) = [
        each for each in documents(choice) if each["kind"] == kind and name in ("", each["metadata"]["name"])
    ]
    return found


def server_container(overlay: str) -> Document:
    if overlay == "kserve":
        (container,) = one("ServingRuntime", Choice(overlay))["spec"]["containers"]
    else:
        (container,) = one("Deployment", Choice(overlay))["spec"]["template"]["spec"]["containers"]
    return dict(container)


def server_labels(overlay: str) -> dict[str, str]:
    if overlay == "kserve":
        return dict(one("ServingRuntime", Choice(overlay))["spec"]["labels"])
    return dict(one("Deployment", Choice(overlay))["spec"]["template"]["metadata"]["labels"])


def job_pod(choice: Choice) -> Document:
    return dict(one("Job", choice)["spec"]["template"]["spec"])


def environment(container: Document) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def mounts(container: Document) -> dict[str, Document]:
    return {each["mountPath"]: each for each in container["volumeMounts"]}


def validate(document: Document, release: str) -> None:
    kubernetes_validate.validate(document, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", ALL)
def test_every_manifest_is_valid_by_the_published_schemas(overlay: str, release: str) -> None:
    found = documents(Choice(overlay))
    assert len(found) >= 10
    for document in found:
        if document["kind"] not in OTHERS:
            validate(document, release)


def test_the_schemas_find_a_mistake() -> None:
    document = one("Deployment", Choice())
    document["spec"]["template"]["spec"]["containers"][0]["readinessProbes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProbes"):
        validate(document, RELEASES[-1])


def test_a_kserve_runtime_is_a_pod_by_the_schemas_of_pods() -> None:
    spec = one("ServingRuntime", Choice("kserve"))["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, RELEASES[-1])


@pytest.mark.parametrize("overlay", ALL)
def test_a_server_is_started_by_the_images_own_command(overlay: str) -> None:
    (command,) = [
        rest for word, rest in instructions(PROJECT_ROOT / "docker" / "server.Dockerfile") if word == "CMD"
    ]
    arguments = server_container(overlay)["args"]
    if overlay == "kserve":
        # Where KServe mounts the claim of `storageUri`.
        assert one("InferenceService", Choice(overlay))["spec"]["predictor"]["model"]["storageUri"] == (
            "pvc://model-repository"
        )
        arguments = [word.replace("/mnt/models", "/models") for word in arguments]
    added = ["--load-model=*", "--exit-on-error=false"] if overlay == "hpa" else []
    assert arguments == [*json.loads(command), *added]


@pytest.mark.parametrize("overlay", ALL)
def test_a_server_is_looked_after_on_tritons_endpoints(overlay: str) -> None:
    container = server_container(overlay)
    assert {port["containerPort"] for port in container["ports"]} == {8000, 8001, 8002}
    (http,) = [port["name"] for port in container["ports"] if port["containerPort"] == 8000]
    for probe, path in {
        "startupProbe": "/v2/health/live",
        "livenessProbe": "/v2/health/live",
        "readinessProbe": "/v2/health/ready",
    }.items():
        assert container[probe]["httpGet"] == {"path": path, "port": http}


@pytest.mark.parametrize("overlay", ALL)
def test_service_policies_and_budget_find_the_servers(overlay: str) -> None:
    labels = server_labels(overlay).items()
    service, budget = one("Service", Choice(overlay)), one("PodDisruptionBudget", Choice(overlay))
    selectors = [service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"]
        for each in documents(Choice(overlay))
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] != "client"
    ]
    assert len(selectors) == (4 if overlay == "hpa" else 3)
    assert all(selector.items() <= labels for selector in selectors)
    assert service["spec"]["clusterIP"] == "None"
    assert {port["port"] for port in service["spec"]["ports"]} == {8000, 8001, 8002}


def test_the_client_alone_reaches_the_servers() -> None:
    (rule,) = one("NetworkPolicy", Choice(), "triton")["spec"]["ingress"]
    (source,) = rule["from"]
    labels = one("Job", Choice())["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= labels.items()
    assert not source["podSelector"]["matchLabels"].items() <= server_labels("").items()
    assert "ingress" not in one("NetworkPolicy", Choice(), "client")["spec"]


@pytest.mark.parametrize("overlay", ALL)
def test_the_key_is_a_secret_that_servers_and_client_read_from_the_same_place(overlay: str) -> None:
    secret = one("Secret", Choice(overlay))
    assert base64.b64decode(secret["data"]["key"]) == b"a key"
    name = secret["metadata"]["name"]
    assert name.startswith("triton-control-")
    text = rendered(Choice(overlay))
    assert text.count(f"secretName: {name}\n") == 2
    assert text.count("secretName:") == 2
    server, (client,) = server_container(overlay), job_pod(Choice(overlay))["containers"]
    assert environment(server)[GIVEN_KEY_VARIABLE] == environment(client)[KEY_FILE_VARIABLE] == "/control/key"
    assert all(mounts(container)["/control"]["readOnly"] for container in (server, client))


@pytest.mark.parametrize("overlay", ALL)
def test_no_container_can_do_more_than_it_must(overlay: str) -> None:
    containers = [server_container(overlay)]
    for document in documents(Choice(overlay)):
        spec = document.get("spec", {})
        pod = spec.get("template", {}).get("spec") or (spec if document["kind"] == "Pod" else {})
        if pod:
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
        containers += pod.get("containers", [])
    assert len(containers) >= 3
    for container in containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_what_the_client_writes_goes_into_volumes_at_the_images_paths() -> None:
    pod = job_pod(Choice())
    (client,) = pod["containers"]
    compose = services("compose.yaml")["client"]
    written = {target.split(":")[1] for target in compose["volumes"] if not target.endswith(":ro")}
    assert written <= set(mounts(client))
    for name in ("MODEL_DIR", "MLPERF_TRITON_HOME"):
        assert environment(client)[name] == compose["environment"][name]
    # As whom docker/client.Dockerfile has made its folders.
    assert ("USER", "1000") in instructions(PROJECT_ROOT / "docker" / "client.Dockerfile")
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000
    names = {volume["name"]: volume for volume in pod["volumes"]}
    assert names["shm"]["emptyDir"]["medium"] == "Memory"


def test_the_client_asks_every_address_of_the_headless_service() -> None:
    (client,) = job_pod(Choice())["containers"]
    service = one("Service", Choice())
    address = f"dns:///{service['metadata']['name']}:8001"
    words = command_line(client["args"], environment(client))
    assert words[:4] == ["-m", "harness", "--url", address]
    assert words[4:6] == ["--header", "triton-grpc-protocol-control: @/control/key"]


def test_each_replica_has_a_gpu_and_the_client_asks_for_models_there() -> None:
    choice = Choice("gpu", replicas=3)
    deployment = one("Deployment", choice)
    assert deployment["spec"]["replicas"] == 3
    assert server_container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (client,) = job_pod(choice)["containers"]
    assert command_line([], environment(client))[4:6] == ["--device", "gpu"]


def test_an_autoscaler_has_the_say_over_replicas_and_reads_tritons_queue() -> None:
    assert "replicas" not in one("Deployment", Choice("hpa"))["spec"]
    (metric,) = one("HorizontalPodAutoscaler", Choice("hpa"))["spec"]["metrics"]
    values = yaml.safe_load((manifests.FOLDER / "overlays/hpa/adapter.values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    (endpoint,) = one("ServiceMonitor", Choice("hpa"))["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in one("Service", Choice("hpa"))["spec"]["ports"]}
    assert one("Service", Choice("hpa"))["spec"]["publishNotReadyAddresses"] is False
    assert one("PodDisruptionBudget", Choice("hpa"))["spec"]["maxUnavailable"] == 1
    with pytest.raises(ConfigError, match="--replicas contradicts"):
        Choice("hpa", replicas=2)


def test_kserve_runs_as_many_servers_as_are_asked_for() -> None:
    choice = Choice("kserve", replicas=5)
    assert "Deployment" not in {document["kind"] for document in documents(choice)}
    predictor = one("InferenceService", choice)["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (5, 5)
    runtime = one("ServingRuntime", choice)
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] in {
        each["name"] for each in runtime["spec"]["supportedModelFormats"]
    }
    assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]


@pytest.mark.parametrize("overlay", ALL)
def test_images_are_those_of_docker_in_the_users_registry(overlay: str) -> None:
    text = rendered(Choice(overlay, registry="registry.example.org/me/", tag="v2"))
    images = {line.split("image: ")[1] for line in text.splitlines() if "image: " in line}
    assert images == {
        f"registry.example.org/me/{service['image']}:v2" for service in services("compose.yaml").values()
    }


def test_the_benchmarks_options_reach_the_client_as_they_were_typed() -> None:
    words = ("--model", "mobilenet", "--header", 'x: "a b"', "--time", "10")
    (client,) = job_pod(Choice(benchmark=words))["containers"]
    assert client["args"] == list(words)


def test_no_option_is_both_the_clusters_and_the_benchmarks() -> None:
    ours = set(command.parser()._option_string_actions) - {"-h", "--help"}
    assert len(ours) == 9
    assert ours & {flag for option in OPTIONS.values() for flag in option.flags} == set()


@pytest.mark.parametrize("overlay", ALL)
def test_volumes_are_of_the_kind_that_a_cluster_has_and_a_data_set_is_read_from_a_claim(overlay: str) -> None:
    choice = Choice(overlay, storage_class="fast", access_mode="ReadWriteOnce", data_claim="images")
    claims = [each for each in documents(choice) if each["kind"] == "PersistentVolumeClaim"]
    assert [each["spec"]["accessModes"] for each in claims] == [["ReadWriteOnce"]] * 2
    assert {each["spec"]["storageClassName"] for each in claims} == {"fast"}
    pod = job_pod(choice)
    (client,) = pod["containers"]
    mount = mounts(client)[environment(client)["DATA_DIR"]]
    assert mount["readOnly"] is True
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"] == {"claimName": "images", "readOnly": True}
    for document in documents(choice):
        if document["kind"] not in OTHERS:
            validate(document, RELEASES[-1])


def test_an_installed_package_has_no_manifests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manifests, "FOLDER", tmp_path / "kubernetes")
    assert command.main(["render"]) == 2
    assert "this command needs a checkout of the project" in capsys.readouterr().err


def test_render_prints_the_manifests_and_asks_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["render", "--replicas", "2", "--model", "mobilenet"]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {each["kind"] for each in printed} == {each["kind"] for each in documents(Choice())}
    (deployment,) = [each for each in printed if each["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 2
    (job,) = [each for each in printed if each["kind"] == "Job"]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["--model", "mobilenet"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--replicas", "0"], "'0' is not a number of servers"),
        (["up", "--model", "mobilenet"], "up does not take --model mobilenet"),
        (["render", "--overlay", "tpu"], "invalid choice: 'tpu'"),
        (["render", "--overlay", "hpa", "--replicas", "2"], "contradicts --overlay hpa"),
        (["scale"], "invalid choice: 'scale'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error


KUBECTL = """\
#!/bin/sh
case "$*" in kustomize*) exec {real} "$@" ;; esac
[ "$1" = --namespace ] && shift 2
words="$*"
[ "$1" = apply ] && words="$words $(grep '^kind:' | tr '\\n' ' ')"
echo "$words" >>"{folder}/calls"
name=$(echo "$1 $2" | tr / ' ')
case "$*" in *component=server*) name="get servers" ;; esac
cat "{folder}/answers/$name" 2>/dev/null || cat "{folder}/answers/$1" 2>/dev/null
exit $(cat "{folder}/codes/$1" 2>/dev/null || echo 0)
"""


def server(*, is_ready: bool = True, phase: str = "Running", **metadata: str) -> Document:
    """A server's pod."""
    ready = {"type": "Ready", "status": str(is_ready)}
    return {"metadata": metadata, "status": {"phase": phase, "conditions": [ready]}}


class Kubectl:
    """Stands in for kubectl and its cluster, which no test can count on: tells what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        for name in ("bin", "answers", "codes"):
            (folder / name).mkdir()
        program = folder / "bin" / "kubectl"
        program.write_text(KUBECTL.format(real=shutil.which("kubectl"), folder=folder))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        for kind in ("secret", "horizontalpodautoscaler", "pod", "persistentvolumeclaim"):
            self.lists(kind)
        self.answers("get job", json.dumps({"metadata": {"uid": "new"}}))
        self.serves(1, server())

    def answers(self, words: str, text: str | bytes) -> None:
        (self._folder / "answers" / words).write_bytes(text.encode() if isinstance(text, str) else text)

    def lists(self, kind: str, *items: Document) -> None:
        self.answers(f"get {kind}", json.dumps({"items": items}))

    def serves(self, wanted: int, *servers: Document) -> None:
        predictor = {"minReplicas": wanted}
        self.answers("get deployment triton", json.dumps({"spec": {"replicas": wanted}}))
        self.answers("get inferenceservice triton-kserve", json.dumps({"spec": {"predictor": predictor}}))
        self.lists("servers", *servers)

    def fails(self, word: str) -> None:
        (self._folder / "codes" / word).write_text("1")

    def calls(self) -> list[str]:
        return (self._folder / "calls").read_text().splitlines()


def test_what_kubectl_logs_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\necho 'E1128 05:16:39.135875 20561 memcache.go:265] \"Unhandled Error\"' >&2\n"
        "echo 'The connection was refused' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ServerError) as caught:
        cluster.Cluster("").ask("get", "pod")
    assert str(caught.value) == "kubectl get fails: The connection was refused"


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return Kubectl(tmp_path, monkeypatch)


SECRET = {
    "metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"},
    "data": {"key": base64.b64encode(b"kept").decode()},
}


def pod(**state: Any) -> Document:
    status = {"phase": "Running", "containerStatuses": [{"state": state}] if state else []}
    return {"metadata": {"name": "bench-x"}, "status": status}


def test_up_applies_the_servers_and_waits_for_all_of_them(kubectl: Kubectl) -> None:
    assert command.main(["up", "--replicas", "3", "--namespace", "mine"]) == 0
    look, apply, wait = kubectl.calls()
    assert look.startswith("get secret --selector app.kubernetes.io/part-of=mlperf-triton-vision")
    assert apply.startswith("apply --filename - kind: Secret")
    assert "kind: Deployment" in apply
    assert "kind: PersistentVolumeClaim" in apply
    assert "kind: Job" not in apply
    assert "kind: Pod " not in apply
    assert wait == "rollout status deployment/triton --timeout=900s"


def test_servers_that_do_not_become_ready_are_one_line_which_names_claims_without_a_volume(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.fails("wait")
    claims = {"model-repository": "Pending", "client": "Bound"}
    kubectl.lists(
        "persistentvolumeclaim",
        *({"metadata": {"name": name}, "status": {"phase": phase}} for name, phase in claims.items()),
    )
    assert command.main(["up", "--overlay", "kserve"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: not every server is ready (see above); no volume for the claim model-rep")
    assert "client (" not in last
    assert kubectl.calls()[-2] == "wait --for=condition=Ready inferenceservice/triton-kserve --timeout=900s"


def test_kserves_servers_are_waited_for_though_it_calls_some_of_them_ready(
    kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(_seconds: float) -> None:
        kubectl.serves(2, server(), server())

    monkeypatch.setattr(cluster.time, "sleep", later)
    kubectl.serves(2, server(), server(is_ready=False))
    assert command.main(["up", "--overlay", "kserve", "--replicas", "2"]) == 0
    assert sum("component=server" in call for call in kubectl.calls()) == 2


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        ([server()], "1 of 2 servers are ready, and 2 are wanted: ./run.sh kubernetes up waits for them"),
        ([server(), server(is_ready=False)], "1 of 2 servers are ready"),
        ([server(), server(deletionTimestamp="now")], "1 of 2 servers are ready"),
        ([server(), server(), server()], "3 of 3 pods of servers are ready, and 2 are wanted: "),
    ],
)
def test_fewer_or_more_servers_than_there_should_be_are_not_measured(
    kubectl: Kubectl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    servers: list[Document],
    says: str,
) -> None:
    monkeypatch.setattr(cluster, "_SETTLING_S", -1.0)
    kubectl.lists("secret", SECRET)
    kubectl.serves(2, *servers)
    assert command.main(["bench"]) == 3
    assert says in capsys.readouterr().err
    assert not [call for call in kubectl.calls() if call.startswith("apply")]


def test_pods_in_which_nothing_runs_any_more_are_no_servers(kubectl: Kubectl) -> None:
    kubectl.serves(1, server(), server(is_ready=False, phase="Failed"))
    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(terminated={"exitCode": 0}))
    assert command.main(["bench"]) == 0


def test_a_benchmark_that_is_interrupted_does_not_go_on_in_the_cluster(
    kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_there: cluster.Cluster, _pods: str) -> int:
        raise KeyboardInterrupt

    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(running={}))
    monkeypatch.setattr(cluster, "_ended", interrupted)
    assert command.main(["bench"]) == 130
    assert kubectl.calls()[-1] == "delete job bench --ignore-not-found --wait=false"


def test_servers_that_are_there_keep_their_key() -> None:
    older = {"metadata": {"creationTimestamp": "2026-10-01T00:00:00Z"}, "data": {"key": "b2xk"}}
    assert manifests.key_in(json.dumps({"items": [SECRET, older]})) == "kept"
    assert manifests.key_in('{"items": []}') is None


@pytest.mark.parametrize("code", [0, 1, 3])
def test_bench_shows_what_the_client_prints_and_has_its_exit_code(
    kubectl: Kubectl, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(terminated={"exitCode": code}))
    kubectl.answers("logs", "Offline VALID\n")
    assert command.main(["bench", "--model", "mobilenet"]) == code
    assert capfd.readouterr().out == "Offline VALID\n"
    calls = kubectl.calls()
    # No pod of an earlier job is taken for this one's, or goes on beside it.
    assert calls.index("delete job bench --ignore-not-found --cascade=foreground --wait") < calls.index(
        "delete pod --selector job-name=bench --ignore-not-found --wait"
    )
    assert calls.index("delete pod --selector job-name=bench --ignore-not-found --wait") < calls.index(
        "apply --filename - kind: Job "
    )
    asked = [call for call in calls if call.startswith("get pod") and "component=server" not in call]
    assert {call.split()[3] for call in asked} == {"batch.kubernetes.io/controller-uid=new"}
    assert "logs --follow pod/bench-x" in calls
    assert calls[-1] == "delete pod results --ignore-not-found --wait=false"


def test_bench_brings_servers_up_where_it_is_told_how_many(kubectl: Kubectl) -> None:
    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(terminated={"exitCode": 0}))
    assert command.main(["bench", "--replicas", "2"]) == 0
    calls = kubectl.calls()
    assert calls.index("rollout status deployment/triton --timeout=900s") < calls.index(
        "apply --filename - kind: Job "
    )


@pytest.mark.parametrize(
    ("there", "code", "says"),
    [
        ({}, 3, "there are no servers: ./run.sh kubernetes up brings them up"),
        (
            {"secret": SECRET, "horizontalpodautoscaler": {}},
            2,
            "an autoscaler may change the number of servers",
        ),
        (
            {
                "secret": SECRET,
                "pod": pod(waiting={"reason": "InvalidImageName", "message": "no such image"}),
            },
            3,
            "the client cannot be started: InvalidImageName: no such image",
        ),
        ({"secret": SECRET, "pod": {"metadata": {"name": "x"}, "status": {}}, "rc": {}}, 3, ""),
    ],
    ids=["no servers", "elastic", "no image", "kubectl fails"],
)
def test_what_cannot_be_measured_is_one_line(
    kubectl: Kubectl, there: dict[str, Document], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, item in there.items():
        kubectl.lists(kind, item)
    if "rc" in there:
        kubectl.fails("apply")
    assert command.main(["bench"]) == code
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"error: {says or 'kubectl apply fails'}")


def test_down_removes_what_is_ours_and_keeps_the_volumes(kubectl: Kubectl) -> None:
    kubectl.answers("api-resources", "pods\nservicemonitors.monitoring.coreos.com\n")
    assert command.main(["down"]) == 0
    assert command.main(["down", "--volumes"]) == 0
    removed = [call.split()[1].split(",") for call in kubectl.calls() if call.startswith("delete")]
    assert removed[1] == [*removed[0], "persistentvolumeclaim"]
    assert "servicemonitors.monitoring.coreos.com" in removed[0]
    assert "inferenceservices.serving.kserve.io" not in removed[0]
    kinds = {
        document["kind"].lower() for overlay in ("", "gpu", "hpa") for document in documents(Choice(overlay))
    }
    assert kinds - {"servicemonitor"} == set(removed[1]) - {"servicemonitors.monitoring.coreos.com"}


def test_down_goes_on_where_an_api_is_down_that_others_serve(kubectl: Kubectl) -> None:
    kubectl.answers("api-resources", "pods\nservicemonitors.monitoring.coreos.com\n")
    kubectl.fails("api-resources")
    assert command.main(["down"]) == 0
    assert "servicemonitors.monitoring.coreos.com" in kubectl.calls()[-1]


def test_results_that_are_not_here_yet_are_copied(
    kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, results = tmp_path / "volume", tmp_path / "results"
    for name in ("run/results.json", "earlier/results.json"):
        (volume / name).parent.mkdir(parents=True)
        (volume / name).write_text("of the cluster")
    (results / "earlier").mkdir(parents=True)
    (results / "earlier" / "results.json").write_text("of this machine")
    archive = shutil.make_archive(str(tmp_path / "volume"), "tar", volume)
    kubectl.answers("exec", Path(archive).read_bytes())
    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(terminated={"exitCode": 0}))
    monkeypatch.setattr(command, "RESULTS_DIR", results)
    assert command.main(["bench"]) == 0
    found = {file.relative_to(results).as_posix(): file.read_text() for file in results.rglob("*.json")}
    assert found == {"run/results.json": "of the cluster", "earlier/results.json": "of this machine"}


def test_results_that_cannot_be_copied_are_said_to_be_in_the_volume(
    kubectl: Kubectl, caplog: pytest.LogCaptureFixture
) -> None:
    kubectl.lists("secret", SECRET)
    kubectl.lists("pod", pod(terminated={"exitCode": 1}))
    kubectl.answers("exec", "no archive")
    assert command.main(["bench"]) == 1
    assert "results are in the volume of the claim `client`" in caplog.text
