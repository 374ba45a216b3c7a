"""Options from a file: TOML, an option a line, `max-latency = [0.05, 0.1]`.

Values are handed on as the texts that the command line would have; what they mean is found out there.
Paths are relative to the file's folder.
"""

import tomllib
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, nearest
from harness.machine import paths
from harness.models.manifest import is_user_file
from harness.run.config.options import OPTIONS, Kind
from harness.run.config.run_config import KEEP, OURS
from harness.run.mlperf.reference import is_model_file
from harness.triton.address import beside

_NOT_IN_A_FILE = ("config",)


def read(path: Path) -> dict[str, Any]:
    """Read options by name; True or False for those that take no value.

    Raises:
        ConfigError: there is no such file, it is no TOML, or it has an unknown option or a wrong value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, no TOML, or brackets in thousands of brackets
        raise ConfigError(f"--config {path} is not TOML: {error}") from error
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in OPTIONS or name in _NOT_IN_A_FILE:
            known = [option.replace("_", "-") for option in OPTIONS if option not in _NOT_IN_A_FILE]
            hint = nearest(name.replace("_", "-"), known)
            raise ConfigError(f"{path}: unknown key {key!r}{hint}; its keys are the options of --help")
        if name in found:
            raise ConfigError(f"{path}: {key!r} is there twice, once with _ and once with -")
        found[name] = _text(path, key, OPTIONS[name].kind, value)
    return found


def _text(path: Path, key: str, kind: Kind, value: Any) -> Any:
    is_flag = isinstance(value, bool)
    is_number = isinstance(value, int | float) and not is_flag
    if kind == Kind.REFUSED or (kind == Kind.FLAG and is_flag):
        return value
    if kind == Kind.NUMBER and is_number:
        return str(value)
    if kind == Kind.LIST and isinstance(value, list) and not any(isinstance(v, list | dict) for v in value):
        return ",".join(map(str, value))
    if kind == Kind.LIST and (is_number or isinstance(value, str)):
        return str(value)
    if kind == Kind.REPEATED:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            # What it is may be secret.
            raise ConfigError(f"{path}: {key} is of the wrong type: it takes {kind}")
        return [beside(text, path.parent) for text in texts]
    if kind == Kind.WORD and isinstance(value, str):
        return value
    if kind in (Kind.PATH, Kind.FILE_OR_WORD) and isinstance(value, str):
        return _located(path.parent, key, kind, value)
    # The reference's --cache is a number.
    if kind == Kind.PATH and value == 0 and is_number:
        return "0"
    raise ConfigError(f"{path}: {key} = {value!r} is of the wrong type: it takes {kind}")


def _located(folder: Path, key: str, kind: Kind, value: str) -> str:
    by_key = {"model": is_model_file(value), "server_config": value.lower() not in (KEEP, OURS)}
    is_file = kind == Kind.PATH or by_key.get(key.replace("-", "_"), is_user_file(value))
    # "" is refused where all empty options are.
    return str(paths.absolute(value, folder)) if is_file and value else value
