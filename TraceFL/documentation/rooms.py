"""The rooms of a package, and which of them import which: ``python -m documentation.rooms [PACKAGE_FOLDER]``.

A room is a module or folder directly in the package's folder. Imports are read from the source with ``ast``, wherever
they are: those inside functions and under ``TYPE_CHECKING`` count like all others.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

#: Rooms of tracefl, top to bottom: a room imports only rooms on lines below its own.
FLOORS = (
    ("__main__",),
    ("jobs",),
    (
        "main",
        "demo",
        "trace",
        "counterfactual",
        "replay",
        "ledger",
        "verify",
        "collect",
        "visualize",
        "client_app",
        "server_app",
    ),
    ("experiment", "paper"),
    ("report", "federation"),
    ("questions",),
    ("records",),
    ("learning",),
    ("provenance", "conf"),
    ("common",),
    ("errors",),
)
#: Libraries that belong to a few rooms, and those rooms.
LIBRARIES = {
    "flwr": {"federation", "client_app", "server_app"},
    "ray": {"federation"},
    "wandb": {"report"},
}

Graph = Mapping[str, Set[str]]


def read_files(package: Path) -> dict[str, Path]:
    """Return a package's modules: dotted name, without the package's own, to file; a folder's is its ``__init__``."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:  # the package's own __init__ is no room
            files[name] = path
    return files


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted name of each import of a file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if node.level else None
            above = _dotted(folder) if folder else []
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def _dotted(folder: Path) -> list[str]:
    """Return the names of a folder's packages, the outermost first."""
    return [*_dotted(folder.parent), folder.name] if (folder / "__init__.py").exists() else []


def file_imports(package: Path) -> dict[str, set[str]]:
    """Return the modules of the package that each of its modules imports."""
    files = read_files(package)
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for imported in imported_names(path):
            top, _, inner = imported.partition(".")
            while top == package.name and inner and inner not in files:  # an object's name: take its module
                inner = inner.rpartition(".")[0]
            if top == package.name and inner:
                graph[name].add(inner)
        graph[name].discard(name)
    return graph


def room_imports(files: Graph) -> dict[str, set[str]]:
    """Return the rooms that each room imports, from the imports of the files."""
    rooms: dict[str, set[str]] = {name.split(".")[0]: set() for name in files}
    for name, imported in files.items():
        room = name.split(".")[0]
        rooms[room] |= {each.split(".")[0] for each in imported} - {room}
    return rooms


def library_users(package: Path) -> dict[str, set[str]]:
    """Return the libraries and other packages that are imported, and the rooms that import each."""
    users: dict[str, set[str]] = {}
    for name, path in read_files(package).items():
        for imported in imported_names(path):
            users.setdefault(imported.split(".")[0], set()).add(name.split(".")[0])
    return users


def circles(graph: Graph) -> list[set[str]]:
    """Return the largest sets of two or more names that all lead to one another."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {frozenset({name, *(each for each in ends if name in reached[each])}) for name, ends in reached.items()}
    return sorted((set(circle) for circle in found if len(circle) > 1), key=sorted)


def _reached(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - reached
        reached |= new
        ahead.extend(new)
    return reached


def longest_chain(graph: Graph) -> int:
    """Return the number of names in the longest chain of imports; a circle counts as one name."""
    representative = {name: min(circle) for circle in circles(graph) for name in circle}
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in heights:
            members = {each for each in graph if representative.get(each, each) == name}
            below = {representative.get(each, each) for member in members for each in graph[member]} - {name}
            heights[name] = 1 + max(map(height, below), default=0)
        return heights[name]

    return max((height(representative.get(name, name)) for name in graph), default=0)


def rising(rooms: Graph, floors: Sequence[Sequence[str]] = FLOORS) -> list[tuple[str, str]]:
    """Return the imports, as (room, imported), that lead to no lower floor, and those with a room on no floor."""
    floor = {room: number for number, names in enumerate(floors) for room in names}
    return sorted(
        (room, imported)
        for room, below in rooms.items()
        for imported in below
        if room not in floor or imported not in floor or floor[imported] <= floor[room]
    )


def fewest_rising(rooms: Graph) -> int:
    """Return how many imports point upwards in the best order of the rooms, for packages without ``FLOORS``."""
    return sum(_fewest_in(circle, rooms) for circle in circles(rooms))


def _fewest_in(circle: set[str], rooms: Graph) -> int:
    """Return the fewest upward imports over all orders of these rooms, placed one by one from the bottom."""
    fewest = {frozenset[str](): 0}
    for _ in circle:
        higher: dict[frozenset[str], int] = {}
        for below, count in fewest.items():
            for room in circle - below:
                laid, up = below | {room}, count + len((rooms[room] & circle) - below)
                higher[laid] = min(up, higher.get(laid, up))
        fewest = higher
    return fewest[frozenset(circle)]


def count_lines(folder: Path) -> int:
    """Return the number of lines in the folder's Python files."""
    return sum(path.read_text(encoding="utf-8").count("\n") for path in folder.rglob("*.py"))


def describe(package: Path) -> str:
    """Return a table of a package's numbers, and its rooms with the rooms that each imports."""
    files = file_imports(package)
    rooms = room_imports(files)
    lines = dict.fromkeys(rooms, 0)
    for name, path in read_files(package).items():
        lines[name.split(".")[0]] += path.read_text(encoding="utf-8").count("\n")
    biggest = max(lines, key=lines.__getitem__)
    has_floors = {room for names in FLOORS for room in names} >= set(rooms)
    numbers = {
        "rooms": len(rooms),
        "floors": longest_chain(rooms),
        "arrows": sum(map(len, rooms.values())),
        "arrows that run up": len(rising(rooms)) if has_floors else fewest_rising(rooms),
        "circles of rooms": _shown(circles(rooms)),
        "circles of files": _shown(circles(files)),
        "biggest room": f"{biggest}, {lines[biggest] / sum(lines.values()):.0%} of the lines",
        "lines of the package": count_lines(package),
        "lines of the tests": count_lines(package.parent / "tests"),
    }
    table = [f"{name:<22}{number}" for name, number in numbers.items()]
    width = max(map(len, rooms)) + 2
    listed = [f"{room:<{width}}{', '.join(sorted(below)) or '-'}" for room, below in sorted(rooms.items())]
    return "\n".join([*table, "", *listed])


def _shown(found: Sequence[Set[str]]) -> str:
    return "; ".join([str(len(found)), *(", ".join(sorted(circle)) for circle in found)])


if __name__ == "__main__":
    sys.stdout.write(describe(Path(sys.argv[1] if sys.argv[1:] else "tracefl").resolve()) + "\n")
