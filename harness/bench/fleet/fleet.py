"""All that `python -m harness.bench --fleet` measures, one after the other."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from harness.bench.fleet import check, curve, paper, report
from harness.bench.fleet.curve import Fleet
from harness.bench.fleet.report import Measurements
from harness.bench.session import address, own_servers
from harness.triton.client import TritonClient

logger = logging.getLogger(__name__)

FORECAST_SECONDS = 6
"""How many times as long as a measurement a run is that a forecast is held against: p99 is of few queries."""


def measure(counts: Sequence[int], rounds: int, seconds: float, folder: Path) -> None:
    """Measure the curve, the costs and the forecasts; print them, and write them into the folder.

    Args:
        counts: of servers, and of client processes.
        rounds: of the curve and the costs.
        seconds: of each run.
        folder: for everything.

    Raises:
        HarnessError: a server or a run failed.
    """
    with own_servers(max(counts)) as infos, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TritonClient(address(info))) for info in infos]
        # What each worker says of its calibration would drown what is measured here.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("harness.bench").setLevel(logging.INFO)
        fleet = Fleet(infos, clients, folder)
        points = curve.measure(fleet, counts, rounds, seconds)
        costs = paper.measure(fleet, rounds, seconds)
        service, checked = check.check(fleet, counts, FORECAST_SECONDS * seconds)
    found = Measurements(points, costs, service, checked)
    file = folder / "fleet.json"
    report.write(found, file)
    report.show(found, file)
