"""A run again without some of its clients: ``python -m tracefl.replay RUN_FOLDER from=N without=3,7``.

From round N on, as if clients 3 and 7 had not been there. With ``how=reaggregate`` the stored updates of the others are
averaged again, at once: exact in the first round that the clients are missing from, an estimate from then on, as the
others did not train again from the weights that they would have been given; carry=0 to 1 is how much of the difference
is taken to outlive a round of their training. With ``how=train`` the run is made again,
in a folder beside it, RUN_FOLDER-without-3-7-from-N. Without ``how``, the former where the run kept the weights of
rounds N to the last (store=all), else the latter.

Prints global accuracy, attack success (where the run has a fault that aims at a class) and the accuracy of each class,
with and without the clients, or all of it round by round as JSON; writes a CSV, and a figure as PNG and PDF, by default
into RUN_FOLDER.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from tracefl.common.text_files import write_atomically
from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError, RecordError
from tracefl.questions.reaggregation import CARRY
from tracefl.questions.replay import HOWS, Request, replay
from tracefl.records.run import StoredRun
from tracefl.records.tables import to_csv
from tracefl.report.replay import REPLAY_COLUMNS, as_json, replay_rows, show
from tracefl.report.terminal import TerminalConsole

USAGE = (
    "python -m tracefl.replay RUN_FOLDER from=N without=3,7 [how=reaggregate|train] [carry=0.25] [csv=FILE] "
    "[png=FILE] [--json]"
)
_JSON = "--json"
_FILES = ("csv", "png")


def main() -> None:
    """Replay a run; bad input is one line and exit status 2."""
    try:
        run_tool(__doc__, USAGE, _main)
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted; finished rounds stay recorded, and the same command goes on\n")
        sys.stderr.flush()
        os._exit(130)  # Flower's server thread may still wait for its clients


def _main(arguments: Sequence[str]) -> None:
    from tracefl.report.explanation_figure import check_figure_path  # matplotlib, only where it is needed
    from tracefl.report.replay_figure import draw_replay

    request, given = _read_arguments(arguments)
    if "png" in given:
        check_figure_path(given["png"])
        if given["png"].suffix != ".png":
            raise ConfigError(f"png={str(given['png'])!r}: give a file that ends in .png; a PDF is written beside it")
    with redirect_stdout(sys.stderr) if _JSON in arguments else nullcontext():  # a run that trains says its rounds
        found = replay(request, _retrain)
    name = f"replay-{request.name}{'-trained' if found.how == 'train' else ''}"
    csv, png = (given.get(kind, request.folder / f"{name}.{kind}") for kind in _FILES)
    write_atomically(csv, to_csv(REPLAY_COLUMNS, replay_rows(found)))
    written = [str(file) for file in (csv, *draw_replay(found, png.with_suffix("")))]
    if _JSON in arguments:
        sys.stdout.write(json.dumps({"run": str(request.folder), **as_json(found), "files": written}) + "\n")
    else:
        show(TerminalConsole(), found, written)


def _retrain(run: StoredRun, name: str, from_round: int, without: Sequence[str]) -> tuple[Path, str | None]:
    from tracefl.experiment.retraining import retrain  # brings Flower and Ray

    return retrain(run, name, from_round, without)


def _read_arguments(arguments: Sequence[str]) -> tuple[Request, dict[str, Path]]:
    """Return what is asked for, and the files to write that are named."""
    folder, *options = [a for a in arguments if a != _JSON] or [""]
    given = {key: value for key, _, value in (option.partition("=") for option in options)}
    unknown = [o for o in options if o.partition("=")[0] not in ("from", "without", "how", "carry", *_FILES)]
    if unknown:
        raise ConfigError(f"unknown argument {unknown[0]!r}; usage: {USAGE}")
    lacking = [key for key in ("from", "without") if not given.get(key)]
    if lacking or not folder:
        raise ConfigError(f"no {f'{lacking[0]}=' if lacking else 'run'} is given; usage: {USAGE}")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise RecordError(f"{folder!r} is no run's folder; give one below log_dir, such as logs/default/RUN")
    how = next((how for how in HOWS if how == given.get("how")), None)
    if "how" in given and how is None:
        raise ConfigError(f"how must be one of {', '.join(HOWS)}, got {given['how']!r}")
    if not given["from"].isdecimal() or not int(given["from"]):
        raise ConfigError(f"from must be a round, a whole number from 1, got {given['from']!r}")
    if how == "train" and "carry" in given:
        raise ConfigError(f"carry={given['carry']} is for averaging again, and how=train trains; give one of them")
    request = Request(root, int(given["from"]), _read_clients(given["without"]), how, _read_carry(given.get("carry")))
    files = {kind: Path(given[kind]).expanduser() for kind in _FILES if given.get(kind)}
    if "csv" in files and (files["csv"].is_dir() or not files["csv"].parent.is_dir()):
        raise ConfigError(f"csv={given['csv']!r} is no file in a folder that exists; give a file such as replay.csv")
    if "csv" in files and (
        files["csv"].suffix != ".csv"
        or (root.samefile(files["csv"].parent) and not files["csv"].name.startswith("replay"))
    ):
        raise ConfigError(f"csv={given['csv']!r}: give a file that ends in .csv, and none of the run's own")
    return request, files


def _read_carry(given: str | None) -> float:
    try:
        carry = CARRY if given is None else float(given)
    except ValueError:
        carry = -1.0
    if not 0 <= carry <= 1:
        raise ConfigError(f"carry must be a number in [0, 1], got {given!r}")
    return carry


def _read_clients(given: str) -> tuple[str, ...]:
    """Return clients' ids, ascending, each once."""
    numbers = [number.strip() for number in given.strip("[]").split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"without must be the clients' numbers such as 3 or 3,7, got {given!r}")
    return tuple(map(str, sorted({int(number) for number in numbers})))


if __name__ == "__main__":
    main()
