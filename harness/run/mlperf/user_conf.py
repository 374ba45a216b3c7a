"""LoadGen's user.conf: `model.scenario.key = value`, read strictly.

LoadGen's own parser ignores unknown keys and lines without spaces around `=`, and drops the fraction of a
Server bound; here each of these is an error that names the line. What the rules of a round fix is refused.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError, nearest
from harness.models.spec import ModelSpec
from harness.run.mlperf.rounds import Rules, Scenario

logger = logging.getLogger(__name__)

_ANY = "*"
TARGET_QPS = "target_qps"
TARGET_LATENCY = "target_latency"
MIN_DURATION = "min_duration"
MIN_QUERY_COUNT = "min_query_count"
PERFORMANCE_SAMPLE_COUNT = "performance_sample_count_override"
SAMPLES_PER_QUERY = "samples_per_query"

_KEYS = (
    *(TARGET_QPS, TARGET_LATENCY, MIN_DURATION, MIN_QUERY_COUNT),
    *(PERFORMANCE_SAMPLE_COUNT, SAMPLES_PER_QUERY),
)
_FRACTIONS = (TARGET_QPS, TARGET_LATENCY)
_REFUSED = {
    "max_query_count": "makes LoadGen log an error: use --count",
    "target_latency_percentile": "is fixed by the rules",
    "mode": "is --mode",
    "qsl_rng_seed": "is fixed by the round: use --round",
    "sample_index_rng_seed": "is fixed by the round: use --round",
    "schedule_rng_seed": "is fixed by the round: use --round",
    "coalesce_queries": "is the server's business here: Triton joins queries itself",
    "max_async_queries": "ends a run with an error: use --in-flight",
}


_LEFT_OUT = {"max_duration": "makes LoadGen log an error, and its tests end by themselves"}
"""What changes nothing that a run is asked for."""


@dataclass(frozen=True)
class UserConf:
    """The lines of a user.conf that hold for one model, by scenario and key."""

    path: str = ""
    values: Mapping[Scenario, Mapping[str, float]] = field(default_factory=dict)
    """Units as in the file: milliseconds, queries per second."""

    def get(self, scenario: Scenario, key: str) -> float | None:
        """The value of a key, or None where the file says nothing."""
        return self.values.get(scenario, {}).get(key)


def changed_rules(conf: UserConf, rules: Mapping[Scenario, Rules]) -> Iterator[str]:
    """Keys that ask for other than the rules; rates and hints are a submitter's own, and more is no less.

    Args:
        conf: the file.
        rules: of each scenario.
    """
    for scenario, values in conf.values.items():
        rule = rules[scenario]
        least = {
            MIN_DURATION: rule.min_duration_ms,
            MIN_QUERY_COUNT: rule.min_query_count,
            PERFORMANCE_SAMPLE_COUNT: rule.performance_sample_count,
        }
        same = {
            SAMPLES_PER_QUERY: rule.samples_per_query if scenario == Scenario.MULTI_STREAM else None,
            TARGET_LATENCY: rule.server_target_latency_ns / 1e6 if scenario == Scenario.SERVER else None,
        }
        for key, value in values.items():
            is_less = key in least and value < least[key]
            if is_less or same.get(key) not in (None, value):
                yield key


def read(path: Path, spec: ModelSpec) -> UserConf:
    """Read what a file says of one model.

    Raises:
        ConfigError: it cannot be read, or has a line that LoadGen would ignore, misread or refuse.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read --user_conf {path}: {why}") from error
    # LoadGen's order: the scenario weighs more than the model.
    found: dict[tuple[Scenario, str], tuple[int, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        model, scenario, key, value = _parse(line, f"{path}:{number}")
        if model not in (_ANY, spec.name, *spec.aliases):
            continue
        if key in _LEFT_OUT:
            logger.warning("%s:%d: %s is left out: it %s", path, number, key, _LEFT_OUT[key])
            continue
        weight = 2 * (scenario != _ANY) + (model != _ANY)
        for each in Scenario if scenario == _ANY else (Scenario(scenario),):
            if weight >= found.get((each, key), (0, 0.0))[0]:
                found[each, key] = weight, value
    values: dict[Scenario, dict[str, float]] = {}
    for (each, key), (_, value) in found.items():
        values.setdefault(each, {})[key] = value
    return UserConf(str(path), values)


def _parse(line: str, where: str) -> tuple[str, str, str, float]:
    words = line.split()
    parts = words[0].split(".")
    if len(words) != 3 or words[1] != "=" or len(parts) != 3:
        raise ConfigError(f"{where}: wants `model.scenario.key = value`, with spaces around =, not {line!r}")
    model, scenario, key = parts
    if scenario not in (_ANY, *Scenario):
        hint = nearest(scenario, Scenario)
        raise ConfigError(f"{where}: unknown scenario {scenario!r}{hint}; {', '.join(Scenario)} or *")
    if key in _REFUSED:
        raise ConfigError(f"{where}: {key} {_REFUSED[key]}; take the line out")
    if key not in (*_KEYS, *_LEFT_OUT):
        raise ConfigError(f"{where}: unknown key {key!r}{nearest(key, _KEYS)}; keys: {', '.join(_KEYS)}")
    takes_fraction = key in _FRACTIONS and not (key == TARGET_LATENCY and scenario == Scenario.SERVER)
    try:
        value = float(words[2]) if takes_fraction else int(words[2])
    except ValueError:
        value = 0
    if not 0 < value < 1e12:
        what = "a number" if takes_fraction else "a whole number"
        raise ConfigError(f"{where}: {key} is {words[2]!r}, but takes {what} above 0")
    return model, scenario, key, float(value)
