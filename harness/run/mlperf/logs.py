"""LoadGen's logs, read."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InferenceError

SUMMARY_LOG = "mlperf_log_summary.txt"
DETAIL_LOG = "mlperf_log_detail.txt"
ACCURACY_LOG = "mlperf_log_accuracy.json"
_PEAK_STEP = re.compile(
    r"base settings field: (?P<first>[\d.]+)"
    r"|Checking fields \[(?P<kept>[\d.]+), (?P<wider>[\d.]+)"
    r"|mid value of bounds \[(?P<low>[\d.]+), (?P<high>[\d.]+)\D+(?P<middle>[\d.]+)"
)
"""LoadGen's words before each test of a search."""
_NO_NUMBER = re.compile(r'("value": *)-?(?:nan|inf)\b')


@dataclass(frozen=True)
class DetailLog:
    """`mlperf_log_detail.txt`: LoadGen's own account of a test, from which every figure is taken."""

    values: dict[str, Any]
    """Last value by key."""
    errors: tuple[str, ...]
    messages: tuple[str, ...] = ()
    """What LoadGen said in passing, in order."""

    def number(self, key: str) -> float | None:
        """A figure, or None where this kind of test has none."""
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def latency_ns(self, figure: str) -> float | None:
        """A latency of queries: `mean`, or a percentile such as `99.00_percentile`; None where there is none.

        Of MultiStream LoadGen logs it under keys of its own: the usual ones are of samples there, which may
        be answered before the rest of their query.
        """
        keys = (f"{figure}_query_latency_ns", f"{figure}_per_query_latency_ns", f"{figure}_latency_ns")
        return next((value for key in keys if (value := self.number(f"result_{key}")) is not None), None)


def read_detail(log_dir: Path) -> DetailLog:
    """Read the detail log of a finished test.

    Raises:
        InferenceError: it is missing or cut short: LoadGen did not finish.
    """
    path = log_dir / DETAIL_LOG
    values: dict[str, Any] = {}
    errors: list[str] = []
    messages: list[str] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith(":::MLLOG "):
                continue
            # Of a single query LoadGen computes rates that are no numbers, which JSON does not have.
            record = json.loads(_NO_NUMBER.sub(r"\1null", line.removeprefix(":::MLLOG ")))
            values[record["key"]] = record["value"]
            if record["key"] == "generic_message":
                messages.append(str(record["value"]))
            if record.get("metadata", {}).get("is_error"):
                errors.append(f"{record['key']}: {record['value']}")
    except (OSError, ValueError, KeyError) as error:
        raise InferenceError(f"LoadGen's {path} cannot be read: {error}") from error
    return DetailLog(values, tuple(errors), tuple(messages))


@dataclass(frozen=True)
class PeakSearch:
    """Where LoadGen's own search for Server's rate is, in queries per second."""

    rate: float
    """That is being tried."""
    low: float | None = None
    """The highest that kept the bound."""
    high: float | None = None
    """The lowest that did not; None as long as all did."""


def peak_search(log_dir: Path) -> PeakSearch | None:
    """What the detail log of a running search says last; None where it does not tell."""
    try:
        text = (log_dir / DETAIL_LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    steps = [*_PEAK_STEP.finditer(text)]
    if not steps:
        return None
    last = steps[-1]
    if last["first"]:
        return PeakSearch(float(last["first"]))
    if last["middle"]:
        return PeakSearch(float(last["middle"]), float(last["low"]), float(last["high"]))
    return PeakSearch(float(last["wider"]), float(last["kept"]))


def read_accuracy(log_dir: Path) -> dict[int, bytes]:
    """Payload by sample index from `mlperf_log_accuracy.json`; the first of a repeated index counts.

    That is the rule of MLCommons' own accuracy scripts.

    Raises:
        InferenceError: the log is missing or damaged.
    """
    path = log_dir / ACCURACY_LOG
    payloads: dict[int, bytes] = {}
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            payloads.setdefault(record["qsl_idx"], bytes.fromhex(record["data"]))
    except (OSError, ValueError, KeyError) as error:
        raise InferenceError(f"LoadGen's {path} cannot be read: {error}") from error
    return payloads
