"""The rows of benchmarks/fidelity.py as Markdown: a mean and its spread over seeds in every cell."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, str]


def table(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Return three tables: agreement and rank correlation by model, the other scores, and both by alpha and round."""
    settings = list(dict.fromkeys((r["model"], r["dataset"]) for r in rows))
    heads = ["method", *(f"{model}, {dataset}" for model, dataset in settings)]
    lines = [
        "First client is the exact removal's (%) / rank correlation; mean ± deviation over seeds.",
        "",
        *_head(heads),
    ]
    for method in methods:
        cells = []
        for setting in settings:
            of = [r for r in rows if r["method"] == method and (r["model"], r["dataset"]) == setting]
            cells.append(f"{_percent(of, 'agreement')} / {_spread(of, 'correlation')}" if of else "NA")
        lines.append(_line([f"`{method}`", *cells]))
    lines += [
        "",
        *_head(["method", "agrees, %", "rank corr.", "top holder, %", "localization, %", "exact removals' time"]),
    ]
    for method in methods:
        of = [r for r in rows if r["method"] == method]
        costs = [float(r["seconds"]) / float(r["exact_seconds"]) for r in of]
        scores = [_percent(of, "agreement"), _spread(of, "correlation")]
        scores += [_percent(of, "top_holder"), _percent(of, "localization")]
        lines.append(_line([f"`{method}`", *scores, f"{statistics.median(costs):.2f}"]))
    anyone = [r for r in rows if r["method"] == methods[0]]
    lines += ["", f"Chance is {_percent(anyone, 'chance')} for localization.", ""]
    places = list(dict.fromkeys((float(r["alpha"]), "early" if int(r["round"]) == 2 else "last") for r in rows))
    lines += _head(["method", *(f"alpha {alpha:g}, {when}" for alpha, when in sorted(places))])
    for method in methods:
        cells = []
        for alpha, when in sorted(places):
            of = [
                r
                for r in rows
                if r["method"] == method and float(r["alpha"]) == alpha and (int(r["round"]) == 2) == (when == "early")
            ]
            cells.append(f"{_percent(of, 'agreement')} / {_spread(of, 'correlation')}" if of else "NA")
        lines.append(_line([f"`{method}`", *cells]))
    return "\n".join(lines) + "\n"


def _over_seeds(rows: Iterable[Row], column: str) -> list[float]:
    """Return each seed's mean of a column, without empty cells."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if row[column]:
            by_seed.setdefault(row["seed"], []).append(float(row[column]))
    return [statistics.mean(values) for values in by_seed.values()]


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


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
