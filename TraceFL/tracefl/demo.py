"""A first answer in seconds: ``tracefl demo``.

Five clients train a small model on handwritten digits, here and now, and one of them is taught that 4 is 9. The demo
then says which predictions went wrong, who carried them, and what the model would be worth without that client. It
leaves a run in logs/demo/ of the current folder, which every other command can ask about; given again, it trains again.
--json prints what was found.

`tracefl run experiment=demo` trains the same federation, with every key of the configuration.
"""

import sys
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from tracefl.conf.tool import JSON, Given, Grammar, run_tool
from tracefl.errors import TraceFLError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracefl.records.result import RoundResult

GRAMMAR = Grammar(usage="tracefl demo [--json]", first=None, alone=True)
OVERRIDES = ("experiment=demo", "overwrite=true")  # it can be given again
NO_KEYS = "tracefl demo takes no keys: go to another folder, or give them to tracefl run experiment=demo"
INTRODUCTION = """\
Five clients train one model on handwritten digits, each on its own images.
One of them was taught that 4 is 9. The server sees nothing but their weights.

"""


def main() -> None:
    """Train, ask and answer; bad input is one line and exit status 2."""
    try:
        run_tool(__doc__, GRAMMAR, _main)
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted; the same command begins again\n")
        sys.exit(130)


def _main(given: Given) -> None:
    with redirect_stdout(sys.stderr) if JSON in given.flags else nullcontext():
        sys.stdout.write(INTRODUCTION)  # before the libraries, which take seconds
        sys.stdout.flush()

        from rich.console import Console

        with Console().status("loading torch, torchvision and Flower"):
            from tracefl.conf.cli import command_line
            from tracefl.conf.composing import compose_config
            from tracefl.experiment.retraining import retrain
            from tracefl.experiment.runner import run_settings
            from tracefl.experiment.settings import read_settings
            from tracefl.questions.replay import ReplayRequest, replay
            from tracefl.records.run import StoredRun
            from tracefl.report.console import say_json
            from tracefl.report.demo import Demo, as_json, show
            from tracefl.report.page import write_page

        shown: list[Demo] = []

        def show_demo(console: Console, rounds: "Sequence[RoundResult]", folder: "Path") -> None:
            run = StoredRun(folder)
            assert run.fault is not None
            without = ReplayRequest(folder, 1, run.fault.clients, "reaggregate")
            shown.append(Demo(run, rounds, replay(without, retrain)))
            write_page(folder, replay=shown[-1].replay)  # again, now with all that is said here
            show(console, shown[-1])

        try:
            run_settings(read_settings(compose_config(OVERRIDES)), command=command_line(OVERRIDES), show=show_demo)
        except TraceFLError as error:  # says which key helps
            raise TraceFLError(f"{error} ({NO_KEYS})", error.exit_status) from error
    if JSON in given.flags:
        say_json(as_json(shown[0]))


if __name__ == "__main__":
    main()
