"""What a round's model would predict without each client: ``python -m tracefl.counterfactual RUN_FOLDER [round=N]``.

Leaves each client of a stored round out of the average, exactly and one at a time, without training: of every input
the predicted class's centered logit (its logit less the mean of all), its probability and the prediction, with all
clients and without each. Prints a line a client; csv=FILE writes a row an input and client, --json prints all of it.

inputs=traced asks about the inputs that the run traces (the default; provenance.inputs, inputs_per_label and
max_inputs choose others), inputs=all about all of the server's examples, inputs=correct or inputs=mispredicted about
those that are predicted right or wrong, inputs=3,17 about some of them, counted as in provenance.csv.

shapley=true adds the clients' Shapley values: exact up to 10 clients (shapley=exact), for more an estimate from
permutations=P random orders of the clients (shapley=sampled) with its standard error. Reads the run's folder alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.common.text_files import write_atomically
from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError
from tracefl.questions.counterfactual import INPUTS, SHAPLEY, leave_each_out
from tracefl.questions.overrides import read_round
from tracefl.records.tables import to_csv
from tracefl.report.counterfactual import COUNTERFACTUAL_COLUMNS, as_json, counterfactual_rows, show
from tracefl.report.terminal import TerminalConsole, terminal_lines

USAGE = (
    "python -m tracefl.counterfactual RUN_FOLDER [round=N] [inputs=traced|all|correct|mispredicted|3,17] "
    "[shapley=true|exact|sampled] [permutations=P] [csv=FILE] [--json] [provenance.KEY=VALUE ...] "
    "[privacy.trace=deployed|before_noise]"
)
_JSON = "--json"
_KEYS = ("round", "inputs", "shapley", "permutations", "csv")


def main() -> None:
    """Leave each client out and say what changes; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def _main(arguments: Sequence[str]) -> None:
    folders = [a for a in arguments if a != _JSON]
    if not folders:
        raise ConfigError(f"no run's folder is given; usage: {USAGE}")
    folder = Path(folders[0])
    given, overrides = _read([a for a in arguments if a is not folders[0] and a != _JSON])
    csv = Path(given["csv"]).expanduser() if "csv" in given else None
    if csv is not None and (csv.is_dir() or not csv.parent.is_dir()):
        raise ConfigError(f"csv={given['csv']!r}: give a file in a folder that exists")
    permutations = _permutations(given)
    with terminal_lines(Console(stderr=True)):
        truth = leave_each_out(
            folder,
            read_round(given["round"]) if "round" in given else None,
            given.get("inputs", INPUTS[0]),
            shapley=given.get("shapley"),
            permutations=permutations,
            overrides=overrides,
        )
    if csv is not None:
        write_atomically(csv, to_csv(COUNTERFACTUAL_COLUMNS, counterfactual_rows(truth)))
    if _JSON in arguments:
        sys.stdout.write(json.dumps({"run": str(folder), **as_json(truth)}) + "\n")
    else:
        show(TerminalConsole(), truth, folder.name, csv)


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return what is given by key, and the overrides of the run's settings."""
    given: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in given:
            raise ConfigError(f"{key} is given twice: {given[key]!r} and {value!r}")
        if key in _KEYS and value:
            given[key] = value
        elif value and (key in ("provenance", "privacy.trace") or key.startswith("provenance.")):
            overrides.append(argument)
        else:
            raise ConfigError(f"unknown argument {argument!r}; usage: {USAGE}")
    shapley = given.get("shapley", SHAPLEY[0])
    if shapley not in SHAPLEY:
        raise ConfigError(f"shapley must be one of {', '.join(SHAPLEY)}, got {shapley!r}")
    return given, overrides


def _permutations(given: dict[str, str]) -> int | None:
    """Return how many orders of the clients are asked for."""
    if "permutations" not in given:
        return None
    asked = given["permutations"]
    if given.get("shapley") not in ("true", "sampled"):
        raise ConfigError(f"permutations={asked} is for an estimate of Shapley values; give shapley=sampled with it")
    if not asked.isdecimal() or int(asked) < 4 or int(asked) % 2:
        raise ConfigError(f"permutations must be an even number from 4, each order with its reverse, got {asked!r}")
    return int(asked)


if __name__ == "__main__":
    main()
