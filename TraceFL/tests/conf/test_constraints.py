"""The reader, on a small configuration of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest

from tracefl.conf.constraints import (
    Constraint,
    Count,
    Unused,
    above,
    are_different,
    at_least,
    between,
    described,
    is_index,
    keys_of,
    read,
)
from tracefl.errors import ConfigError


@dataclass(frozen=True)
class Motor:
    enabled: bool
    power: Annotated[float, above(0)]


@dataclass(frozen=True)
class Sail:
    name: ClassVar[str] = "sail"
    area: Annotated[float, between("(0, 1]")]
    reefs: Annotated[int, at_least(0)] | None


@dataclass(frozen=True)
class Spinnaker(Sail):
    name: ClassVar[str] = "spinnaker"
    colour: Annotated[Literal["red", "blue"], Unused("red")]


@dataclass(frozen=True)
class Boat:
    title: str
    crew: Count
    length: Annotated[float, above(0)] | None
    flags: tuple[Literal["pan", "solo"], ...]
    seats: Annotated[tuple[int, ...], described("a list of different seats", lambda v: all(map(is_index, v)))]
    berths: Annotated[tuple[int, ...], Constraint(are_different, "each once")]
    watch: Annotated[int, at_least(1)] | Literal["all"] | None
    chart: bool | Annotated[str, described("a path")]
    depths: Annotated[Mapping[int, int], described("a mapping of depths")]
    motor: Motor | None
    rig: Sail | Spinnaker | None


BOAT = {
    "title": "Ada",
    "crew": 3,
    "length": 7,
    "flags": ["pan"],
    "seats": [0, 2],
    "berths": [],
    "watch": "all",
    "chart": False,
    "depths": {1: 2},
    "motor": {"enabled": True, "power": 2.5},
    "rig": {"name": "sail", "area": 1, "reefs": None, "colour": "red"},
}


def test_a_whole_configuration():
    boat = read(Boat, BOAT)
    assert boat == Boat("Ada", 3, 7, ("pan",), (0, 2), (), "all", False, {1: 2}, Motor(True, 2.5), Sail(1, None))
    assert isinstance(boat.length, int)  # numbers stay as they are


def test_a_group_that_is_off_and_a_choice_of_none_are_none():
    nothing = {"name": "none", "area": None, "reefs": None, "colour": None}
    boat = read(Boat, BOAT | {"motor": {"enabled": False, "power": 1}, "rig": nothing})
    assert (boat.motor, boat.rig) == (None, None)


def test_every_key_is_known():
    assert set(keys_of(Boat)) == {
        *("title", "crew", "length", "flags", "seats", "berths", "watch", "chart", "depths"),
        *("motor.enabled", "motor.power", "rig.name", "rig.area", "rig.reefs", "rig.colour"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": 7}, "title must be text (in quotes where it looks like a number), got 7"),
        ({"title": " "}, "title must be text (in quotes where it looks like a number), got ' '"),
        ({"crew": True}, "crew must be a whole number of at least 1, got True"),
        ({"crew": 0}, "crew must be a whole number of at least 1, got 0"),
        ({"crew": 2.0}, "crew must be a whole number of at least 1, got 2.0"),
        ({"crew": None}, "crew must be a whole number of at least 1, got None"),
        ({"length": 0}, "length must be a number above 0 or null, got 0"),
        ({"length": "7"}, "length must be a number above 0 or null, got '7'"),
        ({"length": True}, "length must be a number above 0 or null, got True"),
        ({"length": float("inf")}, "length must be a number above 0 or null, got inf"),
        ({"length": float("nan")}, "length must be a number above 0 or null, got nan"),
        ({"flags": ["pam"]}, "flags must be a list of pan, solo, or [], got ['pam']"),
        ({"flags": "pan"}, "flags must be a list of pan, solo, or [], got 'pan'"),
        ({"seats": [-1]}, "seats must be a list of different seats, got [-1]"),
        ({"seats": 3}, "seats must be a list of different seats, got 3"),
        ({"berths": [1, 1]}, "berths must be a list of a whole number, or [] each once, got [1, 1]"),
        ({"berths": [1.5]}, "berths must be a list of a whole number, or [] each once, got [1.5]"),
        ({"watch": 0}, "watch must be a whole number of at least 1 or all or null, got 0"),
        ({"watch": "al"}, "watch must be a whole number of at least 1 or all or null, got 'al'; did you mean 'all'?"),
        ({"chart": 1}, "chart must be true or false or a path, got 1"),
        ({"depths": [1]}, "depths must be a mapping of depths, got [1]"),
        ({"motor": {"enabled": 1, "power": 1}}, "motor.enabled must be true or false, got 1"),
        ({"motor": {"enabled": False, "power": 0}}, "motor.power must be a number above 0, got 0"),
        ({"motor": {"enabled": False}}, "motor.power is missing; groups cannot be null and keys cannot be removed"),
        ({"motor": None}, "motor.enabled is missing; groups cannot be null and keys cannot be removed"),
        ({"motors": 1}, "motors is unknown; see --help; did you mean 'motor'?"),
        ({"rig": BOAT["rig"] | {"name": "sial"}}, "rig.name must be one of none, sail, spinnaker, got 'sial'"),
        ({"rig": BOAT["rig"] | {"aera": 1}}, "rig.aera is unknown; see --help; did you mean 'area'?"),
        ({"rig": {"name": "sail"}}, "rig.area is missing; groups cannot be null and keys cannot be removed"),
        ({"rig": BOAT["rig"] | {"area": None}}, "rig.area is null and rig=sail needs it: give rig.area=..."),
        ({"rig": BOAT["rig"] | {"area": 1.1}}, "rig.area must be a number in (0, 1], got 1.1"),
        ({"rig": BOAT["rig"] | {"colour": "blue"}}, "rig.colour=blue needs rig=spinnaker, got rig=sail"),
        ({"rig": BOAT["rig"] | {"name": "none"}}, "rig.area=1 needs rig=sail or rig=spinnaker, got rig=none"),
        (
            {"rig": BOAT["rig"] | {"name": "spinnaker", "colour": "blu"}},
            "rig.colour must be one of red, blue, got 'blu'; did you mean 'blue'?",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError) as caught:
        read(Boat, BOAT | changes)
    assert str(caught.value) == message
