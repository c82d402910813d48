"""What was found in a run's folder, as lines for the terminal and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from rich.console import Console

from tracefl.common.words import counted, numbers
from tracefl.questions.verify import Verification
from tracefl.report.console import say, say_wrapped

_SIGNATURES = {
    "good": "SHA256SUMS is signed with the key that was given",
    "bad": "SHA256SUMS is not signed with the key that was given",
    "unchecked": "there is one; key=PUBLIC_KEY checks it",
    "none": "there is none; sign=PRIVATE_KEY makes one",
    "made": "made with the key that was given, in SHA256SUMS.sig",
}
_MOST_NAMED = 8


def show(console: Console, found: Verification) -> None:
    """Print what is fine, what is not covered, and what is wrong."""
    over = "complete" if found.is_complete else "not over"
    named = found.not_covered[:_MOST_NAMED]
    more = f" and {len(found.not_covered) - len(named)} more" if len(found.not_covered) > len(named) else ""
    lines = {
        "checksums": f"{counted(found.checked, 'file')} as written",
        "rounds": f"{found.rounds}, the run is {over}",
        "averages": _averages(found),
        "not covered": f"{', '.join(named)}{more}" if named else "nothing",
        "signature": _SIGNATURES[found.signature],
    }
    for name, words in lines.items():
        say_wrapped(console, f"{name:<12} {words}", " " * 13)
    for problem in found.problems:
        say_wrapped(console, f"not whole: {problem}", " " * 11)
    say(console, f"{found.folder} is {'whole' if found.is_whole else 'not whole'}")


def as_json(found: Verification) -> Mapping[str, Any]:
    """Return the same in JSON's types."""
    content = asdict(found)
    del content["folder"]
    for average in content["averages"]:
        average["apart"] = average["apart"] if isfinite(average["apart"]) else None  # JSON has no infinity
    return {"run": str(found.folder), "whole": found.is_whole, **content}


def _averages(found: Verification) -> str:
    if not found.averages:
        return "no clients' weights are stored to average again"
    apart = max(each.apart for each in found.averages)
    rounds = numbers([each.server_round for each in found.averages])
    noise = ", before privacy's noise, which is not checked" if any(a.before_noise for a in found.averages) else ""
    return (
        f"made again of all clients in round{'s' * (len(found.averages) > 1)} {rounds}{noise}: "
        f"{found.averages[-1].numbers} numbers a model, the largest difference {apart:.3g}"
    )
