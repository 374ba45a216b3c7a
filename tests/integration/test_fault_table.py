"""The fault table: whatever breaks while a test is under way, the run ends by itself and in time, says in one
line what broke, keeps LoadGen's logs, gives no good number and leaves nothing behind; and the next run works.

Every case is the command line on a real server whose model computes nothing. `-m nightly` has each fault in
every scenario; the ordinary suite has once those that end in seconds. What came of each case is
printed at the end.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from harness.machine import paths
from harness.run.mlperf import logs
from harness.run.mlperf.rounds import Scenario
from harness.server import launch, lifecycle
from harness.server.launch import Ports
from harness.triton.client import TritonClient
from tests.integration.null_harness import add_null_entry
from tests.integration.tcp_proxy import Proxy

TIMEOUT_S = 3.0
"""Of a request."""
IN_TIME_S = 300
"""For a run to end, also on a busy machine; if nothing ended it, its test would take ten minutes."""
RATES = {Scenario.SERVER: "100", Scenario.OFFLINE: "2000"}
MARK = "TEST_MARK"


class House:
    """A server that may be harmed, its null model, and runs of the command line."""

    def __init__(self, folder: Path, **of_entry: Any) -> None:
        """`of_entry`: as `add_null_entry` takes it."""
        self.folder, self._state_dir, repository = folder, folder / "server", folder / "repository"
        repository.mkdir()
        self.entry = add_null_entry(repository, **of_entry)
        self._runs: list[Run] = []
        # Not the default ones, which another server could take while this one is down.
        self.start(free_ports())

    def start(self, ports: Ports) -> None:
        self.info = lifecycle.start(
            self.entry.parent, state_dir=self._state_dir, die_with_parent=True, ports=ports
        )
        self.server = psutil.Process(self.info.pid)
        # As on a server that others use.
        with TritonClient(self.info.grpc_url) as client:
            if not client.is_model_ready(self.entry.name):
                client.load(self.entry.name, None)

    def restart(self) -> None:
        self.stop()
        self.start(self.ports)

    @property
    def ports(self) -> Ports:
        return tuple(int(url.split(":")[-1].split("/")[0]) for url in self.urls)

    @property
    def urls(self) -> tuple[str, str, str]:
        return self.info.http_url, self.info.grpc_url, self.info.metrics_url

    def stop(self) -> None:
        lifecycle.stop(None, self._state_dir)

    def end(self) -> None:
        """Stop the server, and whatever a failed test has left of its runs."""
        self.stop()
        for process in [process for run in self._runs for process in run.processes()]:
            process.kill()

    @property
    def stub(self) -> psutil.Process:
        return next(child for child in self.server.children() if "stub" in child.name())

    def harness(
        self, scenario: Scenario, *options: str, seconds: float = 600.0, place: Sequence[str] = ()
    ) -> "Run":
        """Begin a run; its URL is the server's unless it is among the options; `place`: see `small`."""
        url = () if "--url" in options else ("--url", self.info.grpc_url)
        words = (*words_of(scenario, seconds), *url, *options)
        output = self.folder / f"results-{len(self._runs)}"
        self._runs.append(Run(self.entry, output, words, place))
        return self._runs[-1]


def free_ports() -> Ports:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        http, grpc, metrics = (one.getsockname()[1] for one in sockets)
    return http, grpc, metrics


def words_of(scenario: Scenario, seconds: float) -> tuple[str, ...]:
    """The options that every run has."""
    # A fault is to end a test, and not what it does to latencies.
    rate = ("--qps", RATES[scenario], "--no-early-end") if scenario in RATES else ()
    model = ("--model", "mobilenet", "--platform", "onnxruntime", "--max-batchsize", "1")
    return (*model, "--scenario", scenario, "--time", f"{seconds:g}", *rate)


@dataclasses.dataclass(frozen=True)
class Ended:
    """What became of a run."""

    exit_code: int
    said: str
    """All of stdout and stderr."""
    verdict: str
    """Of results.json; empty where there is none."""
    reason: str
    """The one line for the user."""
    seconds: float
    """From the fault to the end."""


class Run:
    """The command line, in a session of its own."""

    def __init__(self, entry: Path, output: Path, words: Sequence[str], place: Sequence[str]) -> None:
        self.output = output
        output.mkdir()
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            [part.format(output=output) for part in place]
            + [sys.executable, "-m", "tests.integration.null_harness", str(entry), str(TIMEOUT_S), *words]
            + ["--output", str(output)],
            cwd=paths.PROJECT_ROOT,
            env={**os.environ, MARK: str(output)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_until_testing(self) -> None:
        """LoadGen has begun, and a few queries have been answered."""
        while not list(self.inside.glob(f"*/performance/run_1/{logs.DETAIL_LOG}")):
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)
        time.sleep(0.5)
        self._began = time.monotonic()

    def end(self) -> Ended:
        """Wait for its end."""
        said = self.process.communicate(timeout=IN_TIME_S)[0]
        seconds = time.monotonic() - self._began
        result = self.result()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        reason = "; ".join(result.get("reasons", errors))
        return Ended(self.process.returncode, said, result.get("verdict", ""), reason, seconds)

    def result(self) -> dict[str, Any]:
        """Its results.json; empty where there is none."""
        files = list(self.output.glob("*/results.json"))
        return json.loads(files[0].read_text()) if files else {}

    def processes(self) -> list[psutil.Process]:
        """All that it has started, and that is not over."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_over = process.status() == psutil.STATUS_ZOMBIE
                if not is_over and process.environ().get(MARK) == str(self.output):
                    found.append(process)
        return found

    def leftovers(self) -> list[str]:
        """What of it is still there."""
        found = list(map(str, self.processes()))
        found += map(str, Path("/dev/shm").glob(f"mlperf-*-{self.process.pid}-*"))
        found += map(str, paths.STATE_DIR.glob(f"server-{self.process.pid}"))
        return found

    def check_nothing_left(self) -> None:
        deadline = time.monotonic() + 30
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.leftovers()

    def logs(self) -> list[Path]:
        return list(self.output.glob(f"*/performance/run_1/{logs.DETAIL_LOG}"))

    @property
    def inside(self) -> Path:
        """The results as the run itself sees them, while it runs."""
        return Path(f"/proc/{self.process.pid}/root{self.output}")


@pytest.fixture
def new_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Make one, with an entry as `add_null_entry` makes it."""
    houses = []

    def new(**of_entry: Any) -> House:
        houses.append(House(tmp_path, **of_entry))
        return houses[-1]

    yield new
    for house in houses:
        house.end()


@pytest.fixture
def house(new_house) -> House:
    return new_house()


@pytest.fixture
def report(record_property, request: pytest.FixtureRequest) -> Callable[[Ended], None]:
    """Have a case in the table that conftest prints at the end."""

    def report(ended: Ended) -> None:
        case = request.node.name.removeprefix("test_").replace("_", " ")
        result = ended.verdict or f"exit code {ended.exit_code}"
        record_property("fault", (case, f"{ended.seconds:.1f}", f"{result}: {ended.reason}"))

    return report


def check_next_run(house: House) -> None:
    run = house.harness(Scenario.SINGLE_STREAM, seconds=0.1)
    ended = run.end()
    assert (ended.exit_code, ended.verdict) == (0, "VALID"), ended.said
    run.check_nothing_left()


def check_failed(run: Run, ended: Ended, complaint: str) -> None:
    assert (ended.exit_code, ended.verdict) == (3, "FAILED"), ended.said
    assert re.search(complaint, ended.reason), ended.reason
    assert "Traceback" not in ended.said
    assert run.logs()
    run.check_nothing_left()


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to a server, what is said of it, and what its operator does about it."""

    strike: Callable[[House], object]
    complaint: str
    """Of the reason that is given, a part as a regular expression."""
    mend: Callable[[House], object] = lambda _: None


_ENDING = "UNAVAILABLE|has no available versions|the server is ending"
_NO_STUB = "DEADLINE_EXCEEDED|is not healthy"
FAULTS = {
    "server killed": Fault(lambda house: house.server.kill(), "the server is gone", House.restart),
    "server stopped": Fault(
        lambda house: house.server.suspend(), "DEADLINE_EXCEEDED", lambda house: house.server.resume()
    ),
    "server ended": Fault(lambda house: house.server.terminate(), _ENDING, House.restart),
    "server restarted": Fault(House.restart, _ENDING),
    # Triton 2.51 starts no other stub while the model stays loaded.
    "stub killed": Fault(lambda house: house.stub.kill(), "is not healthy", House.restart),
    "stub stopped": Fault(lambda house: house.stub.suspend(), _NO_STUB, House.restart),
}
ORDINARY = {
    ("server killed", Scenario.MULTI_STREAM),
    ("server stopped", Scenario.OFFLINE),
    ("server ended", Scenario.SINGLE_STREAM),
    ("server restarted", Scenario.OFFLINE),
    ("stub killed", Scenario.SINGLE_STREAM),
}


def product(names: Iterable[str], ordinary: set[tuple[str, Scenario]]) -> list:
    """Each name in each scenario: those that are not ordinary, nightly."""
    return [
        pytest.param(
            name,
            scenario,
            id=f"{name}, {scenario}",
            marks=() if (name, scenario) in ordinary else pytest.mark.nightly,
        )
        for name in names
        for scenario in Scenario
    ]


@pytest.mark.parametrize(("name", "scenario"), product(FAULTS, ORDINARY))
def test_server(house: House, report, name: str, scenario: Scenario) -> None:
    fault = FAULTS[name]
    # Which has to be put back at the end.
    run = house.harness(scenario, "--server-config", "ours")
    run.wait_until_testing()
    fault.strike(house)
    ended = run.end()
    report(ended)
    check_failed(run, ended, fault.complaint)
    fault.mend(house)
    check_next_run(house)


def reset_again_and_again(proxy: Proxy) -> None:
    """One reset can come between two requests, which then go over a new connection and harm nothing."""
    for _ in range(20):
        proxy.reset()
        time.sleep(0.1)


CONNECTIONS = {
    "reset": (reset_again_and_again, "UNAVAILABLE"),
    "half-open": (Proxy.stall, "DEADLINE_EXCEEDED"),
}


@pytest.mark.parametrize(
    ("name", "scenario"),
    product(CONNECTIONS, {("reset", Scenario.SINGLE_STREAM)}),
)
def test_connection(house: House, report, name: str, scenario: Scenario) -> None:
    strike, complaint = CONNECTIONS[name]
    with Proxy(house.ports[1]) as proxy:
        run = house.harness(scenario, "--url", proxy.url)
        run.wait_until_testing()
        strike(proxy)
        ended = run.end()
    report(ended)
    check_failed(run, ended, complaint)
    check_next_run(house)


@pytest.mark.parametrize(
    ("name", "scenario"),
    product(
        ("killed", "stopped and killed"),
        {("killed", Scenario.SERVER), ("stopped and killed", Scenario.OFFLINE)},
    ),
)
def test_harness(house: House, report, name: str, scenario: Scenario) -> None:
    run = house.harness(scenario)
    run.wait_until_testing()
    if name.startswith("stopped"):
        for process in run.processes():
            process.suspend()
    run.process.kill()
    ended = run.end()
    report(ended)
    assert (ended.exit_code, ended.verdict) == (-signal.SIGKILL, "")
    assert run.logs()
    run.check_nothing_left()
    # Which puts right what could not be put right by who was killed.
    check_next_run(house)
    with TritonClient(house.info.grpc_url) as client:
        assert not client.shared_memory_regions()
    assert not list((paths.STATE_DIR / "borrowed").glob(f"*port-{house.ports[1]}*"))


def test_a_pause_of_the_harness_is_in_its_figures(house: House, report) -> None:
    run = house.harness(Scenario.SINGLE_STREAM, seconds=5)
    run.wait_until_testing()
    harness = psutil.Process(run.process.pid)
    paused = harness, *harness.children(recursive=True)
    for process in paused:
        process.suspend()
    time.sleep(1.5)
    for process in paused:
        process.resume()
    ended = run.end()
    report(ended)
    (log,) = run.logs()
    assert logs.read_detail(log.parent).number("result_max_latency_ns") > 1e9
    run.check_nothing_left()


def small(place: str, size: str) -> tuple[str, ...]:
    """Words before a command that have it see a small tmpfs in a place."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: that takes root")
    return "unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "{place}" && exec "$@"', "sh"


def check_transport(run: Run, ended: Ended, transport: str, complaint: str) -> None:
    """With `auto` samples travel in messages, `shm` is refused."""
    if transport == "auto":
        assert (ended.exit_code, ended.verdict) == (0, "VALID"), ended.said
        assert run.result()["tests"]["PerformanceOnly"]["transport"] == "grpc"
        assert complaint in ended.said
    else:
        assert (ended.exit_code, ended.verdict) == (3, "FAILED"), ended.said
        assert complaint in ended.reason
    run.check_nothing_left()


@pytest.mark.parametrize("transport", ["auto", "shm"])
def test_no_shared_memory_with_the_server(house: House, report, transport: str) -> None:
    place = small("/dev/shm", "4k")
    run = house.harness(Scenario.SINGLE_STREAM, "--transport", transport, seconds=0.1, place=place)
    ended = run.end()
    report(ended)
    check_transport(run, ended, transport, "cannot map this machine's shared memory")


@pytest.mark.parametrize("transport", ["auto", "shm"])
def test_shared_memory_with_room_for_the_server_only(tmp_path: Path, report, transport: str) -> None:
    entry = add_null_entry(tmp_path, side_px=224)
    # The 64 samples are 39 MB, what the stub has is 17.
    words = (*words_of(Scenario.SINGLE_STREAM, 0.1), "--transport", transport)
    run = Run(entry, tmp_path / "results", words, small("/dev/shm", "30m"))
    ended = run.end()
    report(ended)
    check_transport(
        run, ended, transport, "/dev/shm has no room for 39 MB of samples (No space left on device)"
    )


def test_a_disk_that_is_full_while_results_are_written(house: House, report) -> None:
    run = house.harness(Scenario.SINGLE_STREAM, seconds=4, place=small("{output}", "3m"))
    run.wait_until_testing()
    with contextlib.suppress(OSError), (run.inside / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    ended = run.end()
    report(ended)
    assert ended.exit_code in (2, 3), ended.said
    assert "No space left on device" in ended.reason
    assert "VALID" not in ended.said
    assert "Traceback" not in ended.said
    run.check_nothing_left()
    check_next_run(house)


def test_two_harnesses_on_one_server(house: House, report) -> None:
    runs = [house.harness(Scenario.SINGLE_STREAM, seconds=0.5) for _ in range(2)]
    for run in runs:
        ended = run.end()
        report(ended)
        # On one machine the second waits for the first, so each has the server to itself.
        assert (ended.exit_code, ended.verdict) == (0, "VALID"), ended.said
        result = run.result()
        counted = result["tests"]["PerformanceOnly"]["statistics"]["samples"]
        assert counted == result["TestScenario.SingleStream"]["count"]
        run.check_nothing_left()


def test_a_response_cache(new_house, report) -> None:
    house = new_house(change=lambda config: config + "response_cache { enable: true }")
    run = house.harness(Scenario.SINGLE_STREAM, seconds=0.1)
    ended = run.end()
    report(ended)
    assert (ended.exit_code, ended.verdict) == (3, ""), ended.said
    assert "has its response cache switched on, which MLPerf forbids" in ended.reason
    run.check_nothing_left()


def test_a_model_without_batching(new_house, report) -> None:
    house = new_house(change=without_batching)
    run = house.harness(Scenario.SINGLE_STREAM, seconds=0.1)
    ended = run.end()
    report(ended)
    assert (ended.exit_code, ended.verdict) == (3, ""), ended.said
    assert "is served without batching" in ended.reason
    run.check_nothing_left()


def without_batching(config: str) -> str:
    """A config.pbtxt with max_batch_size 0, which leaves the batch axis to the tensors' own shapes."""
    model = text_format.Parse(config, model_config_pb2.ModelConfig())
    model.max_batch_size = 0
    model.ClearField("dynamic_batching")
    for tensor in (*model.input, *model.output):
        dims = [1, *(tensor.dims if tensor.name == "NULL_INPUT" else ())]
        tensor.ClearField("reshape")
        tensor.dims[:] = dims
    return text_format.MessageToString(model)


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_model_control_mode(monkeypatch: pytest.MonkeyPatch, new_house, report, mode: str) -> None:
    command = launch.command
    monkeypatch.setattr(
        launch,
        "command",
        lambda *given, **named: [
            word.replace("--model-control-mode=explicit", f"--model-control-mode={mode}")
            for word in command(*given, **named)
        ],
    )
    run = new_house().harness(Scenario.SINGLE_STREAM, seconds=0.1)
    ended = run.end()
    report(ended)
    assert (ended.exit_code, ended.verdict) == (0, "VALID"), ended.said
    assert run.result()["server"]["is_config_ours"] is False
    run.check_nothing_left()
