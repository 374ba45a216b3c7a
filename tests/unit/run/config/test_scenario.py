"""What a scenario's tests are made of, and where each figure comes from."""

import logging
from pathlib import Path

import pytest

from harness.run.config import scenario
from harness.run.config.measured import fingerprint
from harness.run.config.resolution import resolve
from harness.run.config.scenario import ScenarioPlan, Sourced, scenarios_of
from harness.run.config.tuning import GPU_RULE
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.triton.address import Address

MINIMAL = {"model": "resnet50", "platform": "onnxruntime"}
ALL = {**MINIMAL, "scenario": "Offline,Server,SingleStream"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "MODEL_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)


def planned(scenario: Scenario, **given: object) -> ScenarioPlan:
    (found,) = scenarios_of(resolve({**MINIMAL, "scenario": scenario.value, **given}))
    return found


def test_scenarios_are_run_in_the_order_asked_and_server_once_for_each_bound(tmp_path: Path) -> None:
    def found(**given: object) -> list[tuple[str, float | None]]:
        return [(test.scenario.value, test.bound_s) for test in scenarios_of(resolve({**ALL, **given}))]

    offline, single = ("Offline", None), ("SingleStream", None)
    assert found() == [offline, ("Server", None), single]
    assert found(max_latency="0.2,0.1") == [offline, ("Server", 0.2), ("Server", 0.1), single]
    conf = tmp_path / "user.conf"
    conf.write_text("*.*.target_latency = 50\n")
    assert found(user_conf=str(conf)) == [offline, ("Server", 0.05), single]
    assert found(user_conf=str(conf), max_latency="0.2") == [offline, ("Server", 0.2), single]


def test_what_nobody_asked_for_is_the_rounds() -> None:
    test = planned(Scenario.SERVER)
    assert test.duration == Sourced(600_000, "round v6.1")
    assert test.queries == Sourced(100, "round v6.1")
    assert test.samples_per_query == Sourced(1, "round v6.1")
    assert test.performance_samples == Sourced(1024, "model")
    assert test.bound == Sourced(15_000_000, "round v6.1")
    assert test.rate is None


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        (
            {"scenario": "Server", "time": "15", "qps": "5"},
            [
                "Server at 5 a second takes 168 s instead of 15: it has at least 838 queries "
                "(fewest that LoadGen can judge)"
            ],
        ),
        (
            {"scenario": "Offline", "qps": "20"},
            [
                "Offline at 20 a second takes 1229 s instead of 600: it has at least 24576 samples "
                "(round v6.1)"
            ],
        ),
        ({"scenario": "Server", "time": "15", "qps": "60"}, []),
        ({"scenario": "Server", "time": "15"}, []),
        ({"scenario": "Server", "count": "100", "qps": "5"}, []),
        ({"scenario": "Server", "time": "15", "qps": "5", "mode": "Accuracy"}, []),
        (
            {"scenario": "Server", "time": "15", "qps": "5", "mode": "FindPeakPerformance"},
            [
                "the first test of LoadGen's search at 5 a second takes 168 s instead of 15: it has at least "
                "838 queries (fewest that LoadGen can judge)"
            ],
        ),
    ],
)
def test_a_test_that_takes_longer_than_its_duration_is_noted(given: dict[str, str], notes: list[str]) -> None:
    assert list(resolve({**MINIMAL, **given}).notes) == notes


def test_a_plan_is_what_was_asked_for_within_the_data_set() -> None:
    test = planned(Scenario.SERVER, time="2.5", qps="20", max_latency="0.1", performance_sample_count="50")
    plan = test.plan(Mode.PERFORMANCE, sample_count=40)
    assert (plan.scenario, plan.mode) == (Scenario.SERVER, Mode.PERFORMANCE)
    # 838: two queries may be over the bound, and LoadGen is still sure.
    assert (plan.min_duration_ms, plan.min_query_count, plan.target_qps) == (2500, 838, 20.0)
    assert (plan.server_target_latency_ns, plan.performance_sample_count) == (100_000_000, 40)
    assert test.plan(Mode.PERFORMANCE, None).performance_sample_count == 50
    assert (plan.qsl_seed, plan.sample_index_seed, plan.schedule_seed) == (
        *(2085463073848966840, 2747215439041700203, 16159082839903944936),
    )


@pytest.mark.parametrize(
    ("given", "queries"),
    [
        # The reference's --count is a number of queries; a quick run asks every sample about once.
        ({"count": "20"}, 20),
        ({"count": "20", "quick": True}, 3),
        ({"count": "20", "quick": True, "samples_per_query": "4"}, 5),
        ({"count": "20", "time": "1"}, 662),
        ({"count": "20", "queries_multi": "7"}, 7),
    ],
)
def test_a_count_of_images_is_one_of_queries_unless_the_run_is_quick(
    given: dict[str, object], queries: int
) -> None:
    plan = planned(Scenario.MULTI_STREAM, **given).plan(Mode.PERFORMANCE, 20)
    assert plan.min_query_count == queries


@pytest.mark.parametrize(
    ("given", "is_here", "batch"),
    [({}, True, 65536), ({}, False, 3566), ({"transport": "grpc"}, True, 3566)],
)
def test_requests_that_travel_as_messages_have_no_more_samples_than_these_hold(
    given: dict[str, str], is_here: bool, batch: int, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(scenario, "is_on_this_host", lambda _: is_here)
    test = planned(Scenario.OFFLINE, max_batchsize="65536", device="gpu", **given)
    variant = test.config.spec.variants[test.config.platform]
    with caplog.at_level(logging.INFO):
        found = test.tuning(variant, [Address("127.0.0.1:1")])
    assert (found.client_batch, found.server.max_batch_size) == (batch, 65536)
    said = ["Offline: requests have up to 3566 samples, since messages hold 2 GiB"] * (batch == 3566)
    assert caplog.messages == said


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM])
def test_scenarios_that_wait_for_an_answer_have_no_rate(scenario: Scenario) -> None:
    test = planned(scenario, qps="20")
    assert test.rate is None
    assert test.plan(Mode.PERFORMANCE, None).target_qps == 1.0


OVERLOADED = {"qps": "100", "time": "10"}


@pytest.mark.parametrize(
    ("given", "ends_early"),
    [
        (OVERLOADED, True),
        ({"qps": "100"}, True),
        ({**OVERLOADED, "count": "20", "accuracy": True}, True),
        ({**OVERLOADED, "no_early_end": True}, False),
        # A rate that is looked for has tests of its own.
        ({"time": "10"}, False),
        # By the rules an ended test is none.
        ({"qps": "100", "round": "v6.1"}, False),
        ({"qps": "100", "mode": "Submission"}, False),
        # What is asked for are the answers to so few queries, which are never VALID.
        ({"qps": "100", "count": "20"}, False),
        ({"qps": "100", "count": "500", "quick": True}, False),
    ],
)
def test_an_overloaded_test_ends_early_unless_all_of_it_is_wanted(
    given: dict[str, object], ends_early: bool
) -> None:
    test = planned(Scenario.SERVER, **given)
    assert test.ends_early(test.plan(Mode.PERFORMANCE, None)) == ends_early
    assert not test.ends_early(test.plan(Mode.ACCURACY, None))


def test_other_scenarios_end_when_they_end() -> None:
    test = planned(Scenario.OFFLINE, **OVERLOADED)
    assert not test.ends_early(test.plan(Mode.PERFORMANCE, None))


@pytest.mark.parametrize(
    ("device", "gpus", "origin"),
    [("auto", "2 of 80 GiB", GPU_RULE), ("auto", "", "rule"), ("cpu", "2 of 80 GiB", "rule")],
)
def test_a_server_with_gpus_is_asked_before_its_machines_cores_are_counted(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: str, origin: str
) -> None:
    monkeypatch.setattr(fingerprint, "_told_by", lambda _: fingerprint._Told("2.55", gpus))
    for module in (scenario, fingerprint):
        monkeypatch.setattr(module, "is_on_this_host", lambda _: True)
    monkeypatch.setattr(scenario, "cpu_count", lambda: 16)
    # Of which nothing was measured with so many cores.
    test = planned(Scenario.OFFLINE, device=device)
    found = test.tuning(test.config.spec.variants[test.config.platform], [Address("127.0.0.1:1")])
    assert found.origin == origin
    assert found.server.instances == (1 if origin == GPU_RULE else 8)
    assert found.in_flight == (4 if origin == GPU_RULE else 16)


@pytest.mark.parametrize(
    ("asked", "able", "is_ours", "device"),
    [
        ("auto", {"pytorch"}, True, "cpu"),
        ("auto", {"onnxruntime"}, True, "auto"),
        # No framework has GPUs: they are hidden from the server.
        ("auto", set(), True, "auto"),
        ("gpu", {"pytorch"}, True, "gpu"),
        ("auto", {"pytorch"}, False, "auto"),
    ],
)
def test_a_framework_without_a_build_for_gpus_stays_on_the_cpus_of_a_server_of_ours(
    monkeypatch: pytest.MonkeyPatch, asked: str, able: set[str], is_ours: bool, device: str
) -> None:
    monkeypatch.setattr(scenario.launch, "gpu_backends", lambda: frozenset(able))
    monkeypatch.setattr(scenario.lifecycle, "at", lambda _url: object() if is_ours else None)
    test = planned(Scenario.OFFLINE, device=asked)
    assert test.config.platform == "onnxruntime"
    variant = test.config.spec.variants[test.config.platform]
    assert test.tuning(variant, [Address("127.0.0.1:1")]).server.device == device
    if is_ours:
        assert test.tuning(variant, []).server.device == device


def test_cores_are_counted_only_where_they_are_ours() -> None:
    test = planned(Scenario.SINGLE_STREAM)
    variant = test.config.spec.variants[test.config.platform]
    elsewhere = [Address("192.0.2.1:8001")]
    assert test.tuning(variant, elsewhere).server.threads == 0
    assert test.tuning(variant, []).server.threads >= 1
    asked = planned(Scenario.SINGLE_STREAM, threads="3", in_flight="7").tuning(variant, elsewhere)
    assert (asked.server.threads, asked.in_flight) == (3, 7)
