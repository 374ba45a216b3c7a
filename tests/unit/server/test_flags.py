"""Flags by Triton's version: what is younger than a server keeps it from starting."""

import pytest

from harness.server.flags import KEY_HEADER, control_flags, flags, hidden_control_flags, parse_version


@pytest.mark.parametrize(
    ("version", "has_threads", "has_shm"),
    [
        ((2, 51), False, False),  # 24.10, the embedded one
        ((2, 55), False, False),  # 25.02, the last with TensorFlow
        ((2, 56), False, False),  # 25.03
        ((2, 57), True, False),  # 25.04: --grpc-infer-thread-count is there
        ((2, 67), True, False),  # 26.03
        ((2, 68), True, True),  # 26.04: client shared memory is off unless asked for
        ((3, 0), True, True),
    ],
)
def test_a_flag_is_given_to_the_releases_that_have_it(
    version: tuple[int, int], has_threads: bool, has_shm: bool
) -> None:
    names = [flag.split("=")[0] for flag in flags(version, 2)]
    assert ("--grpc-infer-thread-count" in names) == has_threads
    assert ("--allow-client-shm" in names) == has_shm
    assert "--model-control-mode" in names


@pytest.mark.parametrize(("cpus", "threads"), [(1, 2), (32, 2), (64, 4), (512, 8)])
def test_grpc_gets_tritons_own_two_threads_and_more_on_large_machines(cpus: int, threads: int) -> None:
    assert f"--grpc-infer-thread-count={threads}" in flags((2, 57), cpus)


def test_the_key_is_asked_for_in_the_same_header_by_both_protocols() -> None:
    # Triton asks for triton-grpc-protocol-NAME in gRPC and for NAME in HTTP.
    grpc, http = control_flags("secret")
    assert grpc.startswith("--grpc-restricted-protocol=")
    assert grpc.endswith(":control=secret")
    assert http.startswith("--http-restricted-api=")
    assert http.endswith(":triton-grpc-protocol-control=secret")
    assert KEY_HEADER == "triton-grpc-protocol-control"
    shown = " ".join(hidden_control_flags("secret"))
    assert "secret" not in shown


def test_what_a_config_omits_is_filled_in_only_if_asked_for() -> None:
    left_out = set(flags((2, 55), 2)) - set(flags((2, 55), 2, auto_complete=True))
    assert left_out == {"--disable-auto-complete-config"}


@pytest.mark.parametrize(
    ("text", "version"), [("2.55.0", (2, 55)), ("2.68.0\n", (2, 68)), ("2.69.0dev", (2, 69))]
)
def test_a_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "2", "25.x", "latest"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version of Triton"):
        parse_version(text)
