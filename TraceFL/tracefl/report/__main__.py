"""Write the report of a run again: ``python -m tracefl.report RUN_FOLDER [html=FILE]``.

The report is one page for a browser that needs nothing else, no network either: ``report.html`` in the run's folder
unless another file is given. Each run writes it at its end; this command writes it for a run that is still going, that
was killed, or that an older version left. It reads only the run's folder and needs neither Flower nor Ray.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.conf.tool import run_tool
from tracefl.errors import ConfigError
from tracefl.report.page import write_page
from tracefl.report.terminal import say

USAGE = "python -m tracefl.report RUN_FOLDER [html=FILE]"


def main() -> None:
    """Write one report; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def _main(arguments: Sequence[str]) -> None:
    folder, *options = arguments
    path = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "html" or not value:
            raise ConfigError(f"unknown argument {option!r}; usage: {USAGE}")
        path = Path(value).expanduser()
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigError(f"html={str(path)!r} is no file in a folder that exists; give a file such as report.html")
    say(Console(), f"report: {write_page(Path(folder).expanduser(), path)}")


if __name__ == "__main__":
    main()
