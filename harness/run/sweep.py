"""How long several runs will take: a guess at first, put right by how long those before took."""

import time
from collections.abc import Callable, Iterator, Sequence

from harness.machine.progress import about
from harness.run.config.run_config import RunConfig, RunMode
from harness.run.config.scenario import ScenarioPlan, scenarios_of
from harness.run.server_rate import usual_s

_RUN_S, _SCENARIO_S, _TEST_S = 20.0, 4.0, 6.0
"""Export and images, loading the model, a test's process and samples: on two slow cores of an EPYC."""
_PIXEL_S = 1e-6
"""Of an input image, for all that a network does with it; there, too. A small network takes a fifth."""


def expected_s(config: RunConfig) -> float:
    """About how long a run takes: good for shares, and for a first guess."""
    return _RUN_S + sum(map(_scenario_s, scenarios_of(config)))


def _scenario_s(test: ScenarioPlan) -> float:
    config, request = test.config, test.config.request
    height, width = config.spec.variants[config.platform].preprocess.size_px
    sample_s = height * width * _PIXEL_S
    total = _SCENARIO_S
    if request.mode != RunMode.ACCURACY:
        duration_s = test.duration.value / 1000
        asked_s = test.queries.value * test.samples_per_query.value * sample_s
        one_s = max(duration_s, asked_s) + _TEST_S
        total += usual_s(duration_s, _TEST_S) + one_s if test.is_searched else one_s
    if request.accuracy or request.mode in (RunMode.ACCURACY, RunMode.SUBMISSION):
        samples = config.changes.count or config.spec.performance_sample_count
        total += samples * sample_s + _TEST_S
    return total


def announced(
    configs: Sequence[RunConfig], say: Callable[[str], object], now_s: Callable[[], float] = time.monotonic
) -> Iterator[RunConfig]:
    """Yield each, and say before it which it is and how long all that are left will take."""
    expected = [expected_s(config) for config in configs]
    began_s, pace = now_s(), 1.0
    for number, config in enumerate(configs):
        done, left = sum(expected[:number]), sum(expected[number:])
        if done:
            pace = (now_s() - began_s) / done
        what = f"{config.model} on {config.platform}"
        say(f"{number + 1} of {len(configs)}: {what}, {about(left * pace)} left")
        yield config
