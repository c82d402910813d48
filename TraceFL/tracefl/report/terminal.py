"""A run in the terminal: progress bars for rounds and clients, one line per round, a table at the end."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tracefl.common.environment import peak_memory
from tracefl.common.words import counted, duration, percent, wrapped
from tracefl.conf.run_names import LAST, last_run
from tracefl.questions.suspects import mean_suspects
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress as RunProgress
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.report import REPORT
from tracefl.report.console import say
from tracefl.report.sentences import MEANING, answer, next_commands

if TYPE_CHECKING:
    from tracefl.questions.replay import Replay

log = logging.getLogger(__name__)

ON_TERMINAL = "on_terminal"
"""Key in a log record's ``extra``: what the terminal shows of it; run.log has the whole message."""

IN_BARS = "in_bars"
"""Key in a log record's ``extra``: the progress bars of a terminal say the same."""


class Terminal(Observer):
    """Shows a run's progress as bars; lines go through the log, so that run.log has them too."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._rounds: TaskID | None = None
        self._clients: TaskID | None = None
        self._run = RunProgress(0)

    def __enter__(self) -> "Terminal":
        self._progress.start()
        self._rounds = self._progress.add_task("preparing", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def run_started(self, progress: RunProgress) -> None:
        """Show the bars; the workers start before the first round."""
        self._run = progress
        if progress.rounds_done:
            log.info("going on after round %d of %d", progress.rounds_done, progress.num_rounds)
        if self._rounds is not None:
            self._progress.reset(
                self._rounds,
                total=progress.num_rounds,
                completed=progress.rounds_done,
                description="rounds (starting)",
            )
        self._clients = self._progress.add_task("clients", total=None)

    def round_started(self, server_round: int, clients: tuple[str, ...]) -> None:
        """Name the round's clients."""
        if self._rounds is not None and self._clients is not None:
            self._progress.update(self._rounds, description=f"round {server_round} of {self._run.num_rounds}")
            shown = " ".join(clients[:6]) + (" ..." if len(clients) > 6 else "")
            self._progress.reset(self._clients, total=len(clients), description=f"clients {shown}")

    def client_replied(self) -> None:
        """Advance the clients' bar."""
        if self._clients is not None:
            self._progress.advance(self._clients)

    def round_finished(self, result: RoundResult) -> None:
        """Advance the rounds' bar and log the round in one line."""
        if self._rounds is not None:
            self._progress.advance(self._rounds)
        row, of, left = result.row, self._run.num_rounds, self._run.seconds_left
        accuracy, seconds = percent(row["global_accuracy"]), row["train_seconds"] + row["provenance_seconds"]
        short = f"round {row['round']} of {of}: accuracy {accuracy}, {row['inputs_traced']} predictions traced"
        short += f", {duration(seconds)}" + (f"; {duration(left)} left" if left else "")
        log.info(
            "round=%d/%d accuracy=%s loss=%.4f localization=%s chance=%s inputs=%d clients=%d "
            "train=%.1fs provenance=%.2fs memory=%s left=%s",
            row["round"],
            of,
            percent(row["global_accuracy"]),
            row["global_loss"],
            percent(row["localization_accuracy"]),
            percent(row["chance_accuracy"]),
            row["inputs_traced"],
            row["clients"],
            row["train_seconds"],
            row["provenance_seconds"],
            decimal(peak_memory()),
            duration(left),
            extra={ON_TERMINAL: short},
        )


def rounds_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return the rounds as a table, percentages beside chance; * marks a round that went without a client."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in (
        "round",
        "global\naccuracy",
        "localization\n(chance)",
        "top\nholder",
        "agree-\nment",
        "corre-\nlation",
        "inputs\ntraced",
        "train\ns",
        "trace\ns",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        correlation = row["counterfactual_correlation"]
        table.add_row(
            f"{row['round']}{'*' if row['clients_dropped'] else ' '}",
            percent(row["global_accuracy"]),
            f"{percent(row['localization_accuracy'])} ({percent(row['chance_accuracy'])})",
            percent(row["top_holder_accuracy"]),
            percent(row["counterfactual_agreement"]),
            "-" if correlation is None else f"{correlation:.2f}",
            str(row["inputs_traced"]),
            _in_five(row["train_seconds"], 1),
            _in_five(row["provenance_seconds"], 2),
        )
    return table


def _in_five(seconds: float, decimals: int) -> str:
    """Return seconds with as many decimals as five columns hold."""
    return next(text for d in range(decimals, -1, -1) if len(text := f"{seconds:.{d}f}") <= 5 or not d)


def columns_key(seeks_faulty: bool, knows_faulty: bool) -> Text:
    """Return what the columns of ``rounds_table`` mean.

    Args:
        seeks_faulty: Only mispredictions are traced, to the faulty clients.
        knows_faulty: It is known which clients are faulty.
    """
    found = "is faulty" if seeks_faulty else "holds its class"
    lines = {
        "localization": f"how often the first client of a prediction {found}",
        "(chance)": "how often a client drawn at random would",
        "top holder": "how often no client of the round holds more of the class",
        "agreement": "how often its exact removal costs the prediction most",
        "correlation": "how alike contributions and removals order the clients, -1 to 1",
    }
    if seeks_faulty:
        del lines["top holder"]
        if not knows_faulty:
            del lines["localization"], lines["(chance)"]
    return Text("\n".join(f"  {name:<15}{words}" for name, words in lines.items()) + "\n", style="dim")


def suspects_table(means: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of how well each rule finds the faulty clients, beside chance.

    Args:
        means: Rule to its means, as in ``suspects`` of results.json.
    """
    first = next(iter(means.values()))
    asked = f"{counted(first['inputs'], 'mispredicted input')} in {counted(first['rounds'], 'round')}"
    without = f", {counted(first['rounds_without_inputs'], 'round')} without" if first["rounds_without_inputs"] else ""
    without += f", {first['rounds_without_faulty']} without a faulty client" if first["rounds_without_faulty"] else ""
    title = f"Who is faulty: {asked}{without}; chance {percent(first['chance_accuracy'])}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rule")
    for heading in (
        "localization\nan input",
        "mean\nrank",
        "precision",
        "AUROC",
        "localization\na round",
        "ms an\ninput",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for rule, mean in means.items():
        if mean["rounds"] == 0:
            table.add_row(rule, *["NA" if mean["note"] else "-"] * 6)
            continue
        auroc, rank = mean["auroc"], mean["mean_rank"]
        table.add_row(
            rule,
            percent(mean["localization_accuracy"]),
            "-" if rank is None else f"{rank:.1f}",
            percent(mean["precision"]),
            "-" if auroc is None else f"{auroc:.2f}",
            percent(mean["whole_localization"]),
            f"{1000 * mean['seconds_per_input']:.1f}",
        )
    return table


def show_run(console: Console, rounds: Sequence[RoundResult], folder: Path) -> None:
    """Print a run's rounds and suspects as tables, its answer in sentences, and what to type next."""
    run = StoredRun(folder)
    console.print(rounds_table([result.row for result in rounds], folder.name))
    if any(result.traced for result in rounds):
        seeks_faulty = all(t.predicted != t.label for result in rounds for t in result.traced)
        console.print(columns_key(seeks_faulty, knows_faulty=run.fault is not None))
    suspects = mean_suspects(row for result in rounds for row in result.suspects)
    if suspects:
        console.print(suspects_table(suspects))
    show_answer(console, run, rounds)


def show_answer(
    console: Console, run: StoredRun, rounds: Sequence[RoundResult], replay: "Replay | None" = None
) -> None:
    """Print what a run found, in sentences, where it is, and commands that ask more.

    Args:
        console: Where to print.
        run: The run.
        rounds: The results of its rounds.
        replay: The same run without some clients, where it was measured.
    """
    for sentence in answer(run, rounds, replay):
        console.print(Text(sentence.text, style="bold" if sentence.is_main else ""))
    console.print(Text(f"({MEANING})", style="dim"))
    console.print()
    if (run.folder / REPORT).exists():
        say(console, f"report: {run.folder / REPORT}")
    say(console, f"run folder: {run.folder}")
    console.print("to ask more:")
    last = last_run()
    is_last = last is not None and last.resolve() == run.folder.resolve()
    for command in next_commands(run, rounds, LAST if is_last else None):
        say(console, f"  {command}")


def interval_text(low: float | None, high: float | None) -> str:
    """Return an interval as text such as ``[-0.12,+0.30]``, ``-`` where there is none."""
    return "-" if low is None or high is None else f"[{low:+.2f},{high:+.2f}]"


def two_ends(ranked: Sequence[str], most: int) -> tuple[list[str], int]:
    """Return the first and last ``most / 2`` ranked items, and how many lie between; ``most`` is even."""
    if len(ranked) <= most:
        return list(ranked), 0
    return [*ranked[: most // 2], *ranked[-(most // 2) :]], len(ranked) - most


@contextmanager
def terminal_lines(console: Console) -> Iterator[None]:
    """Print TraceFL's own log lines and warnings to the terminal within the context."""
    handler = _TerminalHandler(console)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)


class _TerminalHandler(logging.Handler):
    """TraceFL's own lines, above the progress bars; libraries' chatter stays in run.log."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        # The command line itself reports what stops a run, in its last line.
        said = record.name.startswith(("tracefl.", "py.warnings")) and not getattr(record, "said_by_main", False)
        return said and not (self._console.is_terminal and getattr(record, IN_BARS, False))

    def emit(self, record: logging.LogRecord) -> None:
        text = getattr(record, ON_TERMINAL, None) or record.getMessage()
        if record.name == "py.warnings":  # "file:line: Category: message\n  source line"
            text = text.splitlines()[0].split(": ", 2)[-1]
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if self._console.is_terminal:  # in a file a line of the log stays one
            text = wrapped(text, columns=self._console.width)
        with contextlib.suppress(OSError):  # a terminal that is gone, or a full disk behind it: run.log has it all
            say(self._console, text)
