"""One LoadGen test of an entry, in the worker's own process."""

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from harness.machine.processes import start_module
from harness.models.spec import ModelSpec
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario, rules
from harness.run.worker.job import Job, Outcome, read_outcome
from harness.server import lifecycle
from harness.triton.address import Address
from tests.plans import any_job, any_plan


def plan_of(spec: ModelSpec, scenario: Scenario, mode: Mode, **settings: object) -> Plan:
    """A plan with any seeds, and a bound that no answer exceeds."""
    samples_per_query = rules("v6.1", spec, scenario).samples_per_query
    return any_plan(
        scenario, mode=mode, samples_per_query=samples_per_query, server_target_latency_ns=10**9, **settings
    )


def job_of(
    info: lifecycle.ServerInfo,
    entry: Path,
    samples: Path,
    plan: Plan,
    log_dir: Path,
    *,
    transport: str = "auto",
    timeout_s: float = 60.0,
    processes: int = 1,
) -> Job:
    """A test at the rate of its plan, with 4 requests in flight."""
    return any_job(
        plan,
        servers=(Address(info.grpc_url),),
        processes=processes,
        entry=entry.name,
        entry_dir=str(entry),
        samples=str(samples),
        log_dir=str(log_dir),
        outcome=str(_outcome(log_dir)),
        transport=transport,
        segment=f"test-{os.getpid()}-{time.monotonic_ns()}",
        in_flight=4,
        timeout_s=timeout_s,
    )


def start_worker(
    info: lifecycle.ServerInfo, entry: Path, samples: Path, plan: Plan, log_dir: Path, **settings: Any
) -> subprocess.Popen[str]:
    """Start the test; `outcome_in` its existing `log_dir` reads how it ended."""
    job = job_of(info, entry, samples, plan, log_dir, **settings)
    job_file = log_dir / "job.json"
    job_file.write_text(json.dumps(dataclasses.asdict(job)))
    return start_module("harness.run.worker", str(job_file))


def outcome_in(log_dir: Path) -> Outcome:
    """What the worker reported."""
    return read_outcome(_outcome(log_dir))


def _outcome(log_dir: Path) -> Path:
    return log_dir / "outcome.json"
