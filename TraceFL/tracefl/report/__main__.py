"""Write the report of a run again: ``python -m tracefl.report RUN_FOLDER [html=FILE]``.

The report is one page for a browser that needs nothing else, no network either: ``report.html`` in the run's folder
unless another file is given. Every run writes it at its end; this command writes it for a run that is still going or
was killed. Reads the run's folder alone and needs neither Flower nor Ray.
"""

from collections.abc import Sequence

from tracefl.conf.tool import file, read_run_arguments, run_tool

USAGE = "python -m tracefl.report RUN_FOLDER [html=FILE]"


def main() -> None:
    """Write one report; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def _main(arguments: Sequence[str]) -> None:
    given = read_run_arguments(arguments, USAGE, {"html": file()}, flags=())

    from rich.console import Console

    from tracefl.report.page import write_page
    from tracefl.report.terminal import say

    say(Console(), f"report: {write_page(given.folder, given.get('html'))}")


if __name__ == "__main__":
    main()
