"""What each client contributed over a run: ``tracefl ledger RUN [csv=FILE] [png=FILE] [--json]``.

Adds up the contributions to every traced prediction over all rounds of a run: for each client the total and the mean,
separately for correct and for wrong predictions, in all and by predicted class, with the rounds it took part in and the
number of predictions behind each mean. Prints a line per client, the most useful first, or all of it as JSON; writes
ledger.csv and ledger.png into the run's folder. Only traced predictions count: provenance.inputs=all traces both kinds.
Reads the run's folder alone, and can read a run that is not over; without one of its rounds, damaged or missing, the
sums would be others, so that round is named and nothing is written.

The numbers are a starting point for rewards, exclusion or a selection of clients, and no proof of good or bad faith: a
client is measured against the others of its rounds, on the server's examples.
"""

from tracefl.conf.readers import PICTURES, file
from tracefl.conf.tool import JSON, Given, Grammar, run_tool

GRAMMAR = Grammar(
    usage="tracefl ledger RUN [csv=FILE] [png=FILE] [--json]",
    keys={"csv": file(), "png": file(*PICTURES)},
)


def main() -> None:
    """Account for a run; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    from tracefl.common.text_files import write_atomically
    from tracefl.questions.ledger import read_ledger
    from tracefl.records.tables import to_csv
    from tracefl.report.console import TerminalConsole, say_json
    from tracefl.report.ledger import LEDGER_COLUMNS, as_json, ledger_rows, show
    from tracefl.report.ledger_figure import draw_ledger

    folder = given.folder
    csv, png = given.get("csv", folder / "ledger.csv"), given.get("png", folder / "ledger.png")
    run_ledger = read_ledger(folder)
    write_atomically(csv, to_csv(LEDGER_COLUMNS, ledger_rows(run_ledger)))
    draw_ledger(run_ledger, png)
    written = [str(csv), str(png)]
    if JSON in given.flags:
        say_json({"run": str(folder), **as_json(run_ledger), "files": written})
    else:
        show(TerminalConsole(), run_ledger, folder.name, written)


if __name__ == "__main__":
    main()
