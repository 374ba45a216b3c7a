"""Dataclasses come back from JSON as they were, and damage is named."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from harness.machine.from_json import from_json, loads


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Thing:
    name: str
    count: int
    is_new: bool
    colour: Colour
    corner: tuple[int, str]
    points: tuple[Point, ...]
    sizes: list[int]
    seen: Sequence[int]
    by_size: dict[int, int]
    by_colour: Mapping[Colour, Point]
    best: Point | None
    share: float | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


THING = Thing(
    name="a",
    count=3,
    is_new=True,
    colour=Colour.RED,
    corner=(1, "b"),
    points=(Point(1.5), Point(2.5, -1.0)),
    sizes=[1, 2],
    seen=(7,),
    by_size={1: 10, 32: 2},
    by_colour={Colour.RED: Point(0.5)},
    best=None,
    share=0.25,
    rest={"any": [{"thing": None}]},
)
PLAIN: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(THING)))


def test_what_was_written_is_read_back_as_it_was() -> None:
    assert loads(Thing, json.dumps(PLAIN)) == THING
    assert isinstance(loads(Thing, json.dumps(PLAIN)).colour, Colour)


def test_paths_and_tables_of_records_are_read_too() -> None:
    @dataclass(frozen=True)
    class Place:
        path: Path

    assert from_json(Place, {"path": "/a/b"}) == Place(Path("/a/b"))
    assert from_json(tuple[Point, ...], [{"x": 1.0}, {"x": 2.0, "y": 3.0}]) == (Point(1.0), Point(2.0, 3.0))


def test_what_is_left_out_has_its_default_and_whole_numbers_may_be_numbers() -> None:
    assert from_json(Point, {"x": 2}) == Point(2.0, 0.0)
    assert isinstance(from_json(Point, {"x": 2}).x, float)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": 1}, "name is no text: '1'"),
        ({"count": "many"}, "count is no whole number: 'many'"),
        ({"count": 3.0}, "count is no whole number: '3.0'"),
        ({"count": True}, "count is no whole number: 'True'"),
        ({"is_new": 1}, "is_new is no true or false: '1'"),
        ({"share": "half"}, "share is no number: 'half'"),
        ({"count": 1 << 64}, "count cannot be '18446744073709551616'"),
        ({"share": float("nan")}, "share cannot be 'nan'"),
        ({"points": [{"x": float("inf")}]}, "points.0.x cannot be 'inf'"),
        ({"colour": "blue"}, "colour cannot be 'blue'"),
        ({"corner": [1]}, "corner has 1 items, not 2"),
        ({"points": [{"x": 1.0}, {"y": 1.0}]}, "points.1 has no 'x'"),
        ({"points": {}}, "points is no list: '{}'"),
        ({"by_size": {"1": "x"}}, "by_size.1 is no whole number: 'x'"),
        ({"by_size": {"one": 1}}, "by_size cannot be 'one'"),
        ({"share": 10**400}, "share cannot be '1000"),
        ({"by_size": [1]}, "by_size is no object"),
        ({"best": []}, "best is no object"),
        ({"best": {"x": 1.0, "z": 1.0}}, "best has an unknown 'z'"),
        ({"rest": None}, "rest is no object: 'None'"),
    ],
)
def test_damage_is_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        from_json(Thing, PLAIN | change)


def test_what_is_missing_is_named_and_so_is_what_is_no_object() -> None:
    with pytest.raises(ValueError, match=r"^it has no 'count'$"):
        from_json(Thing, {"name": "a"})
    with pytest.raises(ValueError, match=r"^it is no object: "):
        from_json(Thing, [])


def test_unknown_keys_may_be_left_out_at_any_depth() -> None:
    changed = PLAIN | {"more": 1, "points": [{"x": 1.0, "z": 2.0}]}
    assert from_json(Thing, changed, is_strict=False).points == (Point(1.0),)
