"""What a server is known by."""

import socket
from dataclasses import replace

import pytest

from harness.machine import environment
from harness.run.config.measured.fingerprint import THIS_MACHINE, Fingerprint, fingerprint, gpus_in
from harness.triton.address import Address

# As Triton writes them.
METRICS = """# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-11111111-1111-1111-1111-111111111111"} 25757220864
nv_gpu_memory_total_bytes{gpu_uuid="GPU-22222222-2222-2222-2222-222222222222"} 25757220864
nv_gpu_utilization{gpu_uuid="GPU-11111111-1111-1111-1111-111111111111"} 0
"""
OWN = Fingerprint(THIS_MACHINE, gpus="", cpu=environment.cpu_name(), cores=2, triton="2.51")


def test_a_server_of_our_own_is_known_before_it_runs() -> None:
    assert fingerprint(None, "auto", 2, is_cpu_only=False) == OWN


@pytest.mark.parametrize(("device", "gpus"), [("gpu", "not told"), ("cpu", "")])
def test_the_device_that_is_asked_for_counts(device: str, gpus: str) -> None:
    assert fingerprint(None, device, 2, is_cpu_only=False) == replace(OWN, gpus=gpus)


def test_a_server_that_does_not_answer_is_not_taken_for_one_that_was_measured() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert fingerprint(Address(url), "auto", 2, is_cpu_only=False).triton == ""


@pytest.mark.parametrize(
    ("metrics", "gpus"),
    [
        (METRICS, "2 of 24 GiB"),
        (METRICS.replace("25757220864", "85520809984", 1), "2 of 24 GiB, 80 GiB"),
        ("nv_cpu_utilization 0.5\n", ""),
        ("<html>", ""),
    ],
)
def test_gpus_are_counted_in_the_metrics(metrics: str, gpus: str) -> None:
    assert gpus_in(metrics) == gpus
