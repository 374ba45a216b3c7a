"""Names become servers, each once; and what several servers of a run may not differ in."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.run.config.checks import check_shares
from harness.run.config.resolution import resolve
from harness.run.servers import every_server
from harness.run.serving import check_alike, triton_version
from harness.triton.address import Address, Header, Tls

HOSTS: Mapping[str, Sequence[str]] = {
    "fleet": ("10.0.0.10", "10.0.0.9", "fd00::1"),
    "other": ("10.0.0.20",),
    "dual": ("10.0.0.31", "fd00::31", "10.0.0.32", "fd00::32"),
    "alias": ("10.0.0.9",),
    "10.0.0.9": ("10.0.0.9",),
    "::1": ("::1",),
    "fd00::31": ("fd00::31",),
    "FD00::31": ("fd00::31",),
    "ALIAS": ("10.0.0.9",),
}


@pytest.fixture(autouse=True)
def dns(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host not in HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        # As the real one, several times each; and in turns, as a DNS server.
        return [(0, 0, 0, "", (ip, port)) for ip in (*HOSTS[host], *HOSTS[host])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def urls(*named: str) -> list[str]:
    return [server.url for server in every_server([Address(url) for url in named])]


def test_a_name_is_all_servers_that_it_has_in_one_order_and_others_stay_as_they_are() -> None:
    assert urls("dns:///fleet:8001", "other:8001", "unix:/run/triton") == [
        *("10.0.0.9:8001", "10.0.0.10:8001", "[fd00::1]:8001"),
        *("other:8001", "unix:/run/triton"),
    ]
    # "First reachable" is one server, whatever it has.
    assert urls("fleet:8001", "[::1]:8001") == ["fleet:8001", "[::1]:8001"]


def test_where_networks_have_both_kinds_of_address_each_server_is_taken_once() -> None:
    assert urls("dns:///dual:8001") == ["10.0.0.31:8001", "10.0.0.32:8001"]
    with pytest.raises(ConfigError, match="names one server twice"):
        urls("dns:///dual:8001", "[fd00::31]:8001")


def test_tls_and_tokens_go_to_every_server_of_a_name_and_the_name_is_what_certificates_must_have() -> None:
    tls, headers = Tls("ca.pem"), (Header("authorization", "Bearer ", "$TOKEN"),)
    found = every_server([Address("grpcs+dns:///fleet:443", tls=tls, headers=headers)])
    assert [server.url for server in found] == [
        *("grpcs://10.0.0.9:443", "grpcs://10.0.0.10:443", "grpcs://[fd00::1]:443")
    ]
    assert {(server.name, server.tls, server.headers) for server in found} == {("fleet", tls, headers)}


def test_metrics_that_were_said_of_a_name_are_those_of_each_of_its_servers() -> None:
    words = {"url": "dns:///fleet:8001,other:8001", "metrics_url": "http://fleet:9/m,http://other:8/metrics"}
    server = resolve({"model": "resnet50", "platform": "onnxruntime", **words}).server
    assert [one.metrics_url for one in every_server(server.servers)] == [
        *("http://10.0.0.9:9/m", "http://10.0.0.10:9/m", "http://[fd00::1]:9/m"),
        "http://other:8/metrics",
    ]


@pytest.mark.parametrize("url", ["dns:///nobody:8001", "nobody:8001", "grpcs://nobody:8001"])
def test_a_name_without_an_address_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        urls("other:8001", url)
    assert str(refusal.value) == (
        f"--url {url}: nobody has no address (Name or service not known): check its name, and this "
        "machine's DNS"
    )


@pytest.mark.parametrize(
    "named",
    [
        ("dns:///fleet:8001", "10.0.0.9:8001"),
        ("alias:8001", "dns:///fleet:8001"),
        ("alias:8001", "10.0.0.9:8001"),
    ],
)
def test_a_server_that_is_named_twice_is_found_by_its_address(named: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"names one server twice: {named[0]} and {named[1]} are both at "):
        urls(*named)
    assert len(urls("alias:8001", "10.0.0.9:8002")) == 2


def test_over_tls_names_with_one_address_are_servers_that_a_gateway_tells_apart() -> None:
    named = ("grpcs://alias:443", "grpcs://10.0.0.9:443", "grpcs://fleet:443")
    assert urls(*named) == [*named]
    for twice in (
        ("grpcs://alias:443", "grpcs://ALIAS:443"),
        ("grpcs+dns:///fleet:443", "grpcs://10.0.0.9:443"),
        ("grpcs://[FD00::31]:443", "grpcs+dns:///dual:443"),
        ("grpcs+dns:///fleet:443", "grpcs+dns:///alias:443"),
    ):
        with pytest.raises(ConfigError, match="names one server twice"):
            urls(*twice)


def test_client_processes_are_shared_out_evenly() -> None:
    for processes, servers in ((1, 3), (3, 3), (6, 3)):
        check_shares(processes, servers)
    with pytest.raises(ConfigError, match="--client-processes 4 is impossible with 3 servers"):
        check_shares(4, 3)


class FakeClient:
    def __init__(self, url: str, version: str = "1") -> None:
        self.url, self._version = url, version

    def answering_version(self, _entry: str) -> str:
        return self._version

    def check_is_triton(self) -> dict[str, Any]:
        return {"name": "triton", "version": f"2.5{self._version}.0"}


CONFIG = {"name": "m", "instance_group": [{"count": 2}]}


def test_servers_of_one_model_are_alike() -> None:
    check_alike([FakeClient("a:1"), FakeClient("b:1")], "m", [CONFIG, dict(CONFIG)])
    check_alike([FakeClient("a:1")], "m", [CONFIG])


def test_all_servers_are_one_version_of_triton() -> None:
    clients = [FakeClient("a:1"), FakeClient("b:1")]
    assert triton_version(clients) == "2.51.0"
    with pytest.raises(ConfigError, match=r"Triton is 2\.51\.0 at a:1 and 2\.53\.0 at c:1"):
        triton_version([*clients, FakeClient("c:1", "3")])


@pytest.mark.parametrize(
    ("version", "changed", "complaint"),
    [
        ("3", {}, "m is version 1 and 3 at a:1 and at c:1; name one that all have with --served-version"),
        (
            "1",
            {"max_batch_size": 8, "instance_group": [{"count": 1}]},
            "m has another instance_group, max_batch_size at a:1 and at c:1; give all of them one "
            "config.pbtxt, or have this run do so with --server-config ours",
        ),
    ],
)
def test_servers_with_another_version_or_other_settings_are_no_fleet(
    version: str, changed: dict[str, Any], complaint: str
) -> None:
    clients = [FakeClient("a:1"), FakeClient("b:1"), FakeClient("c:1", version)]
    with pytest.raises(ConfigError) as refusal:
        check_alike(clients, "m", [CONFIG, CONFIG, {**CONFIG, **changed}])
    assert str(refusal.value) == f"the servers of a run must be alike: {complaint}"
