"""The text of one option becomes a value, or the reason why it cannot."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import ConfigError, nearest
from harness.machine import paths
from harness.run.mlperf.rounds import Scenario

_Number = TypeVar("_Number", int, float)

_LARGEST = 1_000_000_000
"""Of any count, rate or time: more overflows what LoadGen and gRPC count in."""
_A_SECOND = {"ms": 1e3, "us": 1e6, "s": 1}
"""In each unit of a latency."""
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}
"""In each unit of a duration."""
_DOUBTFUL_BOUND_S = 10
"""A bound without a unit from which on it was hardly meant in seconds: MLPerf's are of 0.01 to 0.13."""
_URL = re.compile(r"(?:grpcs://|(?:grpcs\+)?dns:///)?([\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_SOCKET = re.compile(r"unix:(/.+)")
_METRICS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/\S*)?")
_THIS_HOST = ("localhost", "127.0.0.1", "[::1]")


def one_of(option: str, word: str, known: Iterable[str]) -> str:
    """Match a word, whatever its case.

    Raises:
        ConfigError: it is none of the known ones; suggests the nearest.
    """
    by_lower = {str(item).lower(): str(item) for item in known}
    if word.lower() in by_lower:
        return by_lower[word.lower()]
    hint = nearest(word, by_lower.values())
    raise ConfigError(f"--{option} {word!r} is unknown{hint}; choices: {', '.join(by_lower.values())}")


def number(option: str, value: Any, kind: type[_Number], most: int = _LARGEST) -> _Number:
    """A number above 0.

    Raises:
        ConfigError: it is none, or more than `most`.
    """
    try:
        found = kind(value)
    except ValueError:
        found = kind(0)
    if not 0 < found <= most:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"--{option} {value} is impossible: it takes {what} above 0, and up to {most}")
    return found


def positive(option: str, value: Any, kind: type[_Number], most: int = _LARGEST) -> _Number | None:
    """As `number`; None stays None."""
    return None if value is None else number(option, value, kind, most)


def from_zero(option: str, value: Any) -> int | None:
    """A whole number from 0 on; None stays None.

    Raises:
        ConfigError: it is none, or too large.
    """
    if value is None:
        return None
    if not str(value).isdecimal() or int(value) > _LARGEST:
        raise ConfigError(
            f"--{option} {value} is impossible: it takes a whole number from 0 on, up to {_LARGEST}"
        )
    return int(value)


def numbers(option: str, text: str | None, least: int, most: int = _LARGEST) -> tuple[int, ...]:
    """A list of whole numbers, ascending; one that is given twice counts once. None: an empty one.

    Raises:
        ConfigError: one is none, less than `least`, or more than `most`.
    """
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= most for part in parts):
        raise ConfigError(
            f"--{option} {text} is impossible: it takes whole numbers from {least} on, up to {most}, as "
            f"{least},{least + 1}"
        )
    return tuple(sorted({int(part) for part in parts}))


def scenarios(text: str) -> tuple[Scenario, ...]:
    """A list of scenarios; one that is named twice runs once.

    Raises:
        ConfigError: it is empty, or names an unknown one.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError(f"--scenario is empty; choices: {', '.join(Scenario)}")
    return tuple(dict.fromkeys(Scenario(one_of("scenario", word, Scenario)) for word in words))


def latencies(text: str | None) -> tuple[float, ...]:
    """A list of bounds in seconds, or in the unit behind each; one that is given twice counts once.

    Raises:
        ConfigError: one is not a number above 0, or so many seconds that milliseconds may be meant.
    """
    if text is None:
        return ()
    return tuple(dict.fromkeys(_latency(part.strip()) for part in text.split(",")))


def _latency(text: str) -> float:
    unit = next((unit for unit in _A_SECOND if text.lower().endswith(unit)), "")
    found = number("max-latency", text[: len(text) - len(unit)], float)
    if not unit and found >= _DOUBTFUL_BOUND_S:
        raise ConfigError(
            f"--max-latency {text} would be {text} seconds: did you mean {text}ms? Write {text}s if not"
        )
    return found / _A_SECOND.get(unit, 1)


def duration(text: Any) -> float | None:
    """Seconds, or so many of the unit behind: `90`, `90s`, `10m`, `1h`; None stays None.

    Raises:
        ConfigError: it is not a number above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([\d.e+-]+?) *([a-zA-Z]*)", str(text).strip())
    if not found or found[2].lower() not in ("", *_SECONDS):
        raise ConfigError(f"--time {text} is impossible: it takes seconds, or {', '.join(_SECONDS)} behind")
    return number("time", found[1], float) * _SECONDS.get(found[2].lower(), 1)


def names(text: str | None) -> tuple[str, ...]:
    """A list of names."""
    return () if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def entry_name(name: str | None) -> str | None:
    """What a server calls a model; None stays None.

    Raises:
        ConfigError: no model can be called so.
    """
    if name and "/" in name:
        raise ConfigError(f"--served-name {name!r} is no name of a model: its version is --served-version")
    return name


def urls(text: str | None) -> tuple[str, ...]:
    """A list of gRPC addresses.

    Raises:
        ConfigError: one is no address, or named twice.
    """
    if text is None:
        return ()
    found = tuple(part.strip() for part in text.split(","))
    servers: dict[tuple[str, int], str] = {}
    for url in found:
        server = _place(url)
        if server in servers:
            raise ConfigError(f"--url names one server twice: {servers[server]} and {url}")
        servers[server] = url
    return found


def metrics_urls(text: str | None, servers: tuple[str, ...]) -> tuple[str, ...]:
    """A list of the addresses of metrics, one for each server.

    Raises:
        ConfigError: one is no address, or there are others than servers.
    """
    found = () if text is None else tuple(part.strip() for part in text.split(","))
    for url in found:
        if not _METRICS.fullmatch(url):
            raise ConfigError(
                f"--metrics-url {url!r} is not http://HOST:PORT/PATH, as http://HOST:8002/metrics"
            )
    if found and len(found) != len(servers):
        raise ConfigError(
            f"--metrics-url names {len(found)}, and --url {len(servers)}: give as many, in the same order"
        )
    return found


def _place(url: str) -> tuple[str, int]:
    if match := _SOCKET.fullmatch(url):
        return match[1], 0
    match = _URL.fullmatch(url)
    if not match or not 0 < int(match[2]) < 65536:
        raise ConfigError(
            f"--url {url!r} is not HOST:PORT (the gRPC port, 8001 by default; without http://), "
            "nor grpcs://HOST:PORT, unix:/PATH, dns:///NAME:PORT or grpcs+dns:///NAME:PORT"
        )
    return "localhost" if match[1] in _THIS_HOST else match[1].lower(), int(match[2])


def path(value: Any) -> Path | None:
    """An absolute path; None stays None.

    Raises:
        ConfigError: it can be none (see `paths.absolute`).
    """
    return paths.absolute(value) if value is not None else None
