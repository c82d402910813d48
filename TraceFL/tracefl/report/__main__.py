"""Write the report of a run again: ``tracefl report RUN [html=FILE] [--json]``.

The report is one page for a browser that needs nothing else, no network either: ``report.html`` in the run's folder
unless another file is given. Every run writes it at its end; this command writes it for a run that is still going or
was killed. Reads the run's folder alone and needs neither Flower nor Ray.
"""

from tracefl.conf.readers import file
from tracefl.conf.tool import JSON, Given, Grammar, run_tool

GRAMMAR = Grammar(usage="tracefl report RUN [html=FILE] [--json]", keys={"html": file()})


def main() -> None:
    """Write one report; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    from rich.console import Console

    from tracefl.report.page import write_page
    from tracefl.report.terminal import say, say_json

    html = str(write_page(given.folder, given.get("html")))
    if JSON in given.flags:
        say_json({"run": str(given.folder), "html": html})
    else:
        say(Console(), f"report: {html}")


if __name__ == "__main__":
    main()
