"""Tables of the best settings that were found: the project's own, and what this user measured."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError
from harness.machine import files, paths
from harness.machine.from_json import loads
from harness.run.config.measured.fingerprint import Fingerprint

SHIPPED_FILE = Path(__file__).with_name("measured_tuning.json")
"""Of two threads of a machine whose name its lines do not tell; their rounds were not kept, so that their
`noise` is what the search takes for it at least."""
OWN_FILE = paths.STATE_DIR / "tuning.json"
"""What this user measured, of whichever servers."""


@dataclass(frozen=True)
class Choice:
    """What measurement decides; all else follows from it."""

    instances: int
    client_batch: int
    max_queue_delay_us: int = 0
    max_batch: int = 0
    """Most samples that Triton joins in Server; 0: the model's limit. Elsewhere the client's batch is it."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the backend, in config.pbtxt's terms."""


@dataclass(frozen=True)
class Measured:
    """One line of a table: the best choice that was found."""

    model: str
    platform: str
    scenario: str
    server: Fingerprint
    choice: Choice
    lead: float
    """By what share its figure is better than the best with the rule's number of instances; where it has that
    number itself, than the rule's own choice."""
    noise: float
    """By what share the figures of one choice differed."""
    date: str
    """When it was measured, as 2026-11-27."""
    figure: str
    """What it reached, and what the others did."""

    def holds_with(self, cores: int) -> bool:
        """Whether the choice says something about a server like this one with so many cores.

        About as many as it was measured with; and where it was clearly better, about up to twice as many.
        """
        measured = self.server.cores
        return cores == measured or (measured < cores <= 2 * measured and self.lead > self.noise)


@functools.cache
def read(file: Path) -> tuple[Measured, ...]:
    """Read a table; empty where there is no file.

    Raises:
        ConfigError: it is damaged.
    """
    if not file.exists():
        return ()
    try:
        return loads(tuple[Measured, ...], file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} is damaged ({error}): delete it, or make it anew with ./run.sh tune"
        ) from error


def add(file: Path, new: Measured) -> None:
    """Put a line into a table, in place of the one for the same case.

    Raises:
        ConfigError: the table is damaged, or cannot be written.
    """
    lines = {_case(line): line for line in (*read(file), new)}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(dataclasses.asdict(lines[key])) for key in sorted(lines))
    files.write(file, f"[\n{text}\n]\n")
    read.cache_clear()


def _case(line: Measured) -> tuple[str | int, ...]:
    return (line.model, line.platform, line.scenario, *dataclasses.astuple(line.server))
