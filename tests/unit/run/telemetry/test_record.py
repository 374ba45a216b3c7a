"""What is made of a server's metrics: figures of the test alone, and energy."""

import dataclasses
from pathlib import Path

import pytest

from harness.run.telemetry import record
from harness.run.telemetry.record import Course, GpuUse, Range, Reading, Telemetry, energy_j, gpus, summary
from harness.triton.metrics.text import Metrics, parse
from tests.gpu_metrics import FIRST, SECOND, gpu_metrics

SERVER = Telemetry("a:8001", "http://a:8002/metrics")
MODEL = "resnet50_onnxruntime"


def reading(at_s: float, **figures: float) -> Reading:
    return Reading(at_s, parse(gpu_metrics(**figures), MODEL), {FIRST: 1000.0 + at_s})


def test_readings_before_and_after_the_test_count_for_its_energy_alone() -> None:
    # 100 W until half a second before the test, then 300 W: 150 J before it, 900 J in its 3 s.
    readings = [
        reading(-0.5, energy_j=0.0, pending=50),
        reading(0.5, energy_j=300.0, pending=4),
        reading(1.5, energy_j=600.0, pending=6),
        reading(3.5, energy_j=1200.0, pending=50),
    ]
    found = summary(SERVER, readings, 3.0)
    assert (found.readings, found.pending, found.cpu) == (2, Range(6.0, 7.0), Range(0.25, 0.25))
    first, second = found.gpus
    assert (first.uuid, second.uuid) == (FIRST, SECOND)
    assert (first.energy_j, second.energy_j) == (pytest.approx(900.0), pytest.approx(450.0))
    assert (first.clock_mhz, second.clock_mhz) == (Range(1001.0, 1001.5), None)
    assert first.utilisation == Range(0.9, 0.9)
    assert energy_j([found]) == pytest.approx(1350.0)


def test_without_a_counter_energy_is_power_over_time() -> None:
    def without(at_s: float, power_w: float) -> Reading:
        text = "\n".join(
            line
            for line in gpu_metrics(power_w=power_w).splitlines()
            if not line.startswith("nv_energy") and SECOND not in line
        )
        return Reading(at_s, parse(text, MODEL))

    # From 100 W to 200 W in the first two of four seconds.
    found = summary(SERVER, [without(0.0, 100.0), without(2.0, 200.0), without(4.0, 200.0)], 4.0)
    assert [gpu.energy_j for gpu in found.gpus] == [pytest.approx(700.0)]


def test_energy_of_several_servers_is_known_where_all_tell() -> None:
    told = dataclasses.replace(SERVER, gpus=(GpuUse(FIRST, energy_j=2.0), GpuUse(SECOND, energy_j=3.0)))
    other = dataclasses.replace(SERVER, gpus=(GpuUse("GPU-3", energy_j=5.0),))
    silent = dataclasses.replace(SERVER, gpus=(GpuUse("GPU-3", energy_j=5.0), GpuUse("GPU-4")))
    assert energy_j([told, other]) == 10.0
    assert energy_j([told, silent]) is None
    assert energy_j([told, Telemetry("b:1", "")]) is None
    assert energy_j([]) is None


def test_a_gpu_that_several_servers_list_counts_once() -> None:
    both = dataclasses.replace(SERVER, gpus=(GpuUse(FIRST, energy_j=1000.0), GpuUse(SECOND, energy_j=3.0)))
    one = dataclasses.replace(SERVER, gpus=(GpuUse(FIRST, energy_j=1001.0),))
    assert energy_j([both, one]) == 1003.0
    assert gpus([both, one], {FIRST: "H100", SECOND: "H100"}) == "2 x H100"
    # Whichever of them tells.
    silent = dataclasses.replace(SERVER, gpus=(GpuUse(FIRST), GpuUse(SECOND)))
    assert energy_j([silent, both]) == energy_j([both, silent]) == 1003.0


def test_a_test_between_two_readings_has_the_last_one() -> None:
    found = summary(SERVER, [reading(-0.4), reading(0.6)], 0.2)
    assert (found.readings, found.cpu) == (1, Range(0.25, 0.25))


def test_a_server_without_gpus_has_its_cpus() -> None:
    found = summary(SERVER, [Reading(0.5, Metrics(cpu=0.5))], 1.0)
    assert (found.cpu, found.gpus, energy_j([found])) == (Range(0.5, 0.5), (), None)


def test_gpus_are_told_by_name_or_else_by_size() -> None:
    named = dataclasses.replace(SERVER, gpus=(GpuUse(FIRST), GpuUse(SECOND)))
    other = dataclasses.replace(SERVER, gpus=(GpuUse("GPU-3", memory_total_bytes=80 * 2**30),))
    names = dict.fromkeys((FIRST, SECOND, None), "a GPU")
    assert gpus([named, other], names) == "2 x a GPU, 1 x GPU of 80 GiB"
    assert gpus([Telemetry("b:1", "")], names) == ""


def test_the_course_of_a_test_is_kept_beside_its_logs(tmp_path: Path) -> None:
    assert record.load(tmp_path) == ()
    course = record.course("a:8001", [reading(-1.0), reading(1.0), reading(2.0)], 2.5)
    assert course == Course("a:8001", (1.0, 2.0), (0.25,) * 2, (8.0,) * 2, (0.8,) * 2, (450.75,) * 2)
    record.save([course], tmp_path)
    assert record.load(tmp_path) == (course,)
    assert len((tmp_path / record.FILE_NAME).read_text().splitlines()) == 1


def test_a_test_of_which_nothing_was_told_leaves_no_file(tmp_path: Path) -> None:
    record.save([record.course("a:8001", [], 2.5)], tmp_path)
    assert list(tmp_path.iterdir()) == []
