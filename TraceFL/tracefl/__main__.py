"""The command ``tracefl``: finds the subcommand and hands over to its program. ``python -m tracefl`` is the same."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tracefl import __version__
from tracefl.common.names import did_you_mean
from tracefl.conf.tool import HELP, VERSION, Grammar, answer_at_once, one_line_errors, say_help
from tracefl.errors import ConfigError

PROGRAMS = {
    "demo": ("tracefl.demo", "a first answer in seconds, from a small federation"),
    "run": ("tracefl.main", "train a federation, and trace its predictions to clients"),
    "trace": ("tracefl.trace", "who is responsible for a round's predictions, or for one"),
    "counterfactual": ("tracefl.counterfactual", "what a round's model would predict without each client"),
    "replay": ("tracefl.replay", "a run's rounds again without some of its clients"),
    "ledger": ("tracefl.ledger", "what each client contributed over a run"),
    "report": ("tracefl.report.__main__", "write a run's report.html again"),
    "verify": ("tracefl.verify", "whether a run's folder is whole, and whose"),
    "collect": ("tracefl.collect", "a table of many runs"),
    "figures": ("tracefl.visualize", "the paper's figures and tables, from your own runs"),
    "jobs": ("tracefl.jobs.__main__", "the paper's experiments: list, make and follow their runs"),
}
"""Subcommand to the module whose ``main`` it is, and what it does."""

_LINES = "\n".join(f"    {name:<16}{words}" for name, (_, words) in PROGRAMS.items())
HELP_TEXT = f"""TraceFL {__version__}: which clients of a federation are responsible for a prediction

usage: tracefl COMMAND [RUN] [key=value ...] [--json]

{_LINES}

RUN is a run's folder, the beginning of its name, or `last`: the last one below
logs/ and results/. tracefl COMMAND --help says more. For example:

    tracefl run num_rounds=5 fault=label_flip
    tracefl trace last

Completion by TAB in bash (zsh, fish): eval "$(tracefl --completion bash)"
"""


def main() -> None:
    """Run the command that the arguments name, and leave; one that does not exist is one line and exit status 2."""
    name, *rest = sys.argv[1:] or [""]
    if name == "help":  # as --help, also of a command
        name, rest = (rest[0], ["--help"]) if rest and rest[0] in PROGRAMS else ("--help", [])
    if name in PROGRAMS:
        sys.argv[1:] = rest
        import_module(PROGRAMS[name][0]).main()
    else:
        with one_line_errors():
            _answer(name, rest)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is closed, and freeing millions of objects one by one would take more than a second


def _answer(name: str, rest: Sequence[str]) -> None:
    """Print what no program does: help, version, and what a shell needs to complete words."""
    if name == "--complete":
        from tracefl.conf.completion import complete

        sys.stdout.writelines(f"{word}\n" for word in complete(" ".join(rest), PROGRAMS, _grammar))
    elif name == "--completion":
        from tracefl.conf.completion import SCRIPTS

        shell = rest[0] if rest else ""
        if shell not in SCRIPTS:
            raise ConfigError(f"--completion takes one of {', '.join(SCRIPTS)}, got {shell!r}")
        sys.stdout.write(SCRIPTS[shell])
    elif not name:
        say_help(HELP_TEXT)
    elif "=" in name:
        raise ConfigError(f"no command is given; write tracefl run {name}")
    elif not answer_at_once([name], HELP_TEXT):
        advice = did_you_mean(name, (*PROGRAMS, *HELP, VERSION)) or f"; choose one of {', '.join(PROGRAMS)}"
        raise ConfigError(f"unknown command {name!r}{advice}")


def _grammar(name: str) -> Grammar:
    grammar: Grammar = import_module(PROGRAMS[name][0]).GRAMMAR
    return grammar


if __name__ == "__main__":
    main()
