"""Reads the runs below a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tracefl.conf.composing import resolved_config
from tracefl.conf.key_text import choices
from tracefl.conf.run_names import run_folders
from tracefl.errors import RecordError, one_line
from tracefl.paper.collected_run import CollectedRun, read_run
from tracefl.paper.runs import JOBS
from tracefl.records.settings import Question, read_keys


@dataclass(frozen=True)
class Gathered:
    """The runs below a folder.

    Attributes:
        runs: Every readable run, in the order of their folders; at least one.
        damaged: For each other run, one line on why it cannot be read.
    """

    runs: Sequence[CollectedRun]
    damaged: Sequence[str]

    @property
    def done(self) -> list[CollectedRun]:
        """The complete runs."""
        return [run for run in self.runs if run.state.state == "done"]

    @property
    def unfinished(self) -> list[CollectedRun]:
        """The runs that are not complete."""
        return [run for run in self.runs if run.state.state != "done"]

    def unfinished_lines(self) -> Iterator[str]:
        """Yield one line per unfinished run: how far it is."""
        for run in self.unfinished:
            state = run.state
            why = f" ({state.error})" if state.error else ""
            yield f"{state.state}: {run.row['folder']}, {state.rounds_done} of {state.num_rounds} rounds{why}"


def gather_runs(root: Path) -> Gathered:
    """Read all runs below a folder, except the job scripts' miniatures (``smoke/``).

    Raises:
        RecordError: No run can be read.
    """
    presets = _preset_questions()
    runs: list[CollectedRun] = []
    damaged: list[str] = []
    for folder in run_folders(root):
        if _is_miniature(folder.relative_to(root)):
            continue
        try:
            runs.append(read_run(folder, str(folder.relative_to(root)), presets))
        except (RecordError, OSError) as error:
            damaged.append(one_line(error))
    if not runs:
        raise RecordError(
            f"{root} holds {'only damaged runs' if damaged else 'no run'}; give a run's log_dir"
            + (f" (the first: {damaged[0]})" if damaged else "")
        )
    return Gathered(runs, damaged)


@cache
def _preset_questions() -> dict[str, Question]:
    """Return what each preset that traces asks."""
    read = {name: read_keys(resolved_config([f"provenance={name}"])).provenance for name in choices("provenance")}
    return {name: settings.question for name, settings in read.items() if settings is not None}


def _is_miniature(folder: Path) -> bool:
    return len(folder.parts) > 2 and folder.parts[0] == "smoke" and folder.parts[1] in JOBS
