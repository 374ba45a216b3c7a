"""Addresses and headers: what is read, what is sent, and what is written of it."""

import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.triton.address import Address, Header, Tls, parse_headers, without_secrets
from tests.names import name_addresses


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKEN", "of-the-environment")
    (tmp_path / "token").write_text("of-the-file\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "sent", "shown"),
    [
        ("Authorization: Bearer $TOKEN", "Bearer of-the-environment", "authorization: Bearer $TOKEN"),
        ("authorization:$TOKEN", "of-the-environment", "authorization: $TOKEN"),
        ("authorization: Bearer @token", "Bearer of-the-file", "authorization: Bearer @{folder}/token"),
        ("authorization: Bearer abc: $d e", "Bearer abc: $d e", "authorization: (hidden)"),
        ("authorization: a$TOKEN", "a$TOKEN", "authorization: (hidden)"),
    ],
)
def test_a_headers_value_is_sent_and_never_shown(text: str, sent: str, shown: str, folder: Path) -> None:
    address = Address("host:1", headers=parse_headers([text]))
    shown = shown.format(folder=folder)
    assert address.metadata() == (("authorization", sent),)
    assert [str(header) for header in address.headers] == [shown]
    assert without_secrets(["bench", "--header", text, f"--header={text}", "--quick"]) == [
        *("bench", "--header", shown, f"--header={shown}", "--quick")
    ]
    for written in (repr(address), json.dumps(dataclasses.asdict(address))):
        assert sent.removeprefix("Bearer ") not in written


@pytest.mark.parametrize(
    "text", ["secret", "two words: secret", ": secret", "a: secré", "a: se\ncret", "a: se\0cret"]
)
def test_what_is_no_header_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_headers([text])
    assert "se" not in str(refusal.value).replace("its value is empty, or not one line", "")


def test_a_value_that_is_gone_is_one_line(folder: Path) -> None:
    header = Header.parse("key: @token")
    (folder / "token").unlink()
    with pytest.raises(ConfigError, match=r"--header key: cannot read .*/token: No such file"):
        header.value()
    (folder / "token").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"cannot read .*/token: not a text"):
        header.value()


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of 127.0.0.1, and of no other address of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("dead", [["::1"], ["127.0.0.2", "::1"], ["::1", "127.0.0.2"]])
def test_of_a_name_with_several_addresses_the_first_that_answers_counts(
    dead: list[str], listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_addresses(monkeypatch, "triton.test", [*dead, "127.0.0.1", "127.0.0.3"])
    address = Address(f"triton.test:{listening}").located()
    assert address == Address(f"triton.test:{listening}", found=f"127.0.0.1:{listening}")
    assert address.target == f"triton.test:{listening}"
    # It is looked up once.
    name_addresses(monkeypatch, "triton.test", ["127.0.0.2", "127.0.0.3"])
    assert address.located() == address


def test_what_has_one_address_or_none_that_answers_is_left_as_it_is(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_addresses(monkeypatch, "triton.test", ["127.0.0.2", "::1"])
    for url in (f"triton.test:{listening}", f"127.0.0.1:{listening}", "unix:/run/triton", "dns:///a.b:1"):
        assert Address(url).located() == Address(url)
    # Reserved for names that do not exist (RFC 2606).
    assert Address("nowhere.invalid:1").located() == Address("nowhere.invalid:1")


def test_headers_that_a_server_would_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 8192 bytes"):
        parse_headers([f"a: {'x' * 5000}", f"b: {'x' * 5000}"])


@pytest.mark.parametrize(
    ("url", "target", "host", "port", "path"),
    [
        ("a.b:1", "a.b:1", "a.b", "1", ""),
        ("[::1]:1", "[::1]:1", "[::1]", "1", ""),
        ("grpcs://a.b:1", "a.b:1", "a.b", "1", ""),
        ("dns:///a.b:1", "dns:///a.b:1", "a.b", "1", ""),
        ("grpcs+dns:///a.b:1", "dns:///a.b:1", "a.b", "1", ""),
        ("unix:/run/triton", "unix:/run/triton", "", "", "/run/triton"),
    ],
)
def test_parts_of_an_address(url: str, target: str, host: str, port: str, path: str) -> None:
    address = Address(url)
    assert (address.target, *address.host_and_port, address.path) == (target, host, port, path)
    assert address.needs_library == url.startswith(("grpcs", "unix"))
    assert address.is_encrypted == url.startswith("grpcs")
    assert address.is_name == ("dns:" in url)


@pytest.mark.parametrize(
    ("url", "ip", "found"),
    [
        ("dns:///a.b:1", "10.0.0.7", "10.0.0.7:1"),
        ("dns:///a.b:1", "fd00::7", "[fd00::7]:1"),
        ("grpcs+dns:///a.b:1", "fd00::7", "grpcs://[fd00::7]:1"),
    ],
)
def test_a_server_of_a_name_keeps_the_name_and_all_that_opens_its_doors(
    url: str, ip: str, found: str
) -> None:
    headers = (Header("key", "", "$TOKEN"),)
    server = Address(url, tls=Tls("ca.pem"), headers=headers).at(ip)
    assert server == Address(found, tls=Tls("ca.pem"), headers=headers, name="a.b")


@pytest.mark.parametrize(
    ("metrics", "ip", "found"),
    [
        ("http://a.b:9/metrics", "10.0.0.7", "http://10.0.0.7:9/metrics"),
        ("https://[::1]:9/m//n:1", "fd00::7", "https://[fd00::7]:9/m//n:1"),
        ("http://a.b/metrics", "10.0.0.7", "http://10.0.0.7/metrics"),
        ("http://a.b", "10.0.0.7", "http://10.0.0.7"),
        ("", "10.0.0.7", "http://10.0.0.7:8002/metrics"),
    ],
)
def test_a_server_of_a_name_has_its_metrics_where_it_was_said_of_the_name(
    metrics: str, ip: str, found: str
) -> None:
    assert Address("dns:///a.b:8001", metrics=metrics).at(ip).metrics_url == found
