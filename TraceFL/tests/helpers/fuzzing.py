"""Seeded damage to the folder of a run: what a bad disk, a careless hand or a hostile sender may leave of it."""

import hashlib
import random
import re
from dataclasses import dataclass

from tests.helpers.damage import HUGE, WAYS, is_plain
from tests.helpers.damaged_values import (
    change_cell,
    change_checksums,
    change_header,
    change_json,
    change_tensor,
    change_yaml,
)
from tracefl.records.checksums import CHECKSUMS

_OF_KIND = {
    ".json": (change_json,) * 16,
    ".yaml": (change_yaml,) * 16,
    ".csv": (change_cell,) * 10,
    ".safetensors": (*(change_tensor,) * 8, *(change_header,) * 4),
    CHECKSUMS: (change_checksums,) * 10,
}
"""Ways beside those that suit every file, by a file's name or the end of it."""

_NOT_READ = (".png", ".log", ".html")
_TRIES = 20


@dataclass(frozen=True)
class Mutation:
    """What was done.

    Attributes:
        name: The file, within the folder.
        words: What was done to it.
        sums: Which checksums were made again: none (``stale``), those of the file's round (``round``), or all that
            there are (``fresh``).
        changed: Files that are not as they were.
        gone: Those of them that are not there any more.
    """

    name: str
    words: str
    sums: str
    changed: frozenset
    gone: frozenset

    def __str__(self):
        return f"{self.name}: {self.words}, checksums {self.sums}"


def mutate(folder, seed, aside):
    """Damage a run's folder in one place, as the seed says.

    Args:
        folder: The run's folder.
        seed: Of what is done.
        aside: A folder that is not there yet, for what a link leads to.
    """
    aside.mkdir()
    draw = random.Random(seed)
    before = _state(folder)
    for _ in range(_TRIES):
        name = _pick(folder, draw)
        path = folder / name
        way = draw.choice((*WAYS, *_OF_KIND.get(path.name, _OF_KIND.get(path.suffix, ()))))
        words = way(path, draw, aside)
        if words is not None and _state(folder) != before:
            break
    else:
        raise AssertionError(f"{_TRIES} tries changed nothing, with seed {seed!r}")
    sums = "stale" if path.name == CHECKSUMS else draw.choices(("stale", "round", "fresh"), (4, 1, 4))[0]
    if sums != "stale":
        make_again(folder, sums)
    after = _state(folder)
    changed = frozenset(name for name in {*before, *after} if before.get(name) != after.get(name))
    return Mutation(name, words, sums, changed, changed - after.keys())


def make_again(folder, which="fresh"):
    """Make checksums again as somebody does who wants damage to pass: ``round``, of the rounds alone, or ``fresh``."""
    for sums in sorted(folder.rglob(CHECKSUMS), key=lambda path: -len(path.parts)):
        if is_plain(sums) and (sums.parent != folder or which == "fresh"):
            names = dict.fromkeys(line[66:] for line in sums.read_text().splitlines())
            there = [name for name in names if is_plain(sums.parent / name)]
            sums.write_text("".join(f"{_sha256(sums.parent / name)}  {name}\n" for name in there))


def _state(folder):
    """Return the checksum of every file; None of a pipe and the like."""
    there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {path.relative_to(folder).as_posix(): _sha256(path) if is_plain(path) else None for path in there}


def _pick(folder, draw):
    """Return a file's name: each kind of file is as likely, however many there are of it."""
    kinds = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if is_plain(path) and path.suffix not in _NOT_READ:
            kinds.setdefault(re.sub(r"\d+", "N", name), []).append(name)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def _sha256(path):
    if path.stat().st_size >= HUGE:
        return "0" * 64  # nobody waits for that
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
