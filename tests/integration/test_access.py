"""Servers that do not let everybody in: TLS both ways, a header that they demand, sockets and names."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from harness.errors import InferenceError, RequestFailed, ServerError
from harness.machine import paths
from harness.server import launch, lifecycle
from harness.triton.address import Address, Tls
from harness.triton.channels import open_channel
from harness.triton.client import TritonClient
from harness.triton.http2 import message_prefix
from harness.triton.rpc import Rpc
from tests.certificates import make_authority, make_certificate
from tests.names import name_addresses

RUN = (
    *("--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded", "--dataset", "synthetic"),
    *("--count", "8", "--quiet"),
)
EVERY = "SingleStream,MultiStream,Server,Offline"
HEADER = "triton-grpc-protocol-key"
SECRET = "open-sesame"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    make_certificate(folder, "server", "authority")
    make_certificate(folder, "expired", "authority", days=-1)
    make_certificate(folder, "client", "authority")
    (folder / "key").write_text(f"{SECRET}\n")
    return folder


@contextmanager
def guarded_server(folder: Path, files: Path, certificate: str) -> Iterator[str]:
    """A server that wants TLS, a client's certificate, and for inferences a header; its address."""
    flags = [
        *("--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={files}/authority.pem"),
        *(f"--grpc-server-cert={files}/{certificate}.pem", f"--grpc-server-key={files}/{certificate}.key"),
        f"--grpc-restricted-protocol=inference:key={SECRET}",
    ]
    ours = launch.command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "command", lambda *args, **how: [*ours(*args, **how), *flags])
        info = lifecycle.start(paths.MODEL_REPOSITORY, state_dir=folder, die_with_parent=True)
    yield f"grpcs://localhost:{info.grpc_url.rpartition(':')[2]}"
    assert lifecycle.stop(info, folder)


@pytest.fixture(scope="module")
def guarded(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with guarded_server(tmp_path_factory.mktemp("guarded"), files, "server") as url:
        yield url


def tls(files: Path) -> list[str]:
    pair = ("--tls-cert", f"{files}/client.pem", "--tls-key", f"{files}/client.key")
    return ["--tls-ca", f"{files}/authority.pem", *pair]


@pytest.mark.parametrize("rpc", Rpc)
def test_every_scenario_runs_over_both_kinds_of_channel(
    rpc: Rpc, run_harness: Callable, request: pytest.FixtureRequest, files: Path, tmp_path: Path
) -> None:
    if rpc == Rpc.OWN:
        access = [request.getfixturevalue("repository_server").grpc_url]
    else:
        access = [request.getfixturevalue("guarded"), *tls(files), "--header", f"{HEADER}: @{files}/key"]
    ended = run_harness(*RUN, "--scenario", EVERY, "--output", tmp_path, "--url", *access)
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*/results.json")]
    assert len(results) == 4, ended.stderr
    for result in results:
        assert result["verdict"] in ("VALID", "INVALID"), result["reasons"]
        assert result["server"]["rpc"] == rpc
        assert result["server"]["urls"] == [access[0]]
        assert result["tests"]["PerformanceOnly"]["books"][0]["counted_samples"] >= 8
    for page in tmp_path.glob("*/report.html"):
        assert ("gRPC&#39;s library" in page.read_text()) == (rpc == Rpc.GRPC)


@pytest.mark.parametrize("rpc", Rpc)
@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.1"]])
def test_control_and_inferences_end_at_the_same_address_of_a_name(
    addresses: list[str], rpc: Rpc, repository_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = repository_server.grpc_url.rpartition(":")[2]
    name_addresses(monkeypatch, "triton.test", addresses)
    body = service_pb2.ModelInferRequest(model_name="none").SerializeToString()
    with TritonClient(Address(f"triton.test:{port}", rpc)) as client:
        assert client.check_is_triton()["name"] == "triton"
        assert client.server.found == f"127.0.0.1:{port}"
        with pytest.raises(RequestFailed, match="unknown model: 'none'"):
            client.infer_now(message_prefix(len(body)) + body)


def test_a_secret_of_the_command_line_reaches_client_processes_and_nothing_that_is_written(
    run_harness: Callable, guarded: str, files: Path, tmp_path: Path
) -> None:
    options = ("--header", f"{HEADER}: {SECRET}", "--client-processes", 2, "--transport", "grpc")
    options += ("--max-batchsize", 1)
    # A list of servers, too, is asked over TLS, and each with the header.
    with guarded_server(tmp_path / "second", files, "server") as second:
        urls = f"{guarded},{second}"
        words = (*RUN, "--url", urls, *tls(files), *options, "--scenario", "Offline", "--output", tmp_path)
        ended = run_harness(*words)
    (results,) = tmp_path.glob("*/results.json")
    result = json.loads(results.read_text())
    assert result["verdict"] in ("VALID", "INVALID"), ended.stderr
    books = result["tests"]["PerformanceOnly"]["books"]
    assert [book["url"] for book in books] == [guarded, second]
    assert all(book["counted_samples"] == book["answered_samples"] > 0 for book in books)
    assert result["args"]["headers"] == [f"{HEADER}: (hidden)"]
    assert f"{HEADER}: (hidden)" in result["cmdline"]
    key = (files / "client.key").read_text().splitlines()[1]
    written = [file.read_bytes() for file in results.parent.rglob("*") if file.is_file()]
    for text in (*written, ended.stdout.encode(), ended.stderr.encode()):
        assert SECRET.encode() not in text
        assert key.encode() not in text


@pytest.mark.parametrize(
    ("host", "ca", "client", "complaint"),
    [
        ("localhost", "stranger", "client", "not to be trusted (self-signed certificate in certificate cha"),
        ("127.0.0.1", "authority", "client", "not to be trusted (IP address mismatch, certificate is not "),
        ("localhost", "authority", "", "it wants a certificate of the client: see --tls-cert and --tls-key"),
        ("localhost", "authority", "stranger", "it does not take the client's certificate, --tls-cert /"),
    ],
)
def test_who_is_not_trusted_is_told(
    host: str, ca: str, client: str, complaint: str, guarded: str, files: Path
) -> None:
    said = refusal(guarded.replace("localhost", host), files, ca, client)
    assert f"/{host}:" in said
    assert complaint in said


@pytest.mark.parametrize("name", ["localhost", "triton.test"])
def test_a_server_that_was_found_by_a_name_must_have_it_in_its_certificate(
    name: str, guarded: str, files: Path
) -> None:
    port = guarded.rpartition(":")[2]
    found = Address(
        f"grpcs+dns:///{name}:{port}",
        Rpc.GRPC,
        Tls(f"{files}/authority.pem", f"{files}/client.pem", f"{files}/client.key"),
    ).at("127.0.0.1")

    async def connect() -> None:
        await (await open_channel(found, 10.0)).close()

    with TritonClient(found) as client:
        if name == "localhost":
            assert client.check_is_triton()["name"] == "triton"
            asyncio.run(connect())
            return
        with pytest.raises(ServerError, match="not to be trusted"):
            client.check_is_triton()
    with pytest.raises(InferenceError, match="cannot connect"):
        asyncio.run(connect())


def test_a_server_without_tls_is_told(repository_server: lifecycle.ServerInfo, files: Path) -> None:
    assert "it does not speak TLS: see --url" in refusal(f"grpcs://{repository_server.grpc_url}", files)


def refusal(url: str, files: Path, ca: str = "authority", client: str = "client") -> str:
    pair = [f"{files}/{client}.pem", f"{files}/{client}.key"] if client else []
    server = Address(url, Rpc.GRPC, Tls(f"{files}/{ca}.pem", *pair))
    with TritonClient(server) as asking, pytest.raises(ServerError) as caught:
        asking.check_is_triton()
    said = str(caught.value)
    assert said.startswith(f"the server at {url} cannot be asked over TLS: ")
    assert "\n" not in said
    return said


def test_a_certificate_that_has_expired_is_one_line_and_exit_code_3(
    run_harness: Callable, files: Path, tmp_path: Path
) -> None:
    with guarded_server(tmp_path / "server", files, "expired") as url:
        ended = run_harness(*RUN, "--url", url, *tls(files), "--output", tmp_path)
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: the server at {url} cannot be asked over TLS: its certificate is not to")
    assert "(certificate has expired)" in line


def test_a_missing_header_is_one_line_and_exit_code_3(
    run_harness: Callable, guarded: str, files: Path, tmp_path: Path
) -> None:
    ended = run_harness(*RUN, "--url", guarded, *tls(files), "--output", tmp_path)
    assert (ended.returncode, ended.stderr) == (3, "")
    (line,) = [line for line in ended.stdout.splitlines() if "FAILED: " in line]
    assert line.endswith(f"This protocol is restricted, expecting header '{HEADER}'; see --header")


@pytest.fixture
def on_a_socket(repository_server: lifecycle.ServerInfo, tmp_path: Path) -> Iterator[str]:
    """A socket in the file system that leads to the server."""
    host, _, port = repository_server.grpc_url.rpartition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    path = tmp_path / "triton"
    loop.run_until_complete(asyncio.start_unix_server(connect, path))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"unix:{path}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_socket_and_a_name_are_addresses_too(
    run_harness: Callable, repository_server: lifecycle.ServerInfo, on_a_socket: str, tmp_path: Path
) -> None:
    port = repository_server.grpc_url.rpartition(":")[2]
    with TritonClient(Address(f"dns:///localhost:{port}", Rpc.GRPC)) as client:
        assert client.check_is_triton()["name"] == "triton"
    ended = run_harness(*RUN, "--url", on_a_socket, "--output", tmp_path / "results")
    (results,) = (tmp_path / "results").glob("*/results.json")
    result = json.loads(results.read_text())
    assert result["verdict"] in ("VALID", "INVALID"), ended.stderr
    assert (result["server"]["urls"], result["server"]["rpc"]) == ([on_a_socket], "grpcio")
