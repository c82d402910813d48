"""Gather what runs found: ``tracefl collect [FOLDER] [csv=FILE] [markdown=FILE] [--json]``.

Every run below the folder (logs unless given) becomes a row of one CSV (``FOLDER/collected.csv``), and every setting,
over its seeds, a line of a table, beside the published number of the same setting. Unfinished runs are named and are
not in the table; damaged ones are named and left out. Runs in miniature (``smoke/`` of the job scripts) are left out
too. What is read of a run are its rounds, each compared with its checksum, and not its CSV tables.

Where runs looked for faulty clients, two more tables compare the rules: how often each finds one, and its seconds per
input; beside collected.csv then stand suspects_collected.csv (in full), seconds_per_input.png and .pdf, and where
runs differ in the share of flipped labels flipped_share.png. markdown=FILE writes the two tables for a README.
"""

from tracefl.conf.readers import file
from tracefl.conf.tool import JSON, Given, Grammar, run_tool

GRAMMAR = Grammar(
    usage="tracefl collect [FOLDER] [csv=FILE] [markdown=FILE] [--json]",
    keys={"csv": file(), "markdown": file()},
    first="FOLDER",
    alone=True,
)


def main() -> None:
    """Collect and print; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    root = given.runs_folder()

    from tracefl.paper.summary import summarize_runs
    from tracefl.report.console import say_json, table_console

    as_json = JSON in given.flags
    console = table_console(stderr=as_json)
    found = summarize_runs(root, given.get("csv", root / "collected.csv"), console, given.get("markdown"))
    if as_json:
        say_json(found)


if __name__ == "__main__":
    main()
