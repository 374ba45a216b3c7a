import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.live_config import settings_of
from harness.models.model_config import RUN_BATCH, ServerSettings
from harness.models.platforms import Platform
from harness.models.spec import Variant
from harness.run.config.measured import table
from harness.run.config.measured.fingerprint import THIS_MACHINE, Fingerprint
from harness.run.config.measured.table import SHIPPED_FILE, Choice, Measured
from harness.run.config.tuning import GPU_RULE, SERVERS_OWN, Tuning, Wishes, as_served, tune
from harness.run.mlperf.rounds import Scenario

SPEC = MODELS["mobilenet"]
VARIANT = SPEC.variants[Platform.ONNXRUNTIME]


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Empty ones: (the user's, the project's)."""
    own, ours = tmp_path / "own.json", tmp_path / "ours.json"
    monkeypatch.setattr(table, "OWN_FILE", own)
    monkeypatch.setattr(table, "SHIPPED_FILE", ours)
    table.read.cache_clear()
    return own, ours


HERE = Fingerprint(THIS_MACHINE, gpus="", cpu="a processor", cores=2, triton="2.51")
ANYWHERE = Fingerprint("", gpus="", cpu="", cores=2, triton="2.51")
"""Of the shipped table."""


def with_cores(cores: int, server: Fingerprint = HERE) -> Fingerprint:
    return dataclasses.replace(server, cores=cores)


def tuned(
    scenario: Scenario,
    server: Fingerprint | int,
    max_batchsize: int | None = None,
    variant: Variant = VARIANT,
    **wishes: object,
) -> Tuning:
    return tune(
        SPEC,
        variant,
        scenario,
        server=with_cores(server) if isinstance(server, int) else server,
        samples_per_query=8,
        wishes=Wishes(max_batchsize=max_batchsize, **wishes),
    )


def line(
    scenario: Scenario, server: Fingerprint, *, lead: float = 0.2, noise: float = 0.05, **choice: object
) -> Measured:
    found = Choice(**choice)
    return Measured(
        "mobilenet", "onnxruntime", scenario, server, found, lead, noise, date="2026-11-27", figure="1 ms"
    )


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
    table.add(
        tables[1], line(Scenario.MULTI_STREAM, ANYWHERE, instances=1, client_batch=4, parameters=spinning)
    )
    found = tuned(Scenario.MULTI_STREAM, 2)
    assert (found.client_batch, found.in_flight) == (4, 2)
    assert found.server.parameters == (("session.intra_op.allow_spinning", "1"),)
    assert found.origin == "shipped table"
    assert tuned(Scenario.MULTI_STREAM, 1).origin == "rule"


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM, Scenario.OFFLINE])
def test_requests_meant_for_several_instances_are_not_joined(tables, scenario: Scenario) -> None:
    table.add(tables[1], line(scenario, ANYWHERE, instances=2, client_batch=4))
    assert tuned(scenario, 2).server.max_batch_size == 4


def test_in_server_triton_joins_as_many_as_were_best(tables) -> None:
    assert tuned(Scenario.SERVER, 0).server.max_batch_size == VARIANT.max_batch_size
    assert tuned(Scenario.SERVER, 2).server.max_batch_size == 2
    table.add(tables[1], line(Scenario.SERVER, ANYWHERE, instances=2, client_batch=1, max_batch=4))
    assert tuned(Scenario.SERVER, 2).server.max_batch_size == 4
    assert tuned(Scenario.SERVER, 2, max_batchsize=3).server.max_batch_size == 3


def test_where_instances_are_not_counted_offline_requests_may_be_joined() -> None:
    found = tuned(Scenario.OFFLINE, 0)
    assert (found.client_batch, found.server.max_batch_size) == (32, VARIANT.max_batch_size)


def test_with_up_to_twice_the_threads_a_clear_preference_is_carried(tables) -> None:
    table.add(tables[1], line(Scenario.OFFLINE, with_cores(3, ANYWHERE), instances=3, client_batch=16))
    table.add(tables[1], line(Scenario.SERVER, with_cores(3, ANYWHERE), instances=1, client_batch=1))
    offline = tuned(Scenario.OFFLINE, 6)
    assert (offline.server.instances, offline.server.threads, offline.client_batch) == (6, 1, 16)
    assert tuned(Scenario.SERVER, 6).server.threads == 6
    assert offline.origin == "shipped table, measured with 3 threads"
    assert tuned(Scenario.OFFLINE, 7).origin == tuned(Scenario.OFFLINE, 2).origin == "rule"


@pytest.mark.parametrize(("lead", "is_carried"), [(0.06, True), (0.05, False), (0.0, False)])
def test_a_preference_within_the_noise_of_its_measurement_is_not_carried(
    tables, lead: float, is_carried: bool
) -> None:
    table.add(tables[1], line(Scenario.SERVER, ANYWHERE, lead=lead, instances=1, client_batch=1))
    assert tuned(Scenario.SERVER, 2).server.instances == 1
    assert (tuned(Scenario.SERVER, 3).server.instances == 1) == is_carried


def test_two_percent_on_two_cores_do_not_make_one_instance_of_sixty_four_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "SHIPPED_FILE", SHIPPED_FILE)
    spec = MODELS["resnet50"]

    def found(cores: int) -> Tuning:
        return tune(
            spec,
            spec.variants[Platform.ONNXRUNTIME],
            Scenario.SERVER,
            server=with_cores(cores),
            samples_per_query=1,
            wishes=Wishes(),
        )

    assert (found(2).server.instances, found(2).origin) == (1, "shipped table")
    for cores in (4, 64):
        assert (found(cores).server.instances, found(cores).origin) == (min(cores, 8), "rule")


@pytest.mark.parametrize(("threads", "instances", "batch"), [(3, 3, 3), (4, 4, 2)])
def test_with_more_threads_every_instance_still_gets_its_part_of_a_query(
    tables, threads: int, instances: int, batch: int
) -> None:
    table.add(tables[1], line(Scenario.MULTI_STREAM, ANYWHERE, instances=2, client_batch=4))
    found = tuned(Scenario.MULTI_STREAM, threads)
    assert (found.server.instances, found.client_batch) == (instances, batch)


@pytest.mark.parametrize(("threads", "is_kept"), [(12, True), (16, False)])
def test_parts_that_suit_one_core_are_not_kept_where_an_instance_has_several(
    tables, threads: int, is_kept: bool
) -> None:
    parts, eight = {RUN_BATCH: "2"}, with_cores(8, ANYWHERE)
    table.add(tables[1], line(Scenario.OFFLINE, eight, instances=8, client_batch=32, parameters=parts))
    assert dict(tuned(Scenario.OFFLINE, 8).server.parameters) == parts
    assert dict(tuned(Scenario.OFFLINE, threads).server.parameters) == (parts if is_kept else {})


def test_what_the_user_measured_counts_before_the_shipped_table(tables) -> None:
    table.add(tables[1], line(Scenario.OFFLINE, ANYWHERE, instances=2, client_batch=16))
    table.add(tables[0], line(Scenario.OFFLINE, HERE, instances=1, client_batch=8))
    assert tuned(Scenario.OFFLINE, 2).client_batch == 8
    assert tuned(Scenario.OFFLINE, 2).origin == "your tuning of 2026-11-27"
    assert tuned(Scenario.OFFLINE, 4).origin == "your tuning of 2026-11-27, measured with 2 threads"
    assert tuned(Scenario.OFFLINE, 2, max_batchsize=4).client_batch == 4


GPUS = Fingerprint(THIS_MACHINE, gpus="2 of 80 GiB", cpu="a processor", cores=0, triton="2.55")
REMOTE = Fingerprint("triton.lab:8001", gpus="", cpu="", cores=0, triton="2.55")


@pytest.mark.parametrize("server", [HERE, GPUS, REMOTE])
def test_what_was_measured_of_a_server_is_read_for_that_one_alone(tables, server: Fingerprint) -> None:
    table.add(tables[0], line(Scenario.OFFLINE, server, instances=4, client_batch=64))
    assert tuned(Scenario.OFFLINE, server).client_batch == 64
    others = {HERE, GPUS, REMOTE, dataclasses.replace(server, triton="2.60")} - {server}
    others |= {dataclasses.replace(server, where="triton2.lab:8001"), dataclasses.replace(server, gpus="1")}
    for other in others:
        assert tuned(Scenario.OFFLINE, other).origin == (GPU_RULE if other.gpus else "rule")


def test_the_shipped_table_is_not_for_gpus_even_where_their_machine_s_cores_are_known(tables) -> None:
    table.add(tables[1], line(Scenario.OFFLINE, ANYWHERE, instances=2, client_batch=16))
    assert tuned(Scenario.OFFLINE, with_cores(2, GPUS)).origin == GPU_RULE


def test_gpus_get_one_instance_each_large_batches_and_requests_for_all_of_them() -> None:
    offline = tuned(Scenario.OFFLINE, GPUS)
    assert (offline.server.instances, offline.server.threads, offline.server.device) == (1, 0, "auto")
    # Two batches of 64 for each of the two.
    assert (offline.client_batch, offline.server.max_batch_size, offline.in_flight) == (64, 64, 4)
    server = tuned(Scenario.SERVER, GPUS)
    assert (server.client_batch, server.server.max_batch_size) == (1, 64)
    assert server.server.max_queue_delay_us == 1000
    # A query is not cut into parts for instances that there are none of.
    multi = tuned(Scenario.MULTI_STREAM, GPUS)
    assert (multi.client_batch, multi.in_flight, multi.server.max_queue_delay_us) == (8, 1, 0)
    assert tuned(Scenario.SINGLE_STREAM, GPUS).server.max_queue_delay_us == 0
    assert offline.origin == server.origin == multi.origin == "rule for GPUs, not measured"


def test_large_images_are_not_joined_in_one_request_even_for_gpus() -> None:
    spec = MODELS["ssd-resnet34"]
    found = tune(
        spec,
        # 17 MB each.
        dataclasses.replace(spec.variants[Platform.PYTORCH], max_batch_size=64),
        Scenario.OFFLINE,
        server=GPUS,
        samples_per_query=1,
        wishes=Wishes(),
    )
    # 64 at once of 15 in a request: five requests make a batch, two batches on each of two.
    assert (found.client_batch, found.server.max_batch_size, found.in_flight) == (15, 64, 20)


def test_what_is_asked_for_counts_before_any_choice(tables) -> None:
    table.add(tables[0], line(Scenario.OFFLINE, GPUS, instances=4, client_batch=64))
    found = tuned(
        *(Scenario.OFFLINE, GPUS, 2048),
        gpus=(0, 1, 2),
        instances=2,
        queue_delay_us=250,
        preferred_batch=(1024, 2048),
    )
    assert (found.client_batch, found.server.max_batch_size, found.in_flight) == (2048, 2048, 12)
    assert found.server.preferred_batch == (1024, 2048)
    assert (found.server.instances, found.server.gpus, found.server.device) == (2, (0, 1, 2), "gpu")
    assert found.server.max_queue_delay_us == 250


@pytest.mark.parametrize(("gpus", "devices"), [("", 1), ("not told", 1), ("8 of 80 GiB", 8)])
def test_devices_are_counted_where_they_are_told(gpus: str, devices: int) -> None:
    assert dataclasses.replace(GPUS, gpus=gpus).devices == devices


def test_a_saved_model_is_served_as_the_frozen_graph_unless_measured_itself(tables) -> None:
    def found() -> Tuning:
        return tuned(Scenario.OFFLINE, HERE, variant=SPEC.variants[Platform.TENSORFLOW_SAVEDMODEL])

    graph = dataclasses.replace(
        line(Scenario.OFFLINE, HERE, instances=2, client_batch=16), platform="tensorflow"
    )
    table.add(tables[0], graph)
    assert found().client_batch == 16
    assert found().origin == "your tuning of 2026-11-27, measured on tensorflow"
    table.add(
        tables[1],
        dataclasses.replace(
            graph, platform="tensorflow-savedmodel", server=ANYWHERE, choice=Choice(2, client_batch=8)
        ),
    )
    assert (found().client_batch, found().origin) == (8, "shipped table")


def test_a_new_measurement_replaces_the_old_one_of_the_same_server(tables) -> None:
    table.add(tables[0], line(Scenario.OFFLINE, HERE, instances=2, client_batch=16))
    table.add(tables[0], line(Scenario.OFFLINE, REMOTE, instances=4, client_batch=64))
    table.add(tables[0], line(Scenario.OFFLINE, HERE, instances=1, client_batch=8))
    assert [entry["choice"]["instances"] for entry in json.loads(tables[0].read_text())] == [1, 4]


@pytest.mark.parametrize("text", ["[", '[{"model": "mobilenet"}]', '{"model": 1}', "[3]"])
def test_a_damaged_table_is_named(tables, text: str) -> None:
    tables[0].write_text(text)
    with pytest.raises(ConfigError, match=r"own\.json is damaged .* anew with \./run\.sh tune"):
        tuned(Scenario.OFFLINE, 2)


def test_the_shipped_table_is_of_models_and_platforms_that_exist() -> None:
    for measured in table.read(SHIPPED_FILE):
        assert measured.platform in MODELS[measured.model].variants
        assert measured.scenario in list(Scenario)


@pytest.mark.parametrize(
    ("scenario", "limits", "batch", "in_flight"),
    [
        # Of a plan's batches of 32, with four instances.
        (Scenario.OFFLINE, (16,), 16, 12),
        # Triton joins two requests.
        (Scenario.OFFLINE, (64,), 32, 24),
        # As many for each as the one needs that joins eight.
        (Scenario.OFFLINE, (64, 8), 8, 96),
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
    wish = tuned(scenario, 4)
    found = as_served(wish, live, scenario, samples_per_query=8, server_origin=SERVERS_OWN)
    assert (found.client_batch, found.in_flight) == (batch, in_flight)
    assert (found.server, found.server_origin, found.origin) == (live[0], SERVERS_OWN, "rule")
    alone = [dataclasses.replace(one, joins=False) for one in live]
    found = as_served(wish, alone, scenario, samples_per_query=8, server_origin=SERVERS_OWN)
    assert found.in_flight == (12 if scenario == Scenario.OFFLINE else in_flight)
    asked = as_served(wish, live, scenario, samples_per_query=8, server_origin="", in_flight=3)
    assert (asked.in_flight, asked.server_origin) == (3, "")


@pytest.mark.parametrize(
    ("groups", "in_flight"),
    [
        # Two instances on each of eight GPUs, and two batches of 64 for each.
        ([{"kind": "KIND_GPU", "count": 2, "gpus": list(range(8))}], 32),
        ([{"kind": "KIND_GPU", "count": 1, "gpus": [0]}, {"kind": "KIND_GPU", "count": 2, "gpus": [1]}], 6),
        ([{"kind": "KIND_CPU", "count": 1}], 4),
        # Those that only answer as a part of another model's are none to fill.
        ([{"kind": "KIND_GPU", "count": 4, "gpus": [0]}, {"count": 9, "gpus": [1], "passive": True}], 8),
    ],
)
def test_requests_in_flight_follow_the_instances_and_devices_that_are_live(
    groups: list[dict[str, object]], in_flight: int
) -> None:
    live = {"name": "m", "max_batch_size": 64, "dynamic_batching": {}, "instance_group": groups}
    served = [settings_of(live, Platform.ONNXRUNTIME.facts)]
    wish = tuned(Scenario.OFFLINE, GPUS)
    found = as_served(wish, served, Scenario.OFFLINE, samples_per_query=1, server_origin="")
    assert (found.client_batch, found.in_flight) == (64, in_flight)
