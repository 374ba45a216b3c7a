"""What tritonserver is started with."""

import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

import pytest

from harness.errors import ConfigError, ServerError
from harness.server import launch

WHEEL = launch.Wheel(
    server=Path("/wheel/tritonserver"),
    libraries=Path("/wheel/libs"),
    python_backend=(Path("/wheel/libtriton_python.so"), Path("/wheel/utils.py"), Path("/wheel/stub")),
)


def test_the_stub_finds_this_interpreters_packages_and_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/users/own")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    env = launch.environment(WHEEL)
    assert env["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert env["LD_LIBRARY_PATH"] == f"/wheel/libs:{sysconfig.get_config_var('LIBDIR')}:/users/own"
    assert "PYTHONPATH" not in env


def distribution(folder: Path, name: str, *requires: str) -> None:
    """As pip leaves it."""
    place = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    place.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    (place / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("installed", "able"),
    [
        # requirements.lock where pip finds PyTorch's CPU build, and where it takes PyPI's.
        ({"torch": (), "tensorflow-cpu": (), "onnxruntime": ()}, set()),
        (
            {"torch": ("nvidia-cudnn-cu13==9.1",), "nvidia-cudnn-cu13": (), "tensorflow-cpu": ()},
            {"pytorch"},
        ),
        (
            {"torch": (), "tensorflow": (), "nvidia-cudnn-cu12": (), "onnxruntime-gpu": ()},
            {"tensorflow", "onnxruntime"},
        ),
    ],
)
def test_a_framework_has_gpus_in_a_build_for_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, tuple[str, ...]], able: set[str]
) -> None:
    for name, requires in installed.items():
        distribution(tmp_path, name, *requires)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert launch.gpu_backends.__wrapped__() == able


def test_gpus_are_hidden_from_a_server_of_which_no_framework_can_use_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for able, hidden in ((frozenset(), "-1"), (frozenset({"pytorch"}), None)):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(launch, "gpu_backends", lambda able=able: able)
        assert launch.environment(WHEEL).get("CUDA_VISIBLE_DEVICES") == hidden


def test_a_missing_libpython_is_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    # What the dynamic linker of glibc prints, and its exit status.
    stub.write_text(
        "#!/bin/sh\n"
        "echo 'stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open' >&2\n"
        "exit 127\n"
    )
    stub.chmod(0o755)
    wheel = launch.Wheel(WHEEL.server, WHEEL.libraries, (stub,))
    with pytest.raises(ServerError) as failure:
        launch.check_python(wheel, dict(os.environ))
    message = str(failure.value)
    assert "(shared libraries: libpython3.11.so.1.0: cannot open)" in message
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install libpython{version}" in message
    assert "\n" not in message


def test_the_installed_wheel_is_complete_and_its_stub_starts() -> None:
    wheel = launch.find_wheel()
    assert wheel.server.is_file()
    assert wheel.libraries.is_dir()
    assert all(file.is_file() for file in wheel.python_backend)
    launch.check_python(wheel, launch.environment(wheel))


def test_the_backend_directory_holds_ours_beside_the_python_backend(tmp_path: Path) -> None:
    folder = tmp_path / "backends"
    (folder / "stale").mkdir(parents=True)
    launch.assemble_backends(folder, launch.find_wheel())
    assert {path.name for path in folder.iterdir()} == {
        "batching.py", "onnxruntime", "openvino", "python", "pytorch", "tensorflow", "tflite",
    }  # fmt: skip
    assert (folder / "onnxruntime" / "model.py").is_file()
    library = folder / "python" / "libtriton_python.so"
    assert library.is_file()
    assert not library.is_symlink()


def test_the_backend_directory_can_be_written_and_removed_where_the_checkout_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(launch.BACKENDS_DIR, checkout)
    for path in (*checkout.rglob("*"), checkout):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(launch, "BACKENDS_DIR", checkout)
    launch.assemble_backends(tmp_path / "backends", launch.find_wheel())
    # Not by whether it works: root, whom this test may be, can write everything.
    places = [tmp_path / "backends", *(tmp_path / "backends").rglob("*")]
    assert all(place.stat().st_mode & 0o200 for place in places)
    for path in (checkout, *checkout.rglob("*")):
        path.chmod(0o755)


def listen() -> socket.socket:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder


def test_a_taken_port_that_was_asked_for_is_refused_with_its_option() -> None:
    with listen() as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {taken} .* taken; choose another with --metrics-port"):
            launch.choose_ports("127.0.0.1", (0, 0, taken))


def test_two_ports_that_are_one_are_told_with_their_options() -> None:
    with pytest.raises(ConfigError, match=r"^--http-port and --metrics-port are both 9000: give each"):
        launch.choose_ports("127.0.0.1", (9000, 0, 9000))


def test_a_default_is_not_chosen_that_was_asked_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen() as holder:
        port = holder.getsockname()[1]
    monkeypatch.setattr(launch, "DEFAULT_PORTS", (port, 0, 0))
    http, grpc, _ = launch.choose_ports("127.0.0.1", (0, port, 0))
    assert grpc == port != http


def test_a_privileged_port_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        """As bind(2) is where one is not root, which a test may be."""

        def bind(self, address: tuple[str, int]) -> None:
            if address[1]:
                raise PermissionError(13, "Permission denied")
            super().bind(address)

    monkeypatch.setattr(launch.socket, "socket", Refused)
    with pytest.raises(ServerError, match=r"^port 80 on 127\.0\.0\.1 is privileged, and you are not root;"):
        launch.choose_ports("127.0.0.1", (80, 0, 0))


def test_a_default_that_is_taken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen() as holder, listen() as other:
        taken, free = holder.getsockname()[1], other.getsockname()[1]
        other.close()
        monkeypatch.setattr(launch, "DEFAULT_PORTS", (taken, free, taken))
        http, grpc, metrics = launch.choose_ports("127.0.0.1", None)
    assert grpc == free
    assert taken not in (http, metrics)
    assert len({http, grpc, metrics}) == 3


def test_a_port_that_was_asked_for_is_used() -> None:
    with listen() as holder:
        wanted = holder.getsockname()[1]
    http, grpc, metrics = launch.choose_ports("127.0.0.1", (0, wanted, 0))
    assert grpc == wanted
    assert wanted not in (http, metrics)


def test_the_command_line_has_no_path_that_a_shell_would_split() -> None:
    command = launch.command(WHEEL, "127.0.0.1", (1, 2, 3), "prefix_", auto_complete=False)
    assert "--model-repository=repository" in command
    assert "--backend-directory=backends" in command
    assert "--grpc-port=2" in command
    assert "--disable-auto-complete-config" in command
    assert "--backend-config=python,shm-region-prefix-name=prefix_" in command
    completing = launch.command(WHEEL, "127.0.0.1", (1, 2, 3), "prefix_", auto_complete=True)
    assert set(command) - set(completing) == {"--disable-auto-complete-config"}
