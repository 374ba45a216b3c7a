"""One file over HTTP: resumable, verified, put in place atomically."""

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import requests
import urllib3

from harness.errors import ConversionError
from harness.machine import progress

logger = logging.getLogger(__name__)

_TIMEOUT_S = (10, 30)
"""To connect, and between two pieces of an answer."""
_ATTEMPTS = 3
"""Tries in a row that bring nothing new."""
_RETRY_AFTER_S = 1.0
_BLOCK_BYTES = 1 << 18
_OK, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 200, 416, 429
_WORK_SUFFIX, _PART = ".download", "part"


def matches(file: Path, known: str) -> bool:
    """Whether `file` is there and has the checksum `known` (`md5:...` or `sha256:...`)."""
    return file.is_file() and checksum(file, known) == known


def checksum(file: Path, known: str) -> str:
    """Checksum of a file, by the algorithm and in the spelling of `known`."""
    with progress.waiting(f"checking {file.name}"):
        return _digest(file, known)


def _digest(file: Path, known: str) -> str:
    algorithm = known.partition(":")[0]
    with file.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def download(urls: Sequence[str], known: str, target: Path, size_bytes: int = 0) -> None:
    """Try every URL until one gives the file with the checksum `known`, then put it at `target`.

    What was downloaded before an interruption is kept beside `target` and used by the next call. Only one
    caller at a time may download the same target.

    Args:
        urls: tried in order.
        known: `md5:...` or `sha256:...`.
        target: replaced if it is there.
        size_bytes: what to expect, for the progress bar; 0 if unknown.

    Raises:
        ConversionError: no URL gave the file; says what each one did.
        OSError: the folder is full or cannot be written.
    """
    work = target.with_name(f".{target.name}{_WORK_SUFFIX}")
    part = work / _PART
    work.mkdir(parents=True, exist_ok=True)
    problems = []
    for url in urls:
        try:
            _retrieve(url, known, part, size_bytes)
        except (requests.RequestException, urllib3.exceptions.HTTPError, _UnusableError) as error:
            problems.append(f"{url} ({_reason(error)})")
        else:
            part.replace(target)
            shutil.rmtree(work)
            return
    if not part.exists():
        shutil.rmtree(work, ignore_errors=True)
    raise ConversionError(f"cannot get {target.name} from {', '.join(problems)}{by_hand(target)}")


def by_hand(target: Path) -> str:
    """What helps where there is no network; the end of an error."""
    return f"; it can be put by hand at {target}"


class _UnusableError(Exception):
    """A server's answer that is not what was asked for."""


def _retrieve(url: str, known: str, part: Path, size_bytes: int) -> None:
    """Download and verify; what was resumed and turns out wrong is fetched once more from its start."""
    was_resumed = part.exists()
    _download_part(url, part, size_bytes)
    found = _digest(part, known)
    if found != known:
        part.unlink()
        if not was_resumed:
            raise _UnusableError(f"it sent another file: expected {known} but got {found}")
        _retrieve(url, known, part, size_bytes)


def _download_part(url: str, part: Path, size_bytes: int) -> None:
    """Bring `part` to its full size, trying again as long as it grows."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, size_bytes)
        except (requests.RequestException, urllib3.exceptions.HTTPError, _UnusableError) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS or not _is_worth_another_try(error):
                raise
            logger.info("%s: %s; trying again", url, _reason(error))
            time.sleep(failures * _RETRY_AFTER_S)


def _attempt(url: str, part: Path, size_bytes: int) -> None:
    """Send one request for what is missing, and write what comes."""
    have = _size(part)
    # Neither resuming nor a checksum goes together with compression on the way.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        first, total = _range_of(response)
        if response.status_code == _RANGE_NOT_SATISFIABLE:
            if total == have:
                return
            part.unlink()
            raise _UnusableError("it has fewer bytes than were downloaded before")
        response.raise_for_status()
        if first not in (0, have):
            part.unlink()
            raise _UnusableError(f"asked to go on at byte {have}, it went on at byte {first}")
        with part.open("ab" if first else "wb") as stream, _bar(part, total or size_bytes, first) as advance:
            for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
                stream.write(block)
                advance(len(block))
    if total and _size(part) != total:
        raise _UnusableError(f"it sent {_size(part)} of {total} bytes")


def _bar(part: Path, total: int, done: int) -> AbstractContextManager[progress.Advance]:
    name = part.parent.name.removeprefix(".").removesuffix(_WORK_SUFFIX)
    return progress.bar(f"downloading {name}", total or None, done=done, unit=progress.BYTES)


def _range_of(response: requests.Response) -> tuple[int, int]:
    """(first byte, total size) of what the server sends; a total of 0 is unknown."""
    content_range = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == _OK or not content_range:
        return 0, int(response.headers.get("Content-Length", 0))
    first, total = content_range.groups()
    return int(first or 0), int(total) if total != "*" else 0


def _is_worth_another_try(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code == _TOO_MANY_REQUESTS
    # A ValueError is a URL that requests cannot read; who did not answer for ten seconds will not now.
    return not isinstance(error, ValueError | requests.ConnectTimeout)


def _reason(error: Exception) -> str:
    """A foreign error in a few words: requests' own text is a page of nested objects."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.ProtocolError):
        return "host name not found" if "resolve" in str(error) else "no connection, or it broke off"
    return str(error)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
