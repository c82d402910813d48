"""Write the report of a run again: ``tracefl report RUN [html=FILE] [--json]``.

The report is one page for a browser that needs nothing else, no network either: ``report.html`` in the run's folder
unless another file is given. Every run writes it at its end; this command writes it for a run that is still going or
was killed. Reads the run's folder alone and needs neither Flower nor Ray.

A round that is damaged or missing is named at the top of the page, which is made of the others; the command then says
so too and ends with status 2, as it does where nothing can be written.
"""

from tracefl.conf.readers import file
from tracefl.conf.tool import JSON, Given, Grammar, run_tool

GRAMMAR = Grammar(usage="tracefl report RUN [html=FILE] [--json]", keys={"html": file()})


def main() -> None:
    """Write one report; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    from tracefl.errors import RecordError
    from tracefl.records.reading import lacking_words
    from tracefl.report.console import TerminalConsole, say, say_json
    from tracefl.report.page import read_record, write_page

    record = read_record(given.folder)
    html = write_page(given.folder, given.get("html"), record)
    if JSON in given.flags:
        say_json({"run": str(given.folder), "html": str(html), "lacking": record.lacking})
    else:
        say(TerminalConsole(), f"report: {html}")
    if record.lacking:
        raise RecordError(f"{html} lacks {lacking_words(record.lacking)}; run again for a whole one")


if __name__ == "__main__":
    main()
