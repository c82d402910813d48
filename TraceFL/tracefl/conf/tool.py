"""What the small commands share: help, and bad input in one line."""

import sys
from collections.abc import Callable

from tracefl.errors import TraceFLError, one_line


def run_tool(document: str | None, usage: str, run: Callable[[list[str]], None]) -> None:
    """Be a small command: help without arguments or when asked, bad input in one line and exit status 2.

    What else stops it is said in one line too, with the error's own status.

    Args:
        document: The module's docstring.
        usage: One line.
        run: Does the work, given the arguments.
    """
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{document}\nusage: {usage}\n")
        sys.exit(0 if arguments else 2)
    try:
        run(arguments)
    except (TraceFLError, OSError) as error:
        sys.stderr.write(f"tracefl: {one_line(error)}\n")
        sys.exit(getattr(error, "exit_status", 2))
