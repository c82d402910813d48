"""What each client contributed over a run: ``python -m tracefl.ledger RUN_FOLDER [csv=FILE] [png=FILE] [--json]``.

Adds up the contributions of every traced prediction over all rounds of a run: of each client the total and the mean,
apart for correct and for wrong predictions, in all and by predicted class, with the rounds that it took part in and
the number of predictions that each mean stands on. Prints a line a client, the most useful first, or all of it as JSON;
writes RUN_FOLDER/ledger.csv and RUN_FOLDER/ledger.png. Only what was traced can be accounted for: both kinds of
prediction are with ``provenance.inputs=all``. Reads the run's folder alone, and can read a run that is not over.

The numbers are what rewards, exclusion or a selection of clients can start from, and no proof of good or bad faith: a
client is measured against the others of its rounds, on the server's examples.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracefl.common.text_files import write_atomically
from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError, RecordError
from tracefl.questions.ledger import read_accounts
from tracefl.records.tables import to_csv
from tracefl.report.ledger import LEDGER_COLUMNS, as_json, ledger_rows, show
from tracefl.report.terminal import TerminalConsole

USAGE = "python -m tracefl.ledger RUN_FOLDER [csv=FILE] [png=FILE] [--json]"
_JSON = "--json"


def main() -> None:
    """Account for a run; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def _main(arguments: Sequence[str]) -> None:
    from tracefl.report.explanation_figure import check_figure_path  # matplotlib, only where it is needed
    from tracefl.report.ledger_figure import draw_ledger

    folder, files = _read_arguments(arguments)
    check_figure_path(files["png"])
    accounts = read_accounts(folder)
    write_atomically(files["csv"], to_csv(LEDGER_COLUMNS, ledger_rows(accounts)))
    draw_ledger(accounts, files["png"])
    written = [str(files["csv"]), str(files["png"])]
    if _JSON in arguments:
        found: dict[str, Any] = {"run": str(folder), **as_json(accounts), "files": written}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        show(TerminalConsole(), accounts, folder.name, written)


def _read_arguments(arguments: Sequence[str]) -> tuple[Path, dict[str, Path]]:
    """Return the run's folder and the files to write."""
    folders = [a for a in arguments if a != _JSON]
    if not folders:
        raise ConfigError(f"no run's folder is given; usage: {USAGE}")
    folder, *options = folders
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise RecordError(f"{folder!r} is no run's folder; give one below log_dir, such as logs/default/RUN")
    files = {"csv": root / "ledger.csv", "png": root / "ledger.png"}
    for option in options:
        key, _, value = option.partition("=")
        if key not in files or not value:
            raise ConfigError(f"unknown argument {option!r}; usage: {USAGE}")
        files[key] = Path(value).expanduser()
    return root, files


if __name__ == "__main__":
    main()
