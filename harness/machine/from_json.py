"""Dataclasses from JSON, by their declaration: the way back of `json.dumps(dataclasses.asdict(value))`.

What is read is what is declared: no text counts as a number, and no number as text. So what comes back can be
trusted as far as its types go, and of what is damaged it is said where.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_TOO_LARGE = 1 << 64
"""Nothing of ours is; nor is anything infinite, or no number at all, both of which Python's JSON has."""
_WORDS: Mapping[type, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dict: "object",
    list: "list",
}


def loads(kind: type[T], text: str) -> T:
    """Read a dataclass from a file's text.

    Raises:
        ValueError: the text is no JSON, or not what is declared.
        RecursionError: it is nested too deeply.
    """
    return from_json(kind, json.loads(text))


def from_json(kind: type[T], value: Any, *, is_strict: bool = True) -> T:
    """Make a dataclass, or a tuple of them, of what `json.loads` returned.

    Args:
        kind: made of dataclasses, enums, paths, plain values, tuples, sequences, mappings, and `… | None`.
        value: as read.
        is_strict: whether a key that is not declared is refused, rather than left out.

    Raises:
        ValueError: the value is not what is declared; says where.
    """
    return cast(T, _read(kind, value, "", is_strict))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, value: Any, at: str, is_strict: bool) -> Any:
    origin, of = get_origin(kind), get_args(kind)

    def inner(kind: Any, value: Any, name: object) -> Any:
        return _read(kind, value, f"{at}.{name}".removeprefix("."), is_strict)

    if kind is Any:
        return value
    if origin is UnionType:
        (other,) = set(of) - {NoneType}
        return None if value is None else _read(other, value, at, is_strict)
    if origin in (dict, Mapping):
        key_kind, item_kind = of
        return {
            _key(key_kind, key, at): inner(item_kind, item, key) for key, item in _is(dict, value, at).items()
        }
    if origin in (tuple, list, Sequence):
        items = _is(list, value, at)
        kinds = of if origin is tuple and of[-1] is not ... else of[:1] * len(items)
        if len(kinds) != len(items):
            raise ValueError(f"{at} has {len(items)} items, not {len(kinds)}")
        found = (inner(one, item, n) for n, (one, item) in enumerate(zip(kinds, items, strict=True)))
        return list(found) if origin is list else tuple(found)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        given, hints = _given(kind, _is(dict, value, at), at, is_strict), _hints(kind)
        return kind(**{name: inner(hints[name], item, name) for name, item in given.items()})
    if issubclass(kind, Enum | Path):
        return _made(kind, _is(str, value, at), at)
    number = _made(float, value, at) if kind is float and type(value) is int else _is(kind, value, at)
    if kind in (int, float) and not abs(number) < _TOO_LARGE:
        raise ValueError(f"{at or 'it'} cannot be {str(value)[:40]!r}")
    return number


def _given(kind: Any, value: Mapping[str, Any], at: str, is_strict: bool) -> dict[str, Any]:
    """What there is of the fields of a dataclass."""
    declared = {field.name: field for field in dataclasses.fields(kind)}
    for name, field in declared.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{at or 'it'} has no {name!r}")
    if is_strict and (unknown := value.keys() - declared):
        raise ValueError(f"{at or 'it'} has an unknown {min(unknown)!r}")
    return {name: value[name] for name in declared if name in value}


def _is(kind: type[T], value: Any, at: str) -> T:
    # Not isinstance: true and false would be whole numbers.
    if type(value) is not kind:
        raise ValueError(f"{at or 'it'} is no {_WORDS[kind]}: {str(value)[:40]!r}")
    return value


def _made(kind: Any, value: Any, at: str) -> Any:
    try:
        return kind(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{at or 'it'} cannot be {str(value)[:40]!r}") from error


def _key(kind: Any, key: str, at: str) -> Any:
    """JSON has keys of text only."""
    return _made(kind, key, at) if kind in (int, float) else _read(kind, key, at, is_strict=True)
