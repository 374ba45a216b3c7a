"""The command line, all of it, on a model that computes nothing, so that a test of it takes a second.

`python -m tests.integration.null_harness ENTRY TIMEOUT_S [OPTION ...]`: the entry is ready instead of
converted, it keeps the settings of its file, and a request counts as lost after TIMEOUT_S.
"""

import dataclasses
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from harness import cli
from harness.bench.null import entry
from harness.machine import paths
from harness.run import runner, serving
from harness.run.preparation import Prepared
from harness.run.worker.job import Job

PREPARED = "prepared.pickle"
IN_FLIGHT = 32
"""What the entry is set up for; no scenario has more samples in one request."""


def add_null_entry(
    repository: Path, *, side_px: int = 1, change: Callable[[str], str] = lambda config: config
) -> Path:
    """Add the entry, with its config.pbtxt changed; its folder."""
    ready = entry.write_entry(
        repository, "null_model", side_px=side_px, in_flight=IN_FLIGHT, transport="auto"
    )
    config = ready.entry_dir / "config.pbtxt"
    config.write_text(change(config.read_text()))
    (ready.entry_dir / PREPARED).write_bytes(pickle.dumps(ready))
    return ready.entry_dir


def main(entry_dir: Path, timeout_s: float, words: Sequence[str]) -> int:
    ready: Prepared = pickle.loads((entry_dir / PREPARED).read_bytes())
    text = (entry_dir / "config.pbtxt").read_text()
    job_of = runner.job_of

    def job_with_timeout(*arguments: object) -> Job:
        return dataclasses.replace(job_of(*arguments), timeout_s=timeout_s)

    paths.MODEL_REPOSITORY = entry_dir.parent
    runner.prepare = lambda config: dataclasses.replace(ready, config=config)
    serving.model_config = lambda *_: text_format.Parse(text, model_config_pb2.ModelConfig())
    runner.job_of = job_with_timeout
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
