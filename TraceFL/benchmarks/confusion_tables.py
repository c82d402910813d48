"""The tables of benchmarks/confusion.py."""

import math
import statistics
from collections.abc import Mapping, Sequence

from fidelity_table import head, line

from tracefl.provenance import StandOuts

Row = Mapping[str, str]
SETTING = ("model", "dataset", "alpha", "fault", "drawn", "seed")
OWN = ("suspicion", "an input", "own effect", "input + own")
_SHOWN = ("cosine", "last_bias", "unlike", "removal", "feddebug")
_PLACE = ("model", "dataset", "alpha", "fault")
_QUANTILES = (0.75, 0.99)
"""Of the honest runs' highest sums, through which a Gumbel distribution is laid."""


def who_is_first(rows: Sequence[Row]) -> list[str]:
    """Return for each setting how often the suspicion is right, and the best of all other rules beside it."""
    places = sorted({tuple(r[name] for name in _PLACE) for r in rows})
    others = [rule for rule in rules_of(rows) if rule not in OWN]
    lines = [
        "Rounds in which the faulty client is suspected most, in %; in brackets, added up, at the last round. The best",
        "other rule is chosen for each line by what it has there.",
        "",
        *head([*_PLACE, "seeds", "rounds", "chance", "suspicion", "best other", "", *_SHOWN, *OWN[1:]]),
    ]
    ahead = 0
    for place in (*places, None):
        of = [r for r in rows if place is None or tuple(r[name] for name in _PLACE) == place]
        counted = {tuple(r[name] for name in (*SETTING, "round")) for r in of}
        best = max(others, key=lambda rule: share(of, rule) if applies(of, rule) else -1.0)
        ahead += place is not None and share(of, "suspicion") >= share(of, best) - 1e-9
        chance = 100 * statistics.mean(float(r["chance"]) for r in of)
        cells = [str(len({r["seed"] for r in of})), str(len(counted)), f"{chance:.0f}"]
        cells += [cell(of, "suspicion"), cell(of, best), best, *(cell(of, rule) for rule in (*_SHOWN, *OWN[1:]))]
        lines.append(line([*(place or ("all", "", "", "")), *cells]))
    return [*lines, "", f"The suspicion is first or tied in {ahead} of {len(places)} lines."]


def every_rule(rows: Sequence[Row]) -> list[str]:
    """Return each rule's share of right rounds by model, and its seconds a round."""
    models = list(dict.fromkeys((r["model"], r["dataset"]) for r in rows))
    names = [f"{model}, {data}" for model, data in models]
    lines = head(["rule", *names, *(f"seconds: {name}" for name in names)])
    for rule in rules_of(rows):
        of = [[r for r in rows if (r["model"], r["dataset"]) == model] for model in models]
        cells = [cell(some, rule) for some in of]
        seconds = [[float(r["seconds"]) for r in some if r["rule"] == rule and r["seconds"]] for some in of]
        lines.append(line([rule, *cells, *(f"{statistics.median(some):.2g}" if some else "" for some in seconds)]))
    return lines


def who_stands_out(runs: Sequence[Row]) -> list[str]:
    """Return in how many runs the faulty client was named, and in how many honest ones anybody; then the bar's fit."""
    bar = StandOuts().bar
    lines = [
        f"Runs in which somebody is named (a sum of {bar:.2f}), and in which it is the faulty client.",
        "",
        *head(["fault", "drawn", "runs", "named", "the faulty one", "of runs that count", "median sum", "highest sum"]),
    ]
    for fault, drawn in sorted({(r["fault"], r["drawn"]) for r in runs}):
        of = [r for r in runs if (r["fault"], r["drawn"]) == (fault, drawn)]
        named = [r for r in of if float(r["total"] or 0) >= bar]
        right = [r for r in named if r["client"] in r["faulty"].split()]
        totals = [float(r["total"] or 0) for r in of]
        some = [str(len(of)), str(len(named)), "" if fault == "none" else str(len(right))]
        some.append(str(sum(r["counted"] != "0" for r in of)))
        lines.append(line([fault, drawn, *some, f"{statistics.median(totals):.2f}", f"{max(totals):.2f}"]))
    honest = sorted(float(r["total"] or 0) for r in runs if r["fault"] == "none")
    if len(honest) > 1:
        low, high = (honest[math.ceil(share * len(honest)) - 1] for share in _QUANTILES)
        spread = math.log(math.log(_QUANTILES[0]) / math.log(_QUANTILES[1]))
        scale = (high - low) / spread
        mode = low + scale * math.log(-math.log(_QUANTILES[0]))
        lines += ["", f"Of the {len(honest)} honest runs: mode {mode:.3f}, scale {scale:.3f} by two quantiles."]
    return lines


def rules_of(rows: Sequence[Row]) -> list[str]:
    """Return the rules in the order in which rows name them."""
    return list(dict.fromkeys(r["rule"] for r in rows))


def applies(rows: Sequence[Row], rule: str) -> bool:
    """Return whether a rule applies to any of these rounds."""
    return any(r["rule"] == rule and r["right"] for r in rows)


def share(rows: Sequence[Row], rule: str) -> float:
    """Return the share of the rounds to which a rule applies in which it is right."""
    return statistics.mean(float(r["right"]) for r in rows if r["rule"] == rule and r["right"])


def cell(rows: Sequence[Row], rule: str) -> str:
    """Return in how many rounds a rule is right, and added up at each run's last round, in %; NA where it never is."""
    if not applies(rows, rule):
        return "NA"
    mine = [r for r in rows if r["rule"] == rule and r["right"]]
    last = {tuple(r[name] for name in SETTING): float(r["added_up"]) for r in mine}
    return f"{100 * share(rows, rule):.0f} ({100 * statistics.mean(last.values()):.0f})"
