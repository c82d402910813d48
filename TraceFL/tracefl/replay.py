"""A run again without some of its clients: ``tracefl replay RUN without=3,7 [without_from=N]``.

From round N on (1 unless given), as if clients 3 and 7 had not been there. how=reaggregate averages the stored updates
of the others again, at once: exact in the first round that the clients are missing from, an estimate from then on,
because the others did not train again from the weights they would have been given; carry=0 to 1 is how much of the
difference is taken to outlive a round of their training. how=train makes the run again, in a folder beside it,
RUN-without-3-7-from-N. Without how=, the former where the run kept the weights of rounds N to the last
(store=all), else the latter.

What a stored run says decides how it is trained again, and no more: where that happens, what is sent to W&B and which
files are read is said here, by keys such as dataset.path=, device= and wandb.mode=, or is the default.

Prints global accuracy, attack success (where the run has a fault that aims at a class) and the accuracy of each class,
with and without the clients, or all of it round by round as JSON; writes a CSV, and a figure as PNG and PDF, by default
into the run's folder.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from tracefl.conf.readers import OneOf, clients, file, fraction, whole_number
from tracefl.conf.tool import JSON, Given, Grammar, run_tool
from tracefl.errors import ConfigError
from tracefl.records.naming import HERE, NAMES_OR_PLACES

if TYPE_CHECKING:
    from pathlib import Path

    from tracefl.records.run import StoredRun

GRAMMAR = Grammar(
    usage="tracefl replay RUN without=3,7 [without_from=N] [how=reaggregate|train] [carry=0.25] [csv=FILE] "
    "[png=FILE] [--json] [dataset.path=FOLDER] [device=cuda] [wandb.KEY=VALUE ...]",
    keys={
        **{"without_from": whole_number, "without": clients, "how": OneOf("reaggregate", "train"), "carry": fraction},
        **{"csv": file(".csv"), "png": file(".png")},
    },
    groups=(*HERE, *NAMES_OR_PLACES),
)


def main() -> None:
    """Replay a run; bad input is one line and exit status 2."""
    try:
        run_tool(__doc__, GRAMMAR, _main)
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted while no round was made; the same command begins again\n")
        sys.stderr.flush()
        os._exit(130)  # the server's thread may still compute, after a second SIGINT


def _main(given: Given) -> None:
    folder, csv = given.folder, given.get("csv")
    if not given.picked("without"):
        raise ConfigError(f"without= is missing: the clients to leave out{_example(folder)}; {GRAMMAR.advice}")
    if csv is not None and folder.samefile(csv.parent) and not csv.name.startswith("replay"):
        raise ConfigError(f"csv={str(csv)!r}: give a file that is none of the run's own, such as replay.csv")

    from tracefl.common.text_files import write_atomically
    from tracefl.questions.replay import ReplayRequest, replay
    from tracefl.records.tables import to_csv
    from tracefl.report.console import TerminalConsole, say_json
    from tracefl.report.replay import REPLAY_COLUMNS, as_json, replay_rows, show
    from tracefl.report.replay_figure import draw_replay

    request = ReplayRequest(
        folder,
        given.get("without_from", 1),
        given.values["without"],
        given.get("how"),
        given.get("carry"),
        tuple(given.overrides),
    )
    with redirect_stdout(sys.stderr) if JSON in given.flags else nullcontext():  # training prints its rounds
        found = replay(request, _retrain)
    name = f"replay-{request.name}{'-trained' if found.how == 'train' else ''}"
    csv, png = csv or folder / f"{name}.csv", given.get("png", folder / f"{name}.png")
    write_atomically(csv, to_csv(REPLAY_COLUMNS, replay_rows(found)))
    written = [str(path) for path in (csv, *draw_replay(found, png.with_suffix("")))]
    if JSON in given.flags:
        say_json({"run": str(folder), **as_json(found), "files": written})
    else:
        show(TerminalConsole(), found, written)


def _example(folder: "Path") -> str:
    """Return which clients to name: the run's faulty ones, where it has any."""
    from tracefl.records.checksums import CheckedFiles
    from tracefl.records.reading import read_json
    from tracefl.records.schema import FaultFile

    files = CheckedFiles(folder)
    if not files.has("fault.json"):
        return ", such as without=3,7"
    return f"; the run's faulty ones: without={','.join(read_json(files, 'fault.json', FaultFile)['clients'])}"


def _retrain(
    run: "StoredRun", name: str, without_from: int, without: Sequence[str], words: Sequence[str]
) -> "tuple[Path, str | None]":
    from tracefl.experiment.retraining import retrain  # brings Flower and Ray

    return retrain(run, name, without_from, without, words)


if __name__ == "__main__":
    main()
