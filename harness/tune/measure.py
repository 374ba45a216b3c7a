"""One figure of one setting, without LoadGen: `python -m harness.tune.measure JOB.json`.

Prints a number, less is better: the 90th percentile of a query's seconds in SingleStream and MultiStream,
seconds per sample in Offline, and in Server the 99th percentile at the job's target rate.
"""

import logging
import sys
from pathlib import Path

from harness.machine import command
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.calibration import Calibrator, Stopwatch
from harness.run.worker.endpoints import connected
from harness.run.worker.job import Job, read_job

_SAMPLES = 64
_PERCENTILE = 0.9
_SERVER_SECONDS = 12.0
"""A few bad moments are the whole tail of a shorter time."""


def measure(job: Job) -> float:
    """Ask the server as the job's scenario does, for a few seconds.

    Raises:
        HarnessError: a request failed.
    """
    with connected(job) as session:
        indices = list(range(min(_SAMPLES, job.plan.performance_sample_count, len(session.samples))))
        session.library.load(indices)
        stopwatch = Stopwatch()
        calibrator = Calibrator(session.sut(stopwatch.complete), stopwatch, indices)
        calibrator.warm_up(min(job.client_batch * job.in_flight, len(indices)))
        scenario = job.plan.scenario
        if scenario == Scenario.OFFLINE:
            return 1 / calibrator.throughput(job.client_batch * job.in_flight)
        if scenario == Scenario.SERVER:
            return calibrator.tail_latency_ns(job.plan.target_qps, _SERVER_SECONDS) / 1e9
        latencies = calibrator.latencies(
            job.plan.samples_per_query if scenario == Scenario.MULTI_STREAM else 1
        )
        return latencies[int(len(latencies) * _PERCENTILE)] / 1e9


def main() -> int:
    """Measure the job named on the command line; return the exit code."""

    def body() -> None:
        sys.stdout.write(f"{measure(read_job(Path(sys.argv[1])))}\n")

    return command.run(body, level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
