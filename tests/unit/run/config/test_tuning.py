import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.model_config import RUN_BATCH, ServerSettings
from harness.models.platforms import Platform
from harness.run.config import tuning
from harness.run.config.tuning import SERVERS_OWN, Choice, Measured, Tuning, as_served, tune
from harness.run.mlperf.rounds import Scenario

SPEC = MODELS["mobilenet"]
VARIANT = SPEC.variants[Platform.ONNXRUNTIME]


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Empty ones: (this machine's, the project's)."""
    own, ours = tmp_path / "own.json", tmp_path / "ours.json"
    monkeypatch.setattr(tuning, "OWN_FILE", own)
    monkeypatch.setattr(tuning, "MEASURED_FILE", ours)
    tuning.read.cache_clear()
    return own, ours


def tuned(scenario: Scenario, threads: int, max_batchsize: int | None = None) -> Tuning:
    return tune(
        SPEC,
        VARIANT,
        scenario,
        threads=threads,
        samples_per_query=8,
        max_batchsize=max_batchsize,
        device="auto",
    )


def line(scenario: Scenario, threads: int, **choice: object) -> Measured:
    return Measured("mobilenet", "onnxruntime", scenario, threads, Choice(**choice), "1 ms")


def test_without_measurements_one_query_gets_all_threads_and_many_get_an_instance_per_core() -> None:
    single, multi, offline = (
        tuned(scenario, 4) for scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM, Scenario.OFFLINE)
    )
    assert (single.server.instances, single.server.threads, single.client_batch, single.in_flight) == (
        1,
        4,
        1,
        1,
    )
    assert (offline.server.instances, offline.server.threads, offline.client_batch) == (4, 1, 32)
    assert offline.server.parameters == ((RUN_BATCH, "4"),)
    assert tuned(Scenario.OFFLINE, 64).server.parameters == ()
    assert (multi.server.instances, multi.client_batch, multi.in_flight) == (4, 2, 4)
    assert single.origin == "rule"


def test_a_measured_choice_holds_for_its_number_of_threads(tables) -> None:
    spinning = {"session.intra_op.allow_spinning": "1"}
    tuning.add(tables[1], line(Scenario.MULTI_STREAM, 2, instances=1, client_batch=4, parameters=spinning))
    found = tuned(Scenario.MULTI_STREAM, 2)
    assert (found.client_batch, found.in_flight) == (4, 2)
    assert found.server.parameters == (("session.intra_op.allow_spinning", "1"),)
    assert found.origin == "measured with 2 threads (ours.json)"
    assert tuned(Scenario.MULTI_STREAM, 1).origin == "rule"


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM, Scenario.OFFLINE])
def test_requests_meant_for_several_instances_are_not_joined(tables, scenario: Scenario) -> None:
    tuning.add(tables[1], line(scenario, 2, instances=2, client_batch=4))
    assert tuned(scenario, 2).server.max_batch_size == 4


def test_in_server_triton_joins_as_many_as_were_best(tables) -> None:
    assert tuned(Scenario.SERVER, 0).server.max_batch_size == VARIANT.max_batch_size
    assert tuned(Scenario.SERVER, 2).server.max_batch_size == 2
    tuning.add(tables[1], line(Scenario.SERVER, 2, instances=2, client_batch=1, max_batch=4))
    assert tuned(Scenario.SERVER, 2).server.max_batch_size == 4
    assert tuned(Scenario.SERVER, 2, max_batchsize=3).server.max_batch_size == 3


def test_where_instances_are_not_counted_offline_requests_may_be_joined() -> None:
    found = tuned(Scenario.OFFLINE, 0)
    assert (found.client_batch, found.server.max_batch_size) == (32, VARIANT.max_batch_size)


def test_with_more_threads_than_measured_the_preference_is_scaled(tables) -> None:
    tuning.add(tables[1], line(Scenario.OFFLINE, 2, instances=2, client_batch=16))
    tuning.add(tables[1], line(Scenario.SERVER, 2, instances=1, client_batch=1))
    offline = tuned(Scenario.OFFLINE, 6)
    assert (offline.server.instances, offline.server.threads, offline.client_batch) == (6, 1, 16)
    assert tuned(Scenario.SERVER, 6).server.threads == 6
    assert offline.origin == "measured with 2 threads (ours.json), scaled to 6"


@pytest.mark.parametrize(("threads", "instances", "batch"), [(4, 4, 2), (6, 6, 2), (64, 8, 1)])
def test_with_more_threads_every_instance_still_gets_its_part_of_a_query(
    tables, threads: int, instances: int, batch: int
) -> None:
    tuning.add(tables[1], line(Scenario.MULTI_STREAM, 2, instances=2, client_batch=4))
    found = tuned(Scenario.MULTI_STREAM, threads)
    assert (found.server.instances, found.client_batch) == (instances, batch)


@pytest.mark.parametrize(("threads", "is_kept"), [(6, True), (64, False)])
def test_parts_that_suit_one_core_are_not_kept_where_an_instance_has_several(
    tables, threads: int, is_kept: bool
) -> None:
    parts = {RUN_BATCH: "2"}
    tuning.add(tables[1], line(Scenario.OFFLINE, 2, instances=2, client_batch=32, parameters=parts))
    assert dict(tuned(Scenario.OFFLINE, 2).server.parameters) == parts
    assert dict(tuned(Scenario.OFFLINE, threads).server.parameters) == (parts if is_kept else {})


def test_what_this_machine_measured_counts_before_the_project_s_table(tables) -> None:
    tuning.add(tables[1], line(Scenario.OFFLINE, 2, instances=2, client_batch=16))
    tuning.add(tables[0], line(Scenario.OFFLINE, 2, instances=1, client_batch=8))
    assert tuned(Scenario.OFFLINE, 2).client_batch == 8
    assert tuned(Scenario.OFFLINE, 2, max_batchsize=4).client_batch == 4


def test_a_saved_model_is_served_as_the_frozen_graph_unless_measured_itself(tables) -> None:
    def found() -> Tuning:
        variant = SPEC.variants[Platform.TENSORFLOW_SAVEDMODEL]
        return tune(
            SPEC,
            variant,
            Scenario.OFFLINE,
            threads=2,
            samples_per_query=8,
            max_batchsize=None,
            device="auto",
        )

    graph = Measured("mobilenet", "tensorflow", Scenario.OFFLINE, 2, Choice(2, 16), "1 ms")
    tuning.add(tables[0], graph)
    assert (found().client_batch, found().origin) == (16, "measured on tensorflow with 2 threads (own.json)")
    tuning.add(tables[1], dataclasses.replace(graph, platform="tensorflow-savedmodel", choice=Choice(2, 8)))
    assert (found().client_batch, found().origin) == (8, "measured with 2 threads (ours.json)")


def test_a_new_measurement_replaces_the_old_one(tables) -> None:
    tuning.add(tables[0], line(Scenario.OFFLINE, 2, instances=2, client_batch=16))
    tuning.add(tables[0], line(Scenario.OFFLINE, 2, instances=1, client_batch=8))
    assert [entry["choice"]["instances"] for entry in json.loads(tables[0].read_text())] == [1]


@pytest.mark.parametrize("text", ["[", '[{"model": "mobilenet"}]', '{"model": 1}', "[3]"])
def test_a_damaged_table_is_named(tables, text: str) -> None:
    tables[0].write_text(text)
    with pytest.raises(ConfigError, match=r"own\.json is damaged .* run python -m harness\.tune"):
        tuned(Scenario.OFFLINE, 2)


def test_the_project_s_own_table_is_of_models_and_platforms_that_exist() -> None:
    for measured in tuning.read(Path(tuning.__file__).with_name("measured_tuning.json")):
        assert measured.platform in MODELS[measured.model].variants
        assert measured.scenario in list(Scenario)


@pytest.mark.parametrize(
    ("scenario", "limits", "batch", "in_flight"),
    [
        # Of a plan's batches of 32, with four instances.
        (Scenario.OFFLINE, (16,), 16, 12),
        (Scenario.OFFLINE, (64,), 32, 12),
        (Scenario.OFFLINE, (64, 8), 8, 12),
        # Triton has no batch axis to fill.
        (Scenario.OFFLINE, (0,), 1, 12),
        (Scenario.MULTI_STREAM, (1,), 1, 8),
        (Scenario.SINGLE_STREAM, (16,), 1, 1),
        (Scenario.SERVER, (16,), 1, 2048),
    ],
)
def test_a_servers_own_settings_decide_on_the_clients(
    scenario: Scenario, limits: tuple[int, ...], batch: int, in_flight: int
) -> None:
    live = [ServerSettings(instances=6, max_batch_size=limit) for limit in limits]
    wish = tuned(scenario, threads=4)
    found = as_served(wish, live, scenario, samples_per_query=8, server_origin=SERVERS_OWN)
    assert (found.client_batch, found.in_flight) == (batch, in_flight)
    assert (found.server, found.server_origin, found.origin) == (live[0], SERVERS_OWN, "rule")
    asked = as_served(wish, live, scenario, samples_per_query=8, server_origin="", in_flight=3)
    assert (asked.in_flight, asked.server_origin) == (3, "")
