"""The order of the package's rooms, and the place of the tests' own helpers."""

import re
import sys
from pathlib import Path

import pytest

from documentation import rooms

PACKAGE = Path(__file__).parents[1] / "tracefl"
TESTS = Path(__file__).parent


@pytest.fixture
def package(tmp_path):
    """Write a package of the given files; returns its folder."""

    def write(files):
        folder = tmp_path / "house"
        for name, text in {"__init__.py": "", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return write


def test_every_room_imports_only_lower_ones():
    assert rooms.rising(rooms.room_imports(rooms.file_imports(PACKAGE))) == []


def test_nothing_is_imported_in_a_circle():
    assert rooms.circles(rooms.file_imports(PACKAGE)) == []


def test_flower_and_ray_stay_in_their_rooms():
    users = rooms.library_users(PACKAGE)
    assert {library: users[library] - allowed for library, allowed in rooms.LIBRARIES.items()} == {
        library: set() for library in rooms.LIBRARIES
    }


def test_the_engine_imports_torch_alone():
    libraries = {name for name, users in rooms.library_users(PACKAGE).items() if "provenance" in users}
    assert libraries - set(sys.stdlib_module_names) == {"tracefl", "torch"}


def test_tests_share_only_what_stands_in_helpers():
    imported = {
        (str(path.relative_to(TESTS)), name)
        for path in TESTS.rglob("*.py")
        for name in rooms.imported_names(path)
        if name.split(".")[0] == "tests" and name.split(".")[1] != "helpers"
    }
    assert imported == set()


@pytest.mark.parametrize(
    "text",
    [
        "from house.upper import NAME",
        "from .upper import NAME",
        "import house.upper",
        "from house import upper",
        "def read():\n    from house.upper import NAME",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.upper import NAME",
    ],
)
def test_an_import_from_a_lower_room_to_a_higher_one_is_found(package, text):
    folder = package({"upper.py": "NAME = 1", "lower.py": text})
    imported = rooms.room_imports(rooms.file_imports(folder))
    assert rooms.rising(imported, [["upper"], ["lower"]]) == [("lower", "upper")]
    assert rooms.rising(imported, [["lower"], ["upper"]]) == []


def test_rooms_side_by_side_may_not_import_each_other(package):
    folder = package({"left/__init__.py": "", "left/door.py": "from house.right import NAME", "right.py": "NAME = 1"})
    imported = rooms.room_imports(rooms.file_imports(folder))
    assert rooms.rising(imported, [["left", "right"]]) == [("left", "right")]


def test_a_room_without_a_floor_is_found(package):
    imported = rooms.room_imports(rooms.file_imports(package({"new.py": "from house.old import NAME", "old.py": ""})))
    assert rooms.rising(imported, [["old"]]) == [("new", "old")]


def test_circles_of_files_and_of_rooms(package):
    # a.one -> b -> a.two -> a.one: three files in a circle, and with them the rooms a and b. c hangs below b.
    folder = package(
        {
            "a/__init__.py": "",
            "a/one.py": "import house.b",
            "a/two.py": "from . import one",
            "b.py": "def later():\n    from house.a.two import one\nimport house.c",
            "c.py": "",
        }
    )
    files = rooms.file_imports(folder)
    assert rooms.circles(files) == [{"a.one", "a.two", "b"}]
    assert rooms.circles(rooms.room_imports(files)) == [{"a", "b"}]
    assert rooms.longest_chain(rooms.room_imports(files)) == 2  # the circle, and c
    assert rooms.fewest_rising(rooms.room_imports(files)) == 1


def test_the_table_gives_a_package_in_numbers(package):
    folder = package({"top.py": "import house.base\n\n\n", "base.py": "import json\n", "rest/__init__.py": ""})
    assert rooms.describe(folder).splitlines() == [
        "rooms                 3",
        "floors                2",
        "arrows                1",
        "arrows that run up    0",
        "circles of rooms      0",
        "circles of files      0",
        "biggest room          top, 75% of the lines",
        "lines of the package  4",
        "lines of the tests    0",
        "",
        "base  -",
        "rest  -",
        "top   base",
    ]


def test_nothing_waits_by_a_clock_that_may_jump():
    """What is written for other processes, and the age of a file, are times of day; waits and limits are not."""
    asking = {
        path.name for path in PACKAGE.rglob("*.py") if re.search(r"time\.time\(|datetime.*now\(", path.read_text())
    }
    assert asking == {"claim.py", "status.py"}
