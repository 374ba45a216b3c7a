"""What a run is asked to do: resolved once (`harness.run.config.resolution`), and never changed later."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.models import get_model
from harness.models.manifest import OFFICIAL, SEEDED
from harness.models.platforms import Platform
from harness.models.recipes import RECIPES
from harness.models.spec import Layout, ModelSpec, Nms, Precision
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.user_conf import UserConf

SYNTHETIC = "synthetic"
AUTO = "auto"
COCO = "coco"
"""In whatever size the model takes."""
DATASETS = (AUTO, *RECIPES, COCO, SYNTHETIC)
TRANSPORTS = (AUTO, "shm", "grpc")


class RunMode(StrEnum):
    """What to measure in each scenario."""

    PERFORMANCE = "Performance"
    ACCURACY = "Accuracy"
    SUBMISSION = "Submission"
    """Performance, then accuracy, as separate tests: LoadGen's own SubmissionRun mixes their logs."""
    FIND_PEAK = "FindPeakPerformance"


@dataclass(frozen=True)
class RunConfig:
    """The resolved request. None: not given, so that the model's or the round's own value holds."""

    model: str
    platform: Platform
    profile: str
    """The reference's word for model and platform; empty where none was given."""
    scenarios: tuple[Scenario, ...]
    mode: RunMode
    accuracy: bool
    dataset: str
    dataset_path: Path | None
    dataset_list: Path | None
    inputs: tuple[str, ...]
    """What the user expects the model's tensors to be; empty for no expectation."""
    outputs: tuple[str, ...]
    data_format: Layout | None
    count: int | None
    time_s: float | None
    qps: float | None
    max_latency_s: tuple[float, ...]
    """Server's bounds, each a run of its own; empty for the model's."""
    queries_single: int | None
    queries_multi: int | None
    """Of MultiStream, and of Server, as in the reference."""
    queries_offline: int | None
    samples_per_query: int | None
    performance_sample_count: int | None
    user_conf: UserConf
    max_batchsize: int | None
    threads: int | None
    device: str
    transport: str
    urls: tuple[str, ...]
    """gRPC addresses of servers; empty for the running one, or one of our own."""
    client_processes: int
    """How many processes send the requests; one sends them itself."""
    in_flight: int | None
    """Most requests under way at each server."""
    weights: str
    """`auto`, `seeded`, `official`, or the path of a user's own file."""
    nms: Nms | None
    precision: Precision
    save_images: int
    """How many pictures with their boxes to write; 0 for none."""
    output: Path
    output_file: Path | None
    """Of all scenarios together, beside the results folders in `output`."""
    cache: Path
    round: str
    is_official: bool
    """A round was asked for, so nothing may be shortened."""
    is_quick: bool
    """Only whether the answers are right is asked; too few queries for LoadGen's statistics."""
    debug: bool
    quiet: bool
    provenance: Mapping[str, str]
    """Where each value came from, by the option's name."""
    notes: tuple[str, ...] = ()
    """What was given and has no effect on this run, and why."""

    @property
    def spec(self) -> ModelSpec:
        """The model's declaration."""
        return get_model(self.model)

    @property
    def is_user_file(self) -> bool:
        """Whether the weights are a file of the user's own."""
        return self.weights not in (AUTO, SEEDED, OFFICIAL)

    def queries(self, scenario: Scenario) -> int | None:
        """The fewest queries (Offline: samples) that the user asked for in a scenario."""
        return {
            Scenario.SINGLE_STREAM: self.queries_single,
            Scenario.MULTI_STREAM: self.queries_multi,
            Scenario.SERVER: self.queries_multi,
            Scenario.OFFLINE: self.queries_offline,
        }[scenario]

    def to_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
