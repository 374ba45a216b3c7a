"""--dry-run: the whole resolved configuration, with where each value comes from; nothing is touched."""

import sys
from collections.abc import Iterator, Sequence

from harness import planning, settings
from harness.config import RunConfig
from harness.models import get_variant
from harness.rounds import Scenario, rules
from harness.settings import Setting

_NAME, _VALUE = 28, 34
"""Widths of the columns, so that most lines fit 80 characters."""


def show(configs: Sequence[RunConfig]) -> None:
    """Print what runs of these would be.

    Raises:
        ConfigError: this machine's table of measured settings is damaged.
    """
    for config in configs:
        for line in lines(config):
            sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.write("--dry-run: nothing was started or written.\n")


def lines(config: RunConfig) -> list[str]:
    """The request, then each test of each scenario."""
    found = [f"{config.model} on {config.platform}", _line("setting", "value", "from")]
    variant = get_variant(config.spec, config.platform)
    request = settings.of_request(config, None if config.is_user_file else variant)
    found += map(_setting_line, request)
    found += [f"note: {note}" for note in config.notes]
    for scenario, test in tests(config):
        found += ["", str(scenario), *map(_setting_line, test)]
    return [*found, ""]


def tests(config: RunConfig) -> Iterator[tuple[Scenario, list[Setting]]]:
    """The settings of each test; Server has one for each latency bound.

    Raises:
        ConfigError: this machine's table of measured settings is damaged.
    """
    variant = get_variant(config.spec, config.platform)
    for scenario in config.scenarios:
        rule = rules(config.round, config.spec, scenario)
        tuning = planning.tuning_of(config, variant, config.urls, rule, scenario)
        for bound_s in planning.bounds_s(config, scenario):
            yield scenario, settings.of_test(config, rule, scenario, bound_s, tuning)


def _setting_line(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, float):
        value = f"{value:g}"
    return _line(setting.name, "-" if value is None else str(value), setting.origin)


def _line(name: str, value: str, origin: str) -> str:
    return f"  {name:<{_NAME}} {value:<{_VALUE}} {origin}"
