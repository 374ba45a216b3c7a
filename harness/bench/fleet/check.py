"""Forecasts against runs: a model that only waits, on one server and on several."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.fleet.curve import Fleet
from harness.bench.fleet.forecast import Forecast, forecast, round_seed
from harness.bench.null import entry
from harness.bench.session import Session
from harness.run.config import run_config
from harness.run.config.tuning import Tuning
from harness.run.mlperf.rounds import Scenario

logger = logging.getLogger(__name__)

DELAY_US = 50_000
"""Far above what client and Triton take for a query, and what a busy host takes from both."""
_LOAD = 0.7
"""Share of what the servers can answer that is asked for."""
_CALIBRATION_S = 5.0
_SERVER_IN_FLIGHT = 1024
_WITHIN = 0.15
"""By how much a forecast of p99 may be off."""


@dataclass(frozen=True)
class Service:
    """What one server was measured to take."""

    service_s: float
    """It is occupied so long by a query: by Offline's throughput."""
    overhead_s: float
    """What a query takes beyond that: by SingleStream's median."""


@dataclass(frozen=True)
class Checked:
    """A forecast, made before the run, and the run."""

    forecast: Forecast
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def error(self) -> float:
        """Of the forecast's p99, as a share of the measured one."""
        return self.forecast.p99_ms / self.p99_ms - 1

    @property
    def is_near(self) -> bool:
        """Whether it is near enough to plan with."""
        return abs(self.error) <= _WITHIN


def check(fleet: Fleet, counts: Sequence[int], seconds: float) -> tuple[Service, list[Checked]]:
    """Measure one server, forecast each number of servers, and run it.

    Raises:
        HarnessError: a run failed.
    """
    waiting = entry.write_entry(
        fleet.infos[0].repository,
        "null_waiting",
        side_px=1,
        in_flight=1,
        transport=run_config.AUTO,
        delay_us=DELAY_US,
    )
    everything = fleet.session(waiting, len(fleet.clients), "waiting")
    everything.load(_tuning(1), is_override=False)
    try:
        service = _measured(fleet.session(waiting, 1, "waiting-calibration"))
        found = []
        for servers in counts:
            rate = _LOAD * servers / service.service_s
            told = forecast(
                *(servers, rate, service.service_s, service.overhead_s), seconds=seconds, seed=round_seed()
            )
            session = fleet.session(waiting, servers, f"waiting-{servers}")
            run = session.ours(Scenario.SERVER, _tuning(_SERVER_IN_FLIGHT), seconds=seconds, rate=rate)
            found.append(Checked(told, run.p50_ms, run.p90_ms, run.p99_ms))
            logger.info("%d server(s): p99 %.2f ms, forecast %.2f", servers, run.p99_ms, told.p99_ms)
    finally:
        everything.close()
    return service, found


def _tuning(in_flight: int) -> Tuning:
    """As the entry is served, which joins no requests."""
    return Tuning(entry.tuning(1).server, client_batch=1, in_flight=in_flight)


def _measured(session: Session) -> Service:
    offline = session.ours(Scenario.OFFLINE, _tuning(4), seconds=_CALIBRATION_S)
    single = session.ours(Scenario.SINGLE_STREAM, _tuning(1), seconds=_CALIBRATION_S)
    service_s = 1 / offline.samples_per_s
    return Service(service_s, max(0.0, single.p50_ms / 1e3 - service_s))


def summary(service: Service, checked: Sequence[Checked]) -> list[str]:
    """What came of it, in lines."""
    middle = statistics.median(abs(one.error) for one in checked)
    return [
        f"one server is occupied {service.service_s * 1e3:.2f} ms by a query, which takes "
        f"{service.overhead_s * 1e3:.2f} ms more in client and Triton",
        *(
            f"{one.forecast.servers} server(s) at {one.forecast.rate:.1f} queries/s, {one.forecast.busy:.0%} "
            f"busy: p99 {one.p99_ms:.2f} ms, forecast {one.forecast.p99_ms:.2f} ({one.error:+.1%}): "
            f"{'met' if one.is_near else 'MISSED'}, wanted within {_WITHIN:.0%}"
            for one in checked
        ),
        f"the median forecast of p99 was off by {middle:.1%}",
    ]
