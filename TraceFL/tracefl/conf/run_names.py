"""Which run a command line names: by its folder, by the beginning of its name, or as ``last``."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from tracefl.common.paths import expand
from tracefl.errors import RecordError

LAST = "last"
ROOTS = ("logs", "results")
"""Folders of runs in the current one: those of ``tracefl run``, and of the Flower app."""

_MOST_NAMED = 5
_CLIENTS_NAMED = 8  # in a replay's name
_REPLAYED = re.compile(r".+-without-(\d+(-\d+)*|\d+-clients-[0-9a-f]{8})-from-\d+")


def run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders with a config.yaml, at any depth; what is below one of them is that run's own."""
    for place, folders, files in os.walk(root):
        if "config.yaml" in files:
            folders.clear()
            yield Path(place)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def known_runs() -> list[Path]:
    """Return the runs below ``ROOTS``, the one that was written last first."""
    return sorted((run for root in ROOTS for run in run_folders(Path(root))), key=_written, reverse=True)


def last_run() -> Path | None:
    """Return the run that was written last; None where there is none.

    One that ``tracefl replay`` trained without some clients, in a folder beside the run's, is an answer about that run:
    it would take the place of the run that the next question is about.
    """
    return next((run for run in known_runs() if not _REPLAYED.fullmatch(run.name)), None)


def replay_name(without: Sequence[str], without_from: int) -> str:
    """Return the name of a replay's files, and what follows the run's name in that of a retrained run's folder.

    Args:
        without: Ids of the clients, ascending, one or more.
        without_from: The first round without them.
    """
    named = "-".join(without)
    if len(without) > _CLIENTS_NAMED:
        named = f"{len(without)}-clients-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    return f"without-{named}-from-{without_from}"


def find_run(text: str) -> Path:
    """Return the run that a text names.

    Args:
        text: A run's folder; the beginning of a run's name, or of its path, that no other run shares; or ``last``, the
            ``last_run``. The latter are looked up below ``ROOTS``.

    Raises:
        RecordError: It names no run, or several.
    """
    folder = expand(text)
    if _is_run(folder):
        return folder
    if text == LAST:
        last = last_run()
        if last is None:
            raise RecordError(f"there is no run below {_roots()}; make one with `tracefl run`, or give a run's folder")
        return last
    if folder.is_dir():
        below = sorted(file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/config.yaml"))
        if below:
            raise RecordError(f"{text!r} is no run's folder, but that of {_counted(below)}; give one of them")
        raise RecordError(f"{text!r} is no run's folder: it has no config.yaml")
    runs = known_runs()
    named = [run for run in runs if _begins(run, text)] or _beside(folder)
    exact = [run for run in named if text in (run.name, str(run), _below(run))]
    if len(exact or named) == 1:
        return (exact or named)[0]
    if named:
        raise RecordError(f"{text!r} is the beginning of {_counted(exact or named)}; give more of one")
    raise RecordError(f"no run below {_roots()} has a name that begins with {text!r}{_nearest(text, runs)}")


def below_roots(folder: Path) -> str | None:
    """Return a run's path below one of ``ROOTS``, which ``find_run`` takes; None where it is elsewhere."""
    folder = folder.resolve()
    roots = [root for root in (Path(each).resolve() for each in ROOTS) if root in folder.parents]
    return folder.relative_to(roots[0]).as_posix() if roots else None


def runs_folder(below: str = "") -> Path:
    """Return the first of ``ROOTS`` that exists, and holds a folder where one is named.

    Raises:
        RecordError: There is none.
    """
    for root in ROOTS:
        if (Path(root) / below).is_dir():
            return Path(root)
    missing = f"folder {below!r} in {_roots()}" if below else f"folder {_roots()}"
    raise RecordError(f"there is no {missing}; give the folder of the runs")


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _begins(run: Path, text: str) -> bool:
    """Whether a run's name begins with a text; one with a slash: its path, with or without the folder of all runs."""
    if "/" not in text:
        return run.name.startswith(text)
    return any(path.startswith(text.removeprefix("./")) for path in (str(run), _below(run)))


def _below(run: Path) -> str:
    """Return the path of a known run without the folder of all runs."""
    return "/".join(run.parts[1:])


def _beside(path: Path) -> list[Path]:
    """Return the runs whose path begins with one that leads elsewhere than to ``ROOTS``."""
    if not path.parent.is_dir():
        return []
    return [each for each in sorted(path.parent.iterdir()) if each.name.startswith(path.name) and _is_run(each)]


def _written(run: Path) -> tuple[int, str]:
    """Return when a run's state was last written, in nanoseconds; its path decides between equals."""
    times = [0]
    for name in ("config.yaml", "status.json", "results.json"):
        try:
            times.append((run / name).stat().st_mtime_ns)
        except FileNotFoundError:  # a run that is not so far yet, or is being deleted
            continue
    return max(times), str(run)


def _counted(runs: list[Path]) -> str:
    some = ", ".join(str(run) for run in runs[:_MOST_NAMED])
    return f"{len(runs)} run{'s' * (len(runs) > 1)}: {some}{', ...' if len(runs) > _MOST_NAMED else ''}"


def _nearest(text: str, runs: Iterable[Path]) -> str:
    """Return which runs may have been meant: their names may be much longer than the text."""
    beginnings = {run.name[: len(text) + more]: run.name for run in runs for more in (0, 1)}
    near = dict.fromkeys(beginnings[each] for each in get_close_matches(text, beginnings))
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "; give a run's folder, or `last`"


def _roots() -> str:
    return f"{' or '.join(f'{root}/' for root in ROOTS)} of {Path.cwd()}"
