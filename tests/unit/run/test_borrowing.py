"""What is done at somebody else's server to leave it as it was found, by a made-up one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ServerError
from harness.machine import paths
from harness.models import MODELS
from harness.models.model_config import ServerSettings
from harness.models.platforms import Platform
from harness.run.borrowing import borrowed, places, segment_prefix
from harness.run.serving import ModelLoader
from harness.triton.address import Address

URL = "192.0.2.1:8001"
FOUND = {"name": "prod", "max_batch_size": 16, "instance_group": [{"count": 2}]}
OURS = json.dumps({"name": "prod", "max_batch_size": 1, "instance_group": [{"count": 1}]})


class FakeClient:
    """A server with one model, or none; it forgets nothing of what it was told."""

    url, server = URL, Address(URL)

    def __init__(self, config: dict[str, Any] | None) -> None:
        self.config = config
        self.regions: list[str] = []
        self.is_open = True
        self.told: list[str] = []

    def is_model_ready(self, _entry: str) -> bool:
        return self.config is not None

    def model_config(self, _entry: str) -> dict[str, Any]:
        assert self.config is not None
        return dict(self.config)

    def load(self, entry: str, config_json: str | None) -> None:
        if not self.is_open:
            raise ServerError(f"cannot load {entry}: explicit model load / unload is not allowed")
        self.told.append(f"load {config_json}")
        self.config = json.loads(config_json) if config_json else dict(FOUND)

    def unload(self, entry: str) -> None:
        self.told.append(f"unload {entry}")
        self.config = None

    def ready_models(self) -> list[str]:
        return ["a", "b"]

    def shared_memory_regions(self) -> list[str]:
        return list(self.regions)

    def unregister_shared_memory(self, name: str) -> None:
        self.regions.remove(name)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "STATE_DIR", tmp_path)
    monkeypatch.setattr("harness.run.borrowing.is_on_this_host", lambda _url: False)
    return tmp_path


@pytest.fixture
def journals(state: Path) -> Iterator[list[Path]]:
    """Those that are left when a test ends; filled in by `killed`."""
    yield []
    assert list((state / "borrowed").iterdir()) == []


def killed(client: FakeClient, state: Path, config_json: str | None = OURS) -> None:
    """A run that changes the model, and is gone before it could put anything back."""
    with borrowed(client, "prod/3") as loan:
        ModelLoader(client, "prod/3", loan).load(config_json)
        (file,) = (state / "borrowed").glob("*.json")
        left, config = file.read_text(), client.config
    file.write_text(left)
    client.config = config
    client.told.clear()


@pytest.mark.usefixtures("journals")
def test_a_changed_model_gets_the_configuration_that_it_was_found_with() -> None:
    client = FakeClient(FOUND)
    with borrowed(client, "prod/3") as loan:
        assert loan.before == FOUND
        assert ModelLoader(client, "prod/3", loan).load(OURS)
        assert client.config == json.loads(OURS)
    assert client.config == FOUND


@pytest.mark.usefixtures("journals")
def test_a_model_that_nobody_changed_is_left_alone() -> None:
    client = FakeClient(FOUND)
    with borrowed(client, "prod"):
        pass
    client.is_open = False
    with borrowed(client, "prod") as loan:
        assert not ModelLoader(client, "prod", loan).load(OURS)
    assert client.told == []


@pytest.mark.usefixtures("journals")
def test_a_model_that_is_not_there_and_cannot_be_loaded_leaves_nothing_to_put_back() -> None:
    client = FakeClient(None)
    client.is_open = False
    with (
        pytest.raises(
            ServerError,
            match="has no prod, it serves a, b: copy the folder model_repository/prod into",
        ),
        borrowed(client, "prod") as loan,
    ):
        ModelLoader(client, "prod", loan).load(OURS)
    assert client.told == []


@pytest.mark.usefixtures("journals")
def test_of_a_model_that_was_not_converted_here_there_is_no_folder_to_copy() -> None:
    client = FakeClient(None)
    client.is_open = False
    variant = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
    with pytest.raises(ServerError) as caught, borrowed(client, "prod") as loan:
        ModelLoader(client, "prod", loan).set_up("keep", variant, ServerSettings(), is_own=False)
    assert str(caught.value).endswith("it serves a, b: say with --served-name what it is called")


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize(("is_file_of_theirs", "limit"), [(True, 16), (False, 64)])
def test_a_model_that_was_not_loaded_keeps_the_batch_limit_of_its_file(
    is_file_of_theirs: bool, limit: int
) -> None:
    client = FakeClient(None)
    variant = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
    with borrowed(client, "prod") as loan:
        loader = ModelLoader(client, "prod", loan, has_our_files=not is_file_of_theirs)
        assert loader.set_up(None, variant, ServerSettings(max_batch_size=64), is_own=True) == ""
        assert client.model_config("prod")["max_batch_size"] == limit
    assert client.config is None


@pytest.mark.usefixtures("journals")
def test_a_file_that_cannot_be_served_may_still_be_with_our_settings() -> None:
    client = FakeClient(None)
    load = client.load

    def ours_only(entry: str, config_json: str | None) -> None:
        if config_json is None:
            raise ServerError("must specify 'platform' or 'backend'")
        load(entry, config_json)

    client.load = ours_only  # type: ignore[method-assign]
    variant = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
    with borrowed(client, "prod") as loan:
        ModelLoader(client, "prod", loan).set_up(None, variant, ServerSettings(), is_own=True)
        assert client.model_config("prod")["backend"] == "onnxruntime"
    assert client.config is None


@pytest.mark.usefixtures("journals")
def test_a_model_that_was_not_loaded_is_unloaded() -> None:
    client = FakeClient(None)
    with borrowed(client, "prod") as loan:
        ModelLoader(client, "prod", loan).load(None)
    assert client.told == ["load None", "unload prod"]


@pytest.mark.usefixtures("journals")
def test_what_comes_back_differently_is_told(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient(FOUND)
    with borrowed(client, "prod") as loan:
        ModelLoader(client, "prod", loan).load(OURS)
        client.model_config = lambda _entry: {**FOUND, "max_batch_size": 8}  # type: ignore[method-assign]
    assert "is not as it was: max_batch_size is 8" in caplog.text


def test_a_server_that_is_gone_is_told_and_seen_to_by_the_next_run(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient(FOUND)
    with borrowed(client, "prod") as loan:
        ModelLoader(client, "prod", loan).load(OURS)
        client.is_open = False
    assert "prod is not put back as it was found" in caplog.text
    client.is_open = True
    with borrowed(client, "prod") as loan:
        assert loan.before == FOUND
    assert list((state / "borrowed").iterdir()) == []


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize("found", [FOUND, None])
def test_what_a_killed_run_left_is_put_right_before_the_next_one_looks(
    state: Path, found: dict[str, Any] | None
) -> None:
    client = FakeClient(found)
    killed(client, state)
    client.regions = [f"{segment_prefix()}1", "mlperf-samples-1-of-others"]
    with borrowed(client, "another"):
        assert client.config == found
        assert client.regions == ["mlperf-samples-1-of-others"]


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize(
    ("now", "sent"),
    [({**FOUND, "max_batch_size": 4}, OURS), (None, OURS), (FOUND, None)],
    ids=["changed by others", "unloaded by others", "loaded by its file, as others may have since"],
)
def test_what_others_have_done_since_is_left_to_them(
    state: Path, now: dict[str, Any] | None, sent: str | None
) -> None:
    client = FakeClient(None if sent is None else FOUND)
    killed(client, state, sent)
    client.config = now
    with borrowed(client, "another"):
        assert client.told == []
        assert client.config == now


def test_what_cannot_be_put_right_is_not_measured_as_if_it_were_the_servers_own(state: Path) -> None:
    client = FakeClient(FOUND)
    killed(client, state)
    client.is_open = False
    with (
        pytest.raises(ServerError, match=r"prod on .* is as a run that was killed has left it"),
        borrowed(client, "prod"),
    ):
        pass
    client.is_open = True
    with borrowed(client, "prod") as loan:
        assert loan.before == FOUND


@pytest.mark.usefixtures("journals")
def test_a_damaged_journal_is_left_out(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient(FOUND)
    killed(client, state)
    (file,) = (state / "borrowed").glob("*.json")
    file.write_text("{")
    with borrowed(client, "prod") as loan:
        assert loan.before == json.loads(OURS)
    assert "is damaged" in caplog.text


def test_servers_of_one_port_on_this_machine_have_places_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far, near, other = (Address(url) for url in ("far:8001", "127.0.0.1:8001", "10.0.0.2:8001"))
    monkeypatch.setattr("harness.run.borrowing.is_on_this_host", lambda server: server != far)
    # One alone may be known by several addresses.
    assert places([near, far]) == ["port-8001", "far%3A8001"]
    assert places([other]) == ["port-8001"]
    # Elsewhere, however it is spelled, as a tunnel's end is.
    monkeypatch.setattr("harness.run.borrowing.is_on_this_host", lambda _: False)
    spelled = [
        Address(url) for url in ("localhost:8001", "127.0.0.1:8001", "[::1]:8001", "grpcs://localhost:8001")
    ]
    assert {place for server in spelled for place in places([server])} == {"loopback-8001"}
    assert places([Address("grpcs://10.0.0.2:443")]) == ["grpcs%3A%2F%2F10.0.0.2%3A443"]
    assert places([Address("dns:///10.0.0.2:8001")]) == places([other]) == ["10.0.0.2%3A8001"]
    monkeypatch.setattr("harness.run.borrowing.is_on_this_host", lambda server: server != far)
    assert places([near, far, other]) == ["127.0.0.1%3A8001", "far%3A8001", "10.0.0.2%3A8001"]
