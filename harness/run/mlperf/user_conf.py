"""LoadGen's user.conf: `model.scenario.key = value`, read strictly.

LoadGen's own parser ignores unknown keys and lines without spaces around `=`, and drops the fraction of a
Server bound; here each of these is an error that names the line. What the rules of a round fix is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError, nearest
from harness.models.spec import ModelSpec
from harness.run.mlperf.rounds import Scenario

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
    "max_duration": "makes LoadGen log an error: use --time",
    "max_query_count": "makes LoadGen log an error: use --count",
    "target_latency_percentile": "is fixed by the rules",
    "mode": "is --mode",
    "qsl_rng_seed": "is fixed by the round: use --round",
    "sample_index_rng_seed": "is fixed by the round: use --round",
    "schedule_rng_seed": "is fixed by the round: use --round",
    "coalesce_queries": "is the server's business here: Triton joins queries itself",
    "max_async_queries": "ends a run with an error: use --in-flight",
}


@dataclass(frozen=True)
class UserConf:
    """The lines of a user.conf that hold for one model, by scenario and key."""

    path: str = ""
    values: Mapping[Scenario, Mapping[str, float]] = field(default_factory=dict)
    """Units as in the file: milliseconds, queries per second."""

    def get(self, scenario: Scenario, key: str) -> float | None:
        """The value of a key, or None where the file says nothing."""
        return self.values.get(scenario, {}).get(key)


def read(path: Path, spec: ModelSpec) -> UserConf:
    """Read what a file says of one model.

    Raises:
        ConfigError: it cannot be read, or has a line that LoadGen would ignore, misread or refuse.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
    if key not in _KEYS:
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
