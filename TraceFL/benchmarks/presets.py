"""Compare the provenance presets on the same stored rounds, as a Markdown table.

    tracefl run store=all ...
    python TraceFL/benchmarks/presets.py RUN_FOLDER [RUN_FOLDER ...]

Each number is the mean over all inputs traced in the run's stored rounds; seconds are of the attribution, a round's
mean, without the exact removals that it is checked against.
"""

import json
import logging
import sys
from pathlib import Path

from tracefl.common.words import percent
from tracefl.provenance import summarize
from tracefl.questions.retrace import retrace
from tracefl.records.store import RoundStore

PRESETS = ("removal", "artifact", "paper")
HEADINGS = (
    "run",
    "global accuracy",
    "preset",
    "localization",
    "chance",
    "top holder",
    "counterfactual agreement",
    "correlation",
    "inputs",
    "s a round",
)


def main() -> None:
    """Print the table for the run folders on the command line."""
    logging.captureWarnings(capture=True)
    lines = [HEADINGS, tuple("---" for _ in HEADINGS)]
    for folder in map(Path, sys.argv[1:]):
        accuracy = json.loads((folder / "results.json").read_text())["final"]["global_accuracy"]
        rounds = RoundStore(folder / "rounds").stored_rounds()
        for preset in PRESETS:
            traces = [retrace(folder, n, [f"provenance={preset}"])[1] for n in rounds]
            scores = summarize(tuple(t for trace in traces for t in trace.traced))
            seconds = sum(trace.provenance_seconds for trace in traces) / len(traces)
            accuracies = (
                scores.localization_accuracy,
                scores.chance_accuracy,
                scores.top_holder_accuracy,
                scores.counterfactual_agreement,
            )
            correlation = scores.counterfactual_correlation
            lines.append(
                (
                    folder.name,
                    percent(accuracy),
                    f"`{preset}`",
                    *map(percent, accuracies),
                    "-" if correlation is None else f"{correlation:.2f}",
                    str(scores.inputs_traced),
                    f"{seconds:.2f}",
                )
            )
    sys.stdout.write("".join("| " + " | ".join(line) + " |\n" for line in lines))


if __name__ == "__main__":
    main()
