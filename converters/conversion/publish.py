"""An entry of the model repository appears whole or not at all, whenever we are killed."""

import ctypes
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from converters import command
from harness.errors import ConversionError
from harness.machine import file_lock
from harness.models.manifest import GOLDEN_NAME, MANIFEST_NAME

logger = logging.getLogger(__name__)

# Triton and git ignore names that begin with a dot.
_BUILDING = ".tmp-"
_MOVED_ASIDE = ".old-"
_VERSION = "1"
CONFIG_NAME = "config.pbtxt"
_OURS = (CONFIG_NAME, MANIFEST_NAME, GOLDEN_NAME, _VERSION)

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""linux/fs.h"""


@contextmanager
def claim(repository: Path, entry: str) -> Iterator[None]:
    """Be the only process that converts `entry`; what killed ones left behind is cleaned up.

    Raises:
        ConversionError: the repository cannot be written.
    """
    lock = _lock_path(repository, entry)
    with ExitStack() as stack:
        with writing(repository):
            repository.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock.hold(lock))
            stack.enter_context(command.on_signal(lambda: lock.unlink(missing_ok=True)))
            _finish_interrupted_swap(repository, entry)
            _remove_leftovers(repository, entry)
        yield


@contextmanager
def staged(repository: Path, entry: str) -> Iterator[Path]:
    """Give a folder to build a claimed entry in, and put it in the entry's place if the block succeeds.

    Files that others added to the old entry (labels, other versions) are kept.
    """
    staging = repository / f"{_BUILDING}{entry}-{secrets.token_hex(4)}"
    target = repository / entry
    with command.ensured(lambda: shutil.rmtree(staging, ignore_errors=True)):
        with writing(repository):
            (staging / _VERSION).mkdir(parents=True)
        yield staging
        with writing(repository):
            if target.exists():
                _carry_over(target, staging)
                _exchange(staging, target)
            else:
                staging.rename(target)


@contextmanager
def writing(repository: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one line."""
    try:
        yield
    except OSError as error:
        raise ConversionError(
            f"cannot write the model repository {repository}: {error.strerror or error}"
        ) from error


def _carry_over(old: Path, new: Path) -> None:
    for item in old.iterdir():
        if item.name in _OURS:
            continue
        if item.is_dir():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)


def _exchange(staging: Path, target: Path) -> None:
    """Swap two folders in one step; on a file system that can't, in two that `claim` can finish."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(staging), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
        raise OSError(code, os.strerror(code), str(target))
    logger.debug("no atomic exchange on this file system (%s)", os.strerror(code))
    swap_in_two_steps(staging, target)


def swap_in_two_steps(staging: Path, target: Path) -> None:
    """Move the old folder aside, then the new one in."""
    aside = target.with_name(f"{_MOVED_ASIDE}{target.name}")
    target.rename(aside)
    try:
        staging.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _finish_interrupted_swap(repository: Path, entry: str) -> None:
    aside, target = repository / f"{_MOVED_ASIDE}{entry}", repository / entry
    if aside.exists() and not target.exists():
        logger.warning("putting %s back, which a killed conversion had moved aside", target)
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(repository: Path, claimed: str) -> None:
    """Remove what dead processes were building: whoever builds an entry holds its lock."""
    for folder in repository.glob(f"{_BUILDING}*"):
        entry = folder.name.removeprefix(_BUILDING).rpartition("-")[0]
        if entry == claimed or not file_lock.is_held(_lock_path(repository, entry)):
            logger.info("removing %s, left behind by a killed conversion", folder)
            shutil.rmtree(folder, ignore_errors=True)


def _lock_path(repository: Path, entry: str) -> Path:
    return repository / f".lock-{entry}"
