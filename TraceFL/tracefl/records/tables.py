"""The tables of a run's folder: their columns, and their rows as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tracefl.errors import plain
from tracefl.provenance import TracedInput

_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What a spreadsheet's formula begins with, also as full-width characters."""

ROUND_COLUMNS = (
    "round",
    "global_loss",
    "global_accuracy",
    "class_accuracy",
    "attack_success",
    "localization_accuracy",
    "chance_accuracy",
    "top_holder_accuracy",
    "counterfactual_agreement",
    "counterfactual_correlation",
    "nobody_fraction",
    "inputs_traced",
    "clients",
    "clients_dropped",
    "train_loss",
    "clipping_norm",
    "next_clipping_norm",
    "epsilon",
    "epsilon_by_client",
    "train_seconds",
    "evaluate_seconds",
    "provenance_seconds",
    "counterfactual_seconds",
)

PROVENANCE_COLUMNS = (
    "round",
    "input_index",
    "label",
    "predicted",
    "responsible",
    "contributions",
    "verified",
    "effects",
    "traced_client",
    "expected_clients",
    "localized",
    "chance",
    "top_holder",
    "score",
    "ranking",
    "counterfactual_client",
    "counterfactual_correlation",
    "suspicions",
)
"""One row for each traced input. ``responsible``: the client that carries the prediction, or nobody.
``contributions``, ``effects``: client and its contribution or exact effect, in logits, and ``ranking``: client and its
score, all three in the order of the contributions. ``verified``: whose contribution is its exact effect.
``suspicions``: client and how far it stands out for the input's confusion, in standard deviations, highest first."""

NOBODY = "nobody"
"""In place of a client where no client carries a prediction."""

INPUT_MEASURES = ("localization_accuracy", "mean_rank", "precision", "auroc")

ROUND_MEASURES = ("whole_localization", "whole_rank", "whole_precision", "whole_auroc")

SUSPECT_MEASURES = ("localization_accuracy", "chance_accuracy", "mean_rank", "precision", "auroc", *ROUND_MEASURES)
"""How well a rule finds the faulty clients: input by input, then (``whole_``) with suspicions summed over the round."""

SUSPECT_COLUMNS = (
    "round",
    "rule",
    *SUSPECT_MEASURES,
    "inputs",
    "faulty_clients",
    "clients",
    "seconds",
    "ranking",
    "note",
)
"""``seconds``: the rule's, for all inputs. ``ranking``: client and its summed suspicion, most suspicious first.
``note``: why a rule does not apply."""

STAND_OUT_COLUMNS = ("round", "client", "toward", "total", "since", "honest_share", "named")
"""One row for each participant of a round that counts. ``toward``: the class that it stands out for most, after the
round. ``total``: by how much, added up over its rounds from ``since`` on, in standard deviations. ``honest_share``: of
runs without a faulty client, the share in which somebody reaches that. ``named``: whether it reaches the bar."""

MITIGATION_COLUMNS = (
    "round",
    "client",
    "toward",
    "total",
    "named",
    "gain",
    "window_rounds",
    "window_gain",
    "decision",
    "from_round",
    "factor",
)
"""One row for each participant of a round that counts.

``toward``, ``total``, ``named``: as in the client's last row of stand_outs.csv, by then; empty where nothing is known
of it. ``gain``: accuracy on the server's examples, a fraction, of the round's average without the client less that with
it. ``window_``: over the client's last rounds, this one included; the gain is their median, of an even number the lower
one. ``decision``: exclude, downweight, restore, or too few left; empty where nothing changes. ``from_round``: first
round in which it holds. ``factor``: of the client's weight, 1 restores it.
"""


def provenance_rows(server_round: int, traced: Iterable[TracedInput]) -> Iterable[dict[str, Any]]:
    """Yield the rows of provenance.csv of one round."""
    for t in traced:
        yield {
            **{column: getattr(t, column) for column in PROVENANCE_COLUMNS if column != "round"},
            "round": server_round,
            "responsible": t.responsible or NOBODY,
            "expected_clients": " ".join(t.expected_clients),
            "ranking": _of_clients(t.ranking),
            "contributions": _of_clients(t.contributions),
            "verified": " ".join(t.verified),
            "effects": _of_clients(t.effects),
            "suspicions": _of_clients(t.suspicions),
        }


def csv_parts(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the heading and the lines of rows as CSV text."""
    heading, _, lines = to_csv(columns, rows).partition("\n")
    return f"{heading}\n", lines


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV text; what is None stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    writer.writerows({column: cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula, and no terminal for a command.

    Numbers stay, negative ones too, and so do texts that are numbers.
    """
    if not isinstance(value, str) or not value:
        return value
    if value[0] in _FORMULA and not _is_number(value):
        value = f"'{value}"
    return plain(value, keep="\n\t")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_clients(values: Iterable[tuple[str, float]]) -> str:
    """Return clients and their numbers as text such as ``3:0.75 4:0.25``."""
    return " ".join(f"{client}:{value:.6g}" for client, value in values)
