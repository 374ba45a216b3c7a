"""The search for the best settings as a user runs it: a real model, a real server, the shortest scenario."""

import json
import subprocess
from pathlib import Path

import pytest

from harness.machine.environment import cpu_count
from harness.run.config.measured import table as tables
from harness.run.config.measured.fingerprint import THIS_MACHINE, Fingerprint
from harness.run.config.measured.table import Choice, Measured
from tests.integration.command import run_command


def run_tune(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command("harness.tune", *arguments)


def test_the_best_of_the_candidates_is_printed_and_put_into_a_table_beside_what_was_there(
    tmp_path: Path,
) -> None:
    table = tmp_path / "tables" / "measured.json"
    elsewhere = Fingerprint("triton.lab:8001", "", "", 0, "2.55")
    other = Measured("resnet50", "tflite", "Offline", elsewhere, Choice(3, 8), 0.1, 0.05, "2026-11-27", "7")
    tables.add(table, other)
    ended = run_tune(
        *("--model", "mobilenet", "--platform", "onnxruntime", "--scenario", "SingleStream"),
        *("--table", table),
    )
    assert ended.returncode == 0, ended.stderr
    found, kept = tables.read(table)
    assert kept == other
    assert (found.model, found.platform, found.scenario) == ("mobilenet", "onnxruntime", "SingleStream")
    server = found.server
    assert (server.where, server.gpus, server.cores, server.triton) == (THIS_MACHINE, "", cpu_count(), "2.51")
    assert server.cpu
    assert found.noise >= 0.05
    assert (found.choice.instances, found.choice.client_batch) == (1, 1)
    (line,) = ended.stdout.splitlines()
    assert line.startswith("mobilenet onnxruntime SingleStream: 1 instance, batch 1")
    assert line.endswith(found.figure)
    figures = [float(text.split()[-1]) for text in found.figure.split(" ms")[:-1]]
    assert len(figures) == (2 if cpu_count() > 1 else 1)
    assert all(0 < figure < 60_000 for figure in figures)
    # A line that runs read.
    assert json.loads(table.read_text())[0]["choice"]["parameters"] == dict(found.choice.parameters)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "resnet51"), "unknown model 'resnet51'"),
        (("--scenario", "Offlin"), "did you mean Offline"),
        (("--device", "tpu"), "--device 'tpu' is unknown"),
        (("--url", "127.0.0.1:1,127.0.0.1:2"), "one server is tuned at a time"),
        (("--table", ""), "--table '' is not a file to write to"),
        (("--table", "/dev/null/table.json"), "cannot write --table /dev/null/table.json"),
        (("--platforms", "tflite"), "unrecognized arguments: --platforms"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    ended = run_tune(*arguments)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
