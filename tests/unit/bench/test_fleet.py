"""Several servers on paper: arrivals, waiting, who used the cores, and what is made of it."""

import dataclasses
import math

import numpy as np
import pytest

from harness.bench.fleet import check, paper
from harness.bench.fleet.check import Checked, Service
from harness.bench.fleet.cpu import Cores, CpuReading, used
from harness.bench.fleet.curve import Measured, Point, fitting
from harness.bench.fleet.forecast import (
    arrivals,
    forecast,
    highest_rate,
    latencies,
    main,
    round_seed,
)
from harness.bench.fleet.paper import Cost, Costs
from harness.bench.fleet.report import is_clearly_faster, verdicts
from harness.bench.options import resolve
from harness.bench.session import Ours
from harness.errors import ConfigError
from harness.triton.rpc import Rpc

SEED = round_seed()


def test_arrivals_are_poisson_and_the_same_every_time() -> None:
    times = arrivals(1000.0, 60.0, SEED)
    gaps = np.diff(times)
    assert times[0] == 0
    assert times[-1] < 60
    assert len(times) == pytest.approx(60_000, rel=0.02)
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(1e-3, rel=0.02)
    assert (arrivals(1000.0, 60.0, SEED) == times).all()
    # At another rate, the same course at another pace.
    assert np.allclose(arrivals(500.0, 120.0, SEED)[:50_000], 2 * times[:50_000])


def test_one_server_waits_as_the_formula_of_pollaczek_and_khinchine_has_it() -> None:
    # M/D/1: the mean wait is load * service / (2 * (1 - load)).
    load, service_s = 0.6, 0.01
    found = latencies(arrivals(load / service_s, 3600.0, SEED), 1, service_s)
    assert found.mean() - service_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.05)
    assert found.min() == pytest.approx(service_s)


def test_a_query_goes_to_the_server_with_the_fewest_under_way_and_at_a_tie_in_turns() -> None:
    # The third waits behind the first, which is done first; the fourth behind the second.
    at = np.array([0.0, 0.1, 0.2, 0.3, 5.0])
    assert latencies(at, 2, 1.0) == pytest.approx([1.0, 1.0, 1.8, 1.8, 1.0])
    assert latencies(at, 4, 1.0, 0.25) == pytest.approx([1.25] * 5)


def test_more_servers_wait_less_at_the_same_load() -> None:
    p99 = [forecast(n, 70.0 * n, 0.01, 0.001, seconds=300, seed=SEED).p99_ms for n in (1, 2, 4)]
    assert p99 == sorted(p99, reverse=True)


def test_the_highest_rate_keeps_the_bound_and_a_higher_one_does_not() -> None:
    best = highest_rate(2, 0.03, 0.01, 0.001, seconds=120, seed=SEED)
    assert best is not None
    assert best.p99_ms <= 30
    assert 0.5 < best.busy < 1
    assert forecast(2, best.rate * 1.05, 0.01, 0.001, seconds=120, seed=SEED).p99_ms > 30
    assert highest_rate(2, 0.005, 0.01, 0.0, seconds=120, seed=SEED) is None


def test_the_forecast_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--servers", "2", "--service-ms", "10", "--overhead-ms", "1", "--time", "60"]
    assert main([*words, "--rate", "140"]) == 0
    assert capsys.readouterr().out.startswith("2 servers at 140.0 queries/s, 70.0% busy: p50 1")
    assert main([*words, "--bound-ms", "30"]) == 0
    assert "2 servers at 1" in capsys.readouterr().out
    for wrong in ([], ["--rate", "1", "--bound-ms", "1"], ["--rate", "-1"], ["--bound-ms", "5"]):
        assert main([*words, *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --")


def test_who_used_the_cores_is_told_of_the_time_in_which_the_test_ran() -> None:
    # From the third second on; others take half a core all the time.
    readings = [
        CpuReading(100.0 + s, 0.9 * max(0, s - 3), 0.5 * max(0, s - 3), 0.5 * s + 1.4 * max(0, s - 3))
        for s in range(20)
    ]
    found = used(readings, began_s=103.0, seconds=10.0, cores=2)
    assert found is not None
    assert dataclasses.astuple(found) == pytest.approx((0.9, 0.5, 0.5, 0.1))
    assert used(readings, began_s=103.0, seconds=1.0, cores=2) is None


def test_each_process_asks_one_server_and_every_server_gets_as_many() -> None:
    assert fitting((1, 2, 4), (1, 2, 4)) == [
        *((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 4))
    ]
    assert fitting((3,), (1, 2, 3, 6)) == [(3, 1), (3, 3), (3, 6)]


def point(servers: int, processes: int, rate: float, idle: float = 0.02, rpc: Rpc = Rpc.OWN) -> Point:
    ours = Ours(rate, 1.0, 1.0, 1.0, 50.0, 0, None, "", (600, 400))
    return Point(servers, processes, rpc, (Measured(ours, Cores(0.9, 1.0, 2 - 1.9 - idle, idle)),))


def test_several_servers_are_worth_it_or_the_cores_cannot_or_neither() -> None:
    points = [point(1, 1, 1000), point(4, 1, 3600), point(4, 4, 3000)]
    assert verdicts(points, 2) == [
        "4 servers answer 3.60 times as many queries as 1, wanted >= 3.50: met (client 0.90 + servers 1.00 "
        "+ others 0.08, idle 0.02 of 2 cores)",
        "client processes over connections of our own, in times what one answered (and of what one would "
        "carry on a core of its own, each on one): 4 with 4 servers 0.83 (3.33); more than one never paid on "
        "these cores",
    ]
    cannot, processes = verdicts([point(1, 1, 1000), point(1, 2, 1100), point(2, 1, 1010)], 2)
    assert (
        "2 servers answer 0.92 times as many queries as 1, wanted >= 1.75: these cores have no more" in cannot
    )
    assert "no more than 0.93 (client 0.90" in cannot
    assert processes.endswith("2 with 1 server 1.10 (2.20); more than one paid on these cores")
    (missed, _) = verdicts([point(1, 1, 1000), point(2, 1, 1010, idle=0.9)], 2)
    assert "wanted >= 1.75: MISSED (" in missed


def test_client_processes_are_judged_for_each_kind_of_channel() -> None:
    own = [point(1, 1, 1000), point(1, 2, 900), point(2, 1, 2000)]
    over_grpc = [
        point(1, 1, 300, rpc=Rpc.GRPC),
        point(1, 2, 450, rpc=Rpc.GRPC),
        point(2, 1, 9e9, rpc=Rpc.GRPC),
    ]
    servers, one, other = verdicts([*own, *over_grpc], 2)
    assert servers.startswith("2 servers answer 2.00 times as many queries as 1")
    assert one.endswith("2 with 1 server 0.90 (1.80); more than one never paid on these cores")
    assert other.startswith("client processes over gRPC's library, ")
    assert other.endswith("2 with 1 server 1.50 (3.00); more than one paid on these cores")


def test_what_rounds_of_one_setup_differ_by_is_no_gain() -> None:
    one, two = point(1, 1, 1000), point(1, 2, 1200)
    assert is_clearly_faster(two, one)
    slow_round = dataclasses.replace(two, runs=(*two.runs, *point(1, 2, 990).runs, *two.runs))
    assert slow_round.queries_per_s == 1200
    assert not is_clearly_faster(slow_round, one)


def test_that_others_worked_meanwhile_is_told() -> None:
    busy = dataclasses.replace(point(1, 1, 1000).runs[0], cores=Cores(0.2, 0.4, 1.4, 0.0))
    points = [Point(1, 1, Rpc.OWN, (busy,)), Point(1, 2, Rpc.OWN, (busy,))]
    assert points[0].per_core == pytest.approx(1000 / 0.6)
    *_, others = verdicts(points, 2)
    assert others.startswith("other programs took up to 1.40 of 2 cores")
    assert points[0].shares == (0.4, 0.6)


COSTS = Costs(
    tuple(Cost(f"{n}", 10 + 80 / n, 50.0) for n in (1, 2, 4, 8)),
    (Cost("shm", 100.0, 400.0), Cost("grpc", 250.0, None)),
)


def test_what_a_request_and_a_sample_cost_are_told_apart() -> None:
    assert paper.per_request_us(COSTS.by_batch) == pytest.approx(80)


def test_a_window_in_the_client_is_full_where_it_uses_all_of_a_core() -> None:
    rate = paper.most_with_window(80.0, 10.0)
    together = 1 + rate * 500e-6
    assert rate * (10 + 80 / together) == pytest.approx(1e6)
    assert rate > 1e6 / 90


def test_what_measured_costs_come_to_past_one_box() -> None:
    told = "\n".join(paper.lines(COSTS))
    assert "carries up to 11,111 of the smallest queries/s (90 us of CPU each), 10,000 images/s" in told
    assert "50,000 images/s in shared memory: 5.0 cores of clients, and 20.0 of Triton" in told
    assert "50,000 images/s in messages: 12.5 cores of clients\n" in told
    assert (
        "1: 90 (50), 2: 50 (50), 4: 30 (50), 8: 20 (50); of the client's, 80 are a request's and 10 a" in told
    )
    assert "a process carries 11,111 queries/s as they come, and 8" in told
    # 50,000 * 224 * 224 * 3 * 4 bytes * 8.
    assert "float32 241, float16 120, uint8 60" in told


def test_a_forecast_is_held_against_its_run() -> None:
    told = forecast(2, 140.0, 0.01, 0.001, seconds=60, seed=SEED)
    near = Checked(told, 1.0, 1.0, told.p99_ms / 1.1)
    far = Checked(told, 1.0, 1.0, told.p99_ms * 1.3)
    assert near.error == pytest.approx(0.1)
    assert (near.is_near, far.is_near) == (True, False)
    text = "\n".join(check.summary(Service(0.01, 0.001), [near, far]))
    assert "one server is occupied 10.00 ms by a query, which takes 1.00 ms more" in text
    assert "(+10.0%): met, wanted within 15%" in text
    assert "(-23.1%): MISSED" in text


def test_a_fleet_is_asked_for_as_a_list() -> None:
    assert resolve({"fleet": "4,1,2,1"}).fleet == (1, 2, 4)
    assert resolve({"fleet": "2", "quick": True}).seconds == 3
    assert resolve({}).fleet == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"fleet": ""}, "--fleet is empty"),
        ({"fleet": "two"}, "--fleet two is impossible"),
        ({"fleet": "99"}, "up to 16"),
        ({"fleet": "1,2", "null_only": True}, "takes no --null-only"),
        ({"fleet": "1,2", "soak": "30m"}, "takes no --soak"),
    ],
)
def test_another_fleet_is_refused(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve(given)


def test_the_seed_of_cpps_generator_is_read_as_it_reads_it() -> None:
    """The first interval by hand: std::mt19937(5489), whose 10,000th number the C++ standard names."""
    numbers = np.random.RandomState(5489).randint(0, 1 << 32, size=10_000, dtype=np.uint32)
    assert numbers[-1] == 4123659995  # [rand.predef]
    share = (numbers[0] + numbers[1] * 2.0**32) / 2.0**64
    assert arrivals(1.0, 1e4, 5489)[1] == pytest.approx(-math.log(1 - share))
