"""The paper's figures and tables from one's own runs: ``tracefl figures [FOLDER] figure=2``.

    figure=2,3   among 2, 3, 4, 5 and 6: a picture as PNG and PDF, and what it
                 draws as CSV. Figure 2 is over the rounds, a file for each
                 alpha; Figure 5 has a second one over the classes
    table=1      among 1, 2 and 3: as CSV, Markdown and LaTeX
    --all        all of them
    exp=NAME     the runs of FOLDER/NAME, whatever they are; without it those of
                 the figure's own experiments
    out=FOLDER   where to write (default: FOLDER/figures)

FOLDER is where the runs are: unless given logs/, or results/ of the Flower app where there is no logs/NAME.

Beside localization accuracy stands its chance level, and beside a setting of the paper its published numbers. Only
complete runs count: the others are named, and so is every setting of the paper that has no run. What is read of a run
are its rounds, each compared with its checksum, and not its CSV tables.
"""

from tracefl.common.paths import expand
from tracefl.conf.readers import SomeOf, folder, text
from tracefl.conf.tool import JSON, Given, Grammar, run_tool
from tracefl.errors import ConfigError

GRAMMAR = Grammar(
    usage="tracefl figures [FOLDER] [exp=NAME] [figure=2,3] [table=1] [--all] [out=FOLDER] [--json]",
    keys={"figure": SomeOf(2, 3, 4, 5, 6), "table": SomeOf(1, 2, 3), "exp": text, "out": text},
    flags=("--all", JSON),
    first="FOLDER",
)


def main() -> None:
    """Draw; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    everything, exp = "--all" in given.flags, given.get("exp")
    if everything and given.picked("exp", "figure", "table"):
        raise ConfigError("--all makes every figure and table from its own runs; leave out exp=, figure= and table=")
    runs = given.runs_folder(exp or "")

    from tracefl.paper.exhibits import EXHIBITS
    from tracefl.paper.write import write_exhibits
    from tracefl.report.console import say_json, table_console

    names = [f"{kind}{number}" for kind in ("figure", "table") for number in given.get(kind, ())]
    names = names or [name for name, exhibit in EXHIBITS.items() if everything or exp in exhibit.keys]
    if not names:
        raise ConfigError("nothing to make is named; give figure=N, table=N or --all")
    found = write_exhibits(
        [EXHIBITS[name] for name in dict.fromkeys(names)],
        folder("exp", str(runs / exp)) if exp else runs,
        own=exp is None,
        needed=not everything,
        out=expand(given.get("out", runs / "figures")),
        console=table_console(stderr=JSON in given.flags),
    )
    if JSON in given.flags:
        say_json(found)


if __name__ == "__main__":
    main()
