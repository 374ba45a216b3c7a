"""What `./run.sh limits` can be asked for."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.machine import paths
from harness.machine.command import OneLineParser
from harness.models import MODELS, get_model, get_platform, get_variant
from harness.models.platforms import Platform
from harness.run.config import resolution, run_config
from harness.run.config.run_config import RunConfig
from harness.run.config.values import number, positive
from harness.run.mlperf.rounds import Scenario

_MODELS = "resnet50,mobilenet"
_QUICK_MODELS = "mobilenet"
_ROUNDS, _QUICK_ROUNDS = 3, 1
_SECONDS, _QUICK_SECONDS = 10.0, 3.0
_MOST_ROUNDS = 100
_MAX_SAMPLES = 64
"""Every test loads them anew, which counts as its client's CPU time; of 224x224 float32 they are 39 MB."""
_MAX_SAMPLE_BYTES = 256 << 20
_MIN_SAMPLES = 16
_MOST_SERVERS = 16
_SHORTEST_SOAK_S, _LONGEST_SOAK_S = 10, 24 * 3600
"""A reading a second."""


@dataclass(frozen=True)
class Options:
    """The resolved request."""

    configs: tuple[RunConfig, ...]
    """A model on a platform each; empty where only the null model is asked for."""
    rounds: int
    seconds: float
    """Of each measurement."""
    is_quick: bool
    output: Path
    soak_s: float | None = None
    """Instead of all measurements: how long each model is asked."""
    fleet: tuple[int, ...] = ()
    """Instead of all measurements: how many null servers, and client processes."""


def parser() -> argparse.ArgumentParser:
    """All options; none has a default here, so that `resolve` can tell what was given."""
    result = OneLineParser(
        prog="./run.sh limits",
        description="How close serving comes to the hardware: the bare framework, this harness through "
        "LoadGen and Triton, and a plain tritonclient loop, in turns on one server; then a model that "
        "computes nothing, for what a query costs the client. Prints tables, verdicts and what was written.",
        epilog="Exit codes: 0 measured, whatever the figures; 1 a soak that is not flat; 2 bad usage or "
        "input; 3 server or inference failure; 130 interrupted. Run it on a machine that does nothing "
        "else; by default some 25 minutes.",
        allow_abbrev=False,
    )
    result.add_argument("--model", metavar="LIST", help=f"of {','.join(MODELS)} (default {_MODELS})")
    result.add_argument(
        "--platform", metavar="LIST", help=f"of {','.join(Platform)} (default {Platform.ONNXRUNTIME})"
    )
    result.add_argument("--scenario", metavar="LIST", help=f"of {','.join(Scenario)} (default all)")
    result.add_argument("--rounds", metavar="N", help=f"every path, in turns, N times (default {_ROUNDS})")
    result.add_argument("--time", metavar="SECONDS", help=f"of every measurement (default {_SECONDS:g})")
    result.add_argument(
        "--quick",
        action="store_const",
        const=True,
        help=f"{_QUICK_MODELS}, {_QUICK_ROUNDS} round of {_QUICK_SECONDS:g} s, and fewer setups of the bare "
        "framework are tried: under 3 minutes on two cores, once the model is converted",
    )
    result.add_argument(
        "--null-only", action="store_const", const=True, help="only the model that computes nothing"
    )
    result.add_argument(
        "--soak",
        metavar="DURATION",
        help=f"instead of all that, ask the null model, then --model (default {_QUICK_MODELS}), in Server "
        "for 90s, 30m or 2h each, and print whether memory, descriptors and threads of client, server and "
        "stubs stayed where they were",
    )
    result.add_argument(
        "--fleet",
        metavar="LIST",
        help="instead of all that, so many null servers asked by so many client processes, as 1,2,4: the "
        "curve, who used the cores, what that comes to past one box, and a calculation of Server's p99 "
        "against real runs",
    )
    result.add_argument(
        "--output", metavar="DIR", help="where results go, in a folder of their own (default results/)"
    )
    return result


def resolve(given: Mapping[str, Any]) -> Options:
    """Check what was given on the command line and fill the rest in.

    Raises:
        ConfigError: an unknown word, an impossible value, or options that exclude each other.
    """
    is_quick = bool(given.get("quick"))
    rounds = positive("rounds", given.get("rounds"), int, _MOST_ROUNDS)
    seconds = positive("time", given.get("time"), float, 3600)
    # Neither can be 0.
    rounds = rounds or (_QUICK_ROUNDS if is_quick else _ROUNDS)
    seconds = seconds or (_QUICK_SECONDS if is_quick else _SECONDS)
    if given.get("output") == "":
        raise ConfigError("--output is empty; leave it out, or give it a value")
    output = Path(given.get("output") or paths.RESULTS_DIR).expanduser().absolute()
    soak_s = _soak(given)
    if given.get("fleet") is not None:
        return Options((), rounds, seconds, is_quick, output, fleet=_fleet(given))
    if given.get("null_only"):
        for name in ("model", "platform", "scenario"):
            if given.get(name) is not None:
                raise ConfigError(f"--null-only measures no model and takes no --{name}")
        return Options((), rounds, seconds, is_quick, output, soak_s)
    models = _words("model", given.get("model"), _QUICK_MODELS if is_quick or soak_s else _MODELS)
    platforms = _words("platform", given.get("platform"), Platform.ONNXRUNTIME.value)
    scenario = ",".join(Scenario) if given.get("scenario") is None else given["scenario"]
    configs = tuple(_config(model, platform, scenario) for model in models for platform in platforms)
    return Options(configs, rounds, seconds, is_quick, output, soak_s)


def _soak(given: Mapping[str, Any]) -> float | None:
    """Seconds of a soak, if that was asked for."""
    text = given.get("soak")
    if text is None:
        return None
    for name in ("scenario", "rounds", "time", "quick"):
        if given.get(name) is not None:
            raise ConfigError(f"--soak takes no --{name}: leave one out")
    found = re.fullmatch(r"(\d{1,5})([smh])", text)
    seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0
    if not _SHORTEST_SOAK_S <= seconds <= _LONGEST_SOAK_S:
        raise ConfigError(f"--soak {text!r} is no duration from 10s to 24h, such as 90s, 30m or 2h")
    return seconds


def _fleet(given: Mapping[str, Any]) -> tuple[int, ...]:
    """How many servers and client processes, from few to many."""
    for name in ("model", "platform", "scenario", "null_only", "soak"):
        if given.get(name) is not None:
            raise ConfigError(f"--fleet measures null servers only and takes no --{name.replace('_', '-')}")
    counts = {number("fleet", word, int, _MOST_SERVERS) for word in _words("fleet", given["fleet"], "")}
    return tuple(sorted(counts))


def _config(model: str, platform: str, scenario: str) -> RunConfig:
    spec = get_model(model)
    variant = get_variant(spec, get_platform(platform))
    fitting = max(_MIN_SAMPLES, _MAX_SAMPLE_BYTES // variant.input.sample_bytes)
    count = min(spec.performance_sample_count, _MAX_SAMPLES, fitting)
    return resolution.resolve(
        {
            "model": model,
            "platform": platform,
            "scenario": scenario,
            "count": count,
            "dataset": run_config.SYNTHETIC,
        }
    )


def _words(option: str, text: str | None, default: str) -> list[str]:
    words = [word.strip() for word in (default if text is None else text).split(",") if word.strip()]
    if not words:
        raise ConfigError(f"--{option} is empty; leave it out, or give it a value")
    return list(dict.fromkeys(words))
