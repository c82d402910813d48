"""A run's ledger as rows of ledger.csv, as JSON, and as a table in the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tracefl.common.bootstrap import FEWEST, ends
from tracefl.common.words import counted
from tracefl.questions.ledger import RunLedger, Tally
from tracefl.report.console import say_files, say_wrapped
from tracefl.report.terminal import interval_text, two_ends

ALL = "all"
CLIENTS_SHOWN = 20
LEDGER_COLUMNS = (
    "client",
    "faulty",
    "rounds",
    "rounds_dropped",
    "rounds_refused",
    "rounds_capped",
    "rounds_traced",
    "class",
    "class_name",
    *(
        f"{kind}_{what}"
        for kind in ("correct", "wrong")
        for what in ("predictions", "inputs", "total", "total_low", "total_high", "mean", "mean_low", "mean_high")
    ),
    "inputs",
    "usefulness",
    "usefulness_low",
    "usefulness_high",
)
"""Per client, a row over all classes (``class`` is all), then one per predicted class that was traced. ``rounds``:
those it took part in, ``rounds_dropped``: those in which it was sampled but did not count, ``rounds_refused``: those of
them in which its reply was refused, ``rounds_capped``: those in which its update or weight was brought down to a bound,
``rounds_traced``: how many of its rounds have a traced prediction. Totals and means are in logits; a mean over no
prediction is empty. ``inputs``: the different inputs that a number is based on; ``low`` and ``high``: its 95 %
interval by a bootstrap over the inputs, empty for fewer than two."""


def ledger_rows(run_ledger: RunLedger) -> Iterator[dict[str, Any]]:
    """Yield the rows of ledger.csv, in the order of the clients and the classes."""
    ledger = run_ledger.ledger
    for client_id in run_ledger.client_ids:
        whose = {
            "client": client_id,
            "faulty": None if run_ledger.faulty is None else client_id in run_ledger.faulty,
            "rounds": " ".join(map(str, ledger.rounds_of.get(client_id, ()))),
            "rounds_dropped": " ".join(map(str, ledger.dropped.get(client_id, ()))),
            "rounds_refused": " ".join(map(str, ledger.refused.get(client_id, ()))),
            "rounds_capped": " ".join(map(str, ledger.capped.get(client_id, ()))),
            "rounds_traced": len(run_ledger.traced_rounds(client_id)),
        }
        right, wrong = ledger.by_class(client_id, True), ledger.by_class(client_id, False)
        yield {
            **whose,
            "class": ALL,
            **_columns("correct", _numbers(run_ledger, client_id, True)),
            **_columns("wrong", _numbers(run_ledger, client_id, False)),
            **_usefulness(run_ledger, client_id),
        }
        for number in sorted({*right, *wrong}):
            yield {
                **whose,
                "class": number,
                "class_name": run_ledger.label_names[number],
                **_columns("correct", _numbers(run_ledger, client_id, True, number)),
                **_columns("wrong", _numbers(run_ledger, client_id, False, number)),
            }


def as_json(run_ledger: RunLedger) -> dict[str, Any]:
    """Return the whole ledger as JSON, the clients in the order of their ids."""
    ledger = run_ledger.ledger
    return {
        "rounds": ledger.rounds,
        "rounds_traced": ledger.traced_rounds,
        "correct_predictions": run_ledger.predictions(True),
        "wrong_predictions": run_ledger.predictions(False),
        "nobodys_predictions": ledger.nobodys_predictions,
        "unit": "logits",
        "wrong_weight": run_ledger.wrong_weight,
        "method": asdict(run_ledger.method),
        "clients": [
            {
                "client": client_id,
                "faulty": None if run_ledger.faulty is None else client_id in run_ledger.faulty,
                "rounds": ledger.rounds_of.get(client_id, []),
                "rounds_dropped": ledger.dropped.get(client_id, []),
                "rounds_refused": ledger.refused.get(client_id, []),
                "rounds_capped": ledger.capped.get(client_id, []),
                "rounds_traced": run_ledger.traced_rounds(client_id),
                **_usefulness(run_ledger, client_id),
                "correct": _json(run_ledger, client_id, True),
                "wrong": _json(run_ledger, client_id, False),
            }
            for client_id in run_ledger.client_ids
        ],
    }


def show(console: Console, run_ledger: RunLedger, name: str, written: Sequence[str]) -> None:
    """Print the ledger: one line per client, the most useful first, and notes on how it was computed."""
    ledger = run_ledger.ledger
    shown, middle = two_ends(run_ledger.ranked, CLIENTS_SHOWN)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in (
        *("client", "inputs", "correct\ntraced", "mean"),
        *("wrong\ntraced", "mean", "useful-\nness", "95 %\ninterval"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, client_id in enumerate(shown):
        mark = "*" if client_id in (run_ledger.faulty or ()) else ""
        table.add_row(
            f"{mark}{client_id}",
            str(run_ledger.uncertainty.inputs(client_id)),
            *_cells(ledger.tally(client_id, True)),
            *_cells(ledger.tally(client_id, False)),
            f"{run_ledger.usefulness(client_id):+.3f}",
            interval_text(*ends("", run_ledger.uncertainty.usefulness(client_id)).values())
            + ("?" if run_ledger.uncertainty.is_few(client_id) else ""),
            end_section=bool(middle) and place == CLIENTS_SHOWN // 2 - 1,
        )
    say_wrapped(
        console,
        f"{name}: {counted(ledger.rounds, 'round')}, {len(ledger.traced_rounds)} traced; contributions in logits to "
        f"{run_ledger.predictions(True)} correct and {run_ledger.predictions(False)} wrong predictions",
    )
    console.print(table)
    for line in _notes(run_ledger, middle):
        say_wrapped(console, line)
    say_files(console, "by class and with the rounds of each client", written)


def _notes(run_ledger: RunLedger, middle: int) -> Iterator[str]:
    """Yield what a reader of the table needs to know."""
    yield f"usefulness: mean contribution to correct ones less {run_ledger.wrong_weight:g} times that to wrong ones"
    if run_ledger.ledger.nobodys_predictions:
        yield (
            f"nobody carries {run_ledger.ledger.nobodys_predictions} of the predictions: without any one client the "
            "model is as sure; they count in the means as they are"
        )
    yield (
        f"95 % interval: of the usefulness, by a bootstrap over the inputs; ?: fewer than {FEWEST} inputs, so nothing "
        "is settled, and such clients come last"
    )
    if middle:
        yield f"{middle} more clients between the two parts of the table"
    if run_ledger.untraced:
        yield f"without a traced prediction: {len(run_ledger.untraced)} clients, {' '.join(run_ledger.untraced)}"
    if run_ledger.faulty is not None:
        yield f"* faulty: {' '.join(sorted(run_ledger.faulty, key=int))}"
    for correct, kind in ((True, "correct"), (False, "wrong")):
        if not run_ledger.predictions(correct):
            yield f"no {kind} prediction was traced, and it counts as 0; provenance.inputs=all traces both kinds"


def _numbers(run_ledger: RunLedger, client_id: str, correct: bool, of_class: int | None = None) -> dict[str, Any]:
    """Return a client's numbers of correct, or of wrong, predictions, of all classes or of one."""
    ledger, uncertainty = run_ledger.ledger, run_ledger.uncertainty
    by_class = ledger.by_class(client_id, correct)
    tally = ledger.tally(client_id, correct) if of_class is None else by_class.get(of_class, Tally())
    which = client_id, correct, of_class
    return {
        "predictions": tally.predictions,
        "inputs": uncertainty.inputs(*which),
        "total": tally.total,
        **ends("total", uncertainty.total(*which)),
        "mean": tally.mean,
        **ends("mean", uncertainty.mean(*which)),
    }


def _usefulness(run_ledger: RunLedger, client_id: str) -> dict[str, Any]:
    return {
        "inputs": run_ledger.uncertainty.inputs(client_id),
        "usefulness": run_ledger.usefulness(client_id),
        **ends("usefulness", run_ledger.uncertainty.usefulness(client_id)),
    }


def _columns(kind: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind}_{name}": value for name, value in numbers.items()}


def _cells(tally: Tally) -> tuple[str, str]:
    return str(tally.predictions), "-" if tally.mean is None else f"{tally.mean:+.3f}"


def _json(run_ledger: RunLedger, client_id: str, correct: bool) -> dict[str, Any]:
    classes = [
        {
            "class": number,
            "class_name": run_ledger.label_names[number],
            **_numbers(run_ledger, client_id, correct, number),
        }
        for number in sorted(run_ledger.ledger.by_class(client_id, correct))
    ]
    return {**_numbers(run_ledger, client_id, correct), "by_class": classes}
