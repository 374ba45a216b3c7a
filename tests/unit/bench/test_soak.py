"""What counts as flat, on made-up readings; and what a reading is, of this process."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from harness.bench.options import resolve
from harness.bench.soak.readings import Reading, read
from harness.bench.soak.soak import judged
from harness.bench.soak.trend import Trend, trend
from harness.errors import ConfigError, InferenceError
from harness.server import regions
from harness.server.lifecycle import ServerInfo

MIB = 1 << 20
HALF_AN_HOUR = range(1800)


def of(values: list[float], allowed: float = 2.0) -> Trend:
    return trend("figure", HALF_AN_HOUR, values, allowed)


def test_a_slope_is_told_per_hour_and_odd_readings_do_not_change_it() -> None:
    values = [10 + 0.001 * second + (1000 if second % 10 == 3 else 0) for second in HALF_AN_HOUR]
    found = of(values)
    assert found.per_hour == pytest.approx(3.6, rel=0.01)
    assert found.growth == pytest.approx(1.8, rel=0.01)
    assert (found.first, found.last) == pytest.approx((10.09, 11.71), abs=0.02)
    assert found.is_flat


def test_noise_and_a_fall_are_flat_and_a_slow_leak_is_not() -> None:
    noise = random.Random(1)
    assert of([64 + noise.choice([-1, 0, 0, 1]) for _ in HALF_AN_HOUR]).is_flat
    assert of([64 - second / 60 for second in HALF_AN_HOUR]).is_flat
    assert not of([64 + second // 300 for second in HALF_AN_HOUR]).is_flat


def readings(**figures: float) -> list[Reading]:
    """A soak of 100 s in which each figure grows by so much a second, after a jump while it warms up."""
    return [
        Reading(
            float(second),
            {name: math.ceil(second * grows + 100 * MIB * (second >= 15)) for name, grows in figures.items()},
        )
        for second in range(100)
    ]


def test_what_fills_at_first_is_not_judged() -> None:
    (found,) = judged(readings(**{"server RSS": 0.0}), rate=0)
    assert (found.first, found.last, found.growth) == (100 * MIB, 100 * MIB, 0)


@pytest.mark.parametrize(
    ("name", "a_second", "rate", "is_flat"),
    [
        ("server RSS", 90_000, 0.0, True),
        ("server RSS", 120_000, 0.0, False),
        ("server RSS", 120_000, 1000.0, False),
        # What LoadGen and the timeline note of every query.
        ("client RSS", 120_000, 0.0, False),
        ("client RSS", 120_000, 1000.0, True),
        ("/dev/shm", 120_000, 1000.0, False),
        ("server threads", 0.1, 0.0, False),
        ("stubs descriptors", 0.02, 0.0, True),
    ],
)
def test_bytes_counts_and_the_client_have_bounds_of_their_own(
    name: str, a_second: float, rate: float, is_flat: bool
) -> None:
    (found,) = judged(readings(**{name: a_second}), rate)
    assert found.is_flat == is_flat, found


def test_too_few_readings_are_no_soak() -> None:
    with pytest.raises(InferenceError, match="only 4 readings"):
        judged(readings(**{"server RSS": 0.0})[:5], rate=0)


def test_a_reading_has_the_client_the_server_its_stubs_and_its_regions() -> None:
    """A shell stands for the server: what is read is the same of any process."""
    prefix = regions.new_prefix()
    region = regions.SHM_DIR / f"{prefix}region"
    nest = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    started = subprocess.Popen([sys.executable, "-c", nest], stdin=subprocess.PIPE, text=True)
    try:
        region.write_bytes(bytes(3 * MIB))
        server = ServerInfo(started.pid, "", "", "", Path(), Path(), prefix)
        while not (found := read(server).figures)["stubs RSS"]:
            assert started.poll() is None
        assert found["server RSS"] > MIB
        assert found["server threads"] == 1
        assert found["server descriptors"] >= 3
        # Not ourselves, and neither the server nor its stub.
        assert found["client RSS"] == 0
        assert found["/dev/shm"] == 3 * MIB
        assert os.getpid() != started.pid
    finally:
        region.unlink(missing_ok=True)
        started.communicate("\n")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200)])
def test_a_soak_is_asked_for_in_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    found = resolve({"soak": text})
    assert found.soak_s == seconds
    assert [config.model for config in found.configs] == ["mobilenet"]
    assert resolve({"soak": text, "null_only": True}).configs == ()
    assert resolve({}).soak_s is None


@pytest.mark.parametrize("text", ["", "30", "m", "9s", "25h", "-1m", "1.5h", "30 m", "999999s"])
def test_another_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration from 10s to 24h, such as 90s, 30m or 2h"):
        resolve({"soak": text})


@pytest.mark.parametrize("other", ["scenario", "rounds", "time", "quick"])
def test_a_soak_takes_no_options_of_the_measurements(other: str) -> None:
    with pytest.raises(ConfigError, match=f"--soak takes no --{other}"):
        resolve({"soak": "90s", other: "1"})
