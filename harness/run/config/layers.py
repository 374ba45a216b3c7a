"""Where values come from: the command line, a file, a profile; the first that has a value counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """One place that values come from."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Layers:
    """All of them, the first that has a value counting; remembers where each that was taken came from."""

    layers: tuple[Layer, ...]
    provenance: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    """Names of those that were taken from one of the places, not the default."""

    def over(self, *more: Layer) -> "Layers":
        """These, and then others."""
        return Layers((*self.layers, *more))

    def under(self, first: Layer) -> "Layers":
        """One that counts before these."""
        return Layers((first, *self.layers))

    def find(self, name: str) -> Any:
        """The value that counts, None where there is none."""
        return self._find(name)[0]

    def take(self, name: str, default: Any = None, origin: str = "default") -> Any:
        """The value that counts, or the default; remembers which.

        Raises:
            ConfigError: it is empty.
        """
        value, found_in = self._find(name)
        if value == "" and name not in ("model", "platform"):
            raise ConfigError(f"--{name.replace('_', '-')} is empty; leave it out, or give it a value")
        self.provenance[name] = origin if value is None else found_in
        if value is not None:
            self.given.add(name)
        return default if value is None else value

    def _find(self, name: str) -> tuple[Any, str]:
        for layer in self.layers:
            if layer.values.get(name) is not None:
                return layer.values[name], layer.origin
        return None, ""
