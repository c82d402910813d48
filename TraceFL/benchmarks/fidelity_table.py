"""The rows of benchmarks/fidelity.py as Markdown: a mean and its spread over seeds in every cell."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, str]

_PLAIN = "removal, verify=0"
_ROUND = ("model", "dataset", "alpha", "seed", "round")


def table(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Return three tables: agreement and rank correlation by model, the other scores, and both by alpha and round."""
    by_method = {method: [r for r in rows if r["method"] == method] for method in methods}
    by_method = {method: of for method, of in by_method.items() if of}
    return "\n".join((*_by_model(by_method), "", *_in_all(by_method), "", *_by_alpha(by_method))) + "\n"


def _by_model(by_method: Mapping[str, Sequence[Row]]) -> list[str]:
    settings = list(dict.fromkeys((r["model"], r["dataset"]) for of in by_method.values() for r in of))
    lines = [
        "First client is the exact removal's (%) / rank correlation; mean ± deviation over seeds.",
        "",
        *head(["method", *(f"{model}, {dataset}" for model, dataset in settings)]),
    ]
    for method, of in by_method.items():
        cells = [both([r for r in of if (r["model"], r["dataset"]) == s]) for s in settings]
        lines.append(line([f"`{method}`", *cells]))
    return lines


def _in_all(by_method: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return every method's scores, beside those of verify=0 where it was asked about some of the rounds alone."""
    lines = head(
        [
            *("method", "rounds", "agrees, %", "rank corr.", f"`{_PLAIN}` in these rounds", "top holder, %"),
            *("localization, %", "exact removals' time"),
        ]
    )
    for method, of in by_method.items():
        rounds = {_place(r) for r in of}
        plain = [r for r in by_method[_PLAIN] if _place(r) in rounds]
        in_these = both(plain) if len(plain) < len(by_method[_PLAIN]) else ""
        scores = [_percent(of, "agreement"), _spread(of, "correlation"), in_these]
        scores += [_percent(of, "top_holder"), _percent(of, "localization")]
        lines.append(line([f"`{method}`", str(len(of)), *scores, f"{median_cost(of):.2f}"]))
    anyone = by_method[_PLAIN]
    share = statistics.mean(1 / int(r["clients"]) for r in anyone)
    chance = f"Chance is {100 * share:.3g} % for agreement and {_percent(anyone, 'chance')} % for localization."
    return [*lines, "", chance]


def _by_alpha(by_method: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the methods that were asked about every round, by alpha and time."""
    everywhere = len(by_method[_PLAIN])
    places = sorted({_when(r) for r in by_method[_PLAIN]})
    lines = head(["method", *(f"alpha {alpha:g}, {when}" for alpha, when in places)])
    for method, of in by_method.items():
        if len(of) == everywhere:
            lines.append(line([f"`{method}`", *(both([r for r in of if _when(r) == place]) for place in places)]))
    return lines


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in _ROUND)


def _when(row: Row) -> tuple[float, str]:
    return float(row["alpha"]), "early" if int(row["round"]) == 2 else "last"


def _over_seeds(rows: Iterable[Row], column: str) -> list[float]:
    """Return each seed's mean of a column, without empty cells."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if row[column]:
            by_seed.setdefault(row["seed"], []).append(float(row[column]))
    return [statistics.mean(values) for values in by_seed.values()]


def median_cost(rows: Iterable[Row]) -> float:
    """Return a method's time as a fraction of the exact removals', the median of the rows."""
    return statistics.median(float(r["seconds"]) / float(r["exact_seconds"]) for r in rows)


def both(rows: Sequence[Row]) -> str:
    """Return agreement in percent and rank correlation."""
    return f"{_percent(rows, 'agreement')} / {_spread(rows, 'correlation')}" if rows else "NA"


def _spread(rows: Iterable[Row], column: str) -> str:
    means = _over_seeds(rows, column)
    if not means:
        return "NA"
    return f"{statistics.mean(means):.3f}" + (f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else "")


def _percent(rows: Iterable[Row], column: str) -> str:
    means = [100 * value for value in _over_seeds(rows, column)]
    if not means:
        return "NA"
    return f"{statistics.mean(means):.1f}" + (f" ± {statistics.stdev(means):.1f}" if len(means) > 1 else "")


def head(cells: Sequence[str]) -> list[str]:
    """Return a table's first two lines."""
    return [line(cells), line(["---"] * len(cells))]


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"
