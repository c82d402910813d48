"""Which parquet files of a folder are a split, by their names or their folder's; never by a shared beginning.

The layouts are those of the Hugging Face hub: ``train-00000-of-00002.parquet``, ``train.parquet``,
``train/0000.parquet``, each at any depth.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefl.common.names import did_you_mean
from tracefl.errors import DataError

DEFAULT_SPLITS = {"train": "train", "test": "test"}
"""The keys ``dataset.train_split`` and ``dataset.test_split`` by default; a split of a longer name may stand in."""

_BEGINNINGS = ("train", "test", "val", "dev", "eval")  # of the names of splits
_SHARD = re.compile(r"-(?P<number>\d+)(-of-(?P<count>\d+))?(-[0-9a-f]{5,})?$")  # at the end of a file's name
_OTHER_FORMATS = (".csv", ".json", ".jsonl")
_MOST_SHOWN = 8


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split.

    Attributes:
        name: Name of the split, or of several, joined by ``+``.
        files: In the order of the names, those of a name in the order of their paths.
        root: Folder of the data set that they belong to.
        notes: What was chosen or is missing, one line each.
    """

    name: str
    files: tuple[Path, ...]
    root: Path
    notes: tuple[str, ...]


def find_split(folder: Path, role: str, wanted: str, remedy: str) -> SplitFiles:
    """Find a split's files.

    Args:
        folder: Where to look, at any depth; hidden files and folders are left out.
        role: ``train`` or ``test``.
        wanted: The key ``dataset.ROLE_split``: a split's exact name, or several joined by ``+``. By default, where
            there is none of that name, the only one whose name begins so is taken, with a note.
        remedy: What to do where files are missing.

    Raises:
        DataError: There is no such split, or one of several must be chosen; or files of several data sets, or of
            several copies of a split, lie together.
    """
    key = f"dataset.{role}_split"
    paths = [path for path in sorted(folder.rglob("*.parquet")) if not _is_hidden(path.relative_to(folder))]
    names, notes = [], []
    found: dict[Path, None] = {}
    roots: set[Path] = set()
    for asked in (part.strip() for part in wanted.split("+")):
        name, files = asked, _named(folder, paths, asked)
        if not files:
            name = _stand_in(folder, paths, key, asked, wanted == DEFAULT_SPLITS[role], remedy)
            files = _named(folder, paths, name)
            notes.append(f"the {role} split is {name!r}: {folder} has none named exactly {asked!r}")
        if found.keys() & files:
            raise DataError(f"{key}={wanted} names {name!r} twice; name each split once")
        notes += _check_one_data_set(folder, name, files, key)
        names.append(name)
        found |= dict.fromkeys(files)
        roots |= set(files.values())
    return SplitFiles("+".join(names), tuple(found), min(roots), tuple(notes))


def check_apart(train: SplitFiles, test: SplitFiles) -> tuple[str, ...]:
    """Check that no file is in both splits; return a note where the splits come from different folders.

    Raises:
        DataError: A file is in both.
    """
    both = sorted(set(train.files) & set(test.files))
    if both:
        raise DataError(
            f"{both[0]} is in the train split {train.name!r} and in the test split {test.name!r}, so clients would "
            "train on what the server tests on; set dataset.train_split or dataset.test_split to another"
        )
    if train.root != test.root:
        return (f"the train split is from {train.root}, the test split from {test.root}",)
    return ()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _named(folder: Path, paths: Sequence[Path], name: str) -> dict[Path, Path]:
    """Return the files of exactly this split, each with the folder of its data set."""
    found = {}
    for path in paths:
        if _folder_name(path, folder) == name and (_own_name(path) == name or not _says_split(_own_name(path))):
            found[path] = path.parent.parent
        elif name in (path.stem, _own_name(path)):
            found[path] = path.parent
    return found


def _own_name(path: Path) -> str:
    """Return a file's name without its ending and its number among the split's files."""
    return _SHARD.sub("", path.stem)


def _folder_name(path: Path, folder: Path) -> str:
    """Return the name of the folder that a file is in; nothing where that is the folder that is read."""
    return "" if path.parent == folder else path.parent.name


def _says_split(name: str) -> bool:
    return name.lower().startswith(_BEGINNINGS)


def _split_of(path: Path, folder: Path) -> str:
    """Return what a file's split is called, as well as its name and that of its folder tell."""
    own, around = _own_name(path), _folder_name(path, folder)
    is_number = own.startswith("part") or not own[:1].isalpha()
    return around if around and not _says_split(own) and (is_number or _says_split(around)) else own


def _stand_in(folder: Path, paths: Sequence[Path], key: str, asked: str, is_default: bool, remedy: str) -> str:
    """Return the only split whose name begins with the default name; refuse where there is not exactly one."""
    there = sorted({_split_of(path, folder) for path in paths})
    longer = [name for name in there if name.startswith(asked)] if is_default else []
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise DataError(
            f"{folder} has no split {asked!r}, but {', '.join(longer)}; choose one by {key}={longer[0]}, or join them "
            f"by {key}={'+'.join(longer)}"
        )
    others = sorted({path.suffix for path in folder.rglob("*") if path.suffix in _OTHER_FORMATS})
    ignored = f" ({' and '.join(others)} files are not read: convert them)" if others else ""
    if not there:
        raise DataError(f"{folder} holds no parquet files at all{ignored}; {remedy}")
    shown = ", ".join(there[:_MOST_SHOWN]) + (", ..." if len(there) > _MOST_SHOWN else "")
    raise DataError(
        f"{folder} has no split {asked!r}, only {shown}{ignored}; set {key} to one that is there"
        f"{did_you_mean(asked, there)}, or {remedy}"
    )


def _check_one_data_set(folder: Path, name: str, files: dict[Path, Path], key: str) -> list[str]:
    """Check that files are one copy of one split of one data set; return a note on those that are missing.

    Raises:
        DataError: They are more than that.
    """
    roots = sorted(set(files.values()))
    if len(roots) > 1:
        raise DataError(
            f"{folder} holds {name} files of {len(roots)} data sets, in {', '.join(map(str, roots))}; set "
            "dataset.path to one of these folders"
        )
    copies = f"split {name!r} is there more than once in {folder}"
    if len({path.parent for path in files}) > 1:
        raise DataError(
            f"{copies}, as files and as a folder; keep one of them, or set dataset.path to the folder of one"
        )
    numbers = defaultdict(list)  # by the rest of the name
    for path in files:
        shard = None if path.stem == name else _SHARD.search(path.stem)
        numbers[_own_name(path)].append((shard and shard["count"], shard and int(shard["number"])))
    notes = []
    for own, shards in numbers.items():
        counts, its = {count for count, _ in shards}, sorted(number or 0 for _, number in shards)
        if len(counts) > 1 or len(set(its)) < len(its):
            raise DataError(f"{copies}: {_shown(own, files)} are not one copy's; keep the files of one")
        (count,) = counts
        first = min(its[0], 1)
        if count is None and len(its) > 1 and its != list(range(first, first + len(its))):
            each = [f"{own}-{number}" for number in its[:_MOST_SHOWN]]
            raise DataError(
                f"{_shown(own, files)} are not numbered 0, 1, ..., so they may be splits of their own; choose one by "
                f"{key}={each[0]}, or join them by {key}={'+'.join(each)}"
            )
        if count is not None and len(its) < int(count):
            notes.append(f"split {name!r} is incomplete: {len(its)} of its {int(count)} files are in {folder}")
    return notes


def _shown(own: str, files: dict[Path, Path]) -> str:
    names = [path.name for path in files if _own_name(path) == own]
    return ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
