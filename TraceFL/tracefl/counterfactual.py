"""What a round's model would predict without each client: ``tracefl counterfactual RUN [round=N]``.

Leaves each client of a stored round out of the average, exactly and one at a time, without training. For every input:
the predicted class's centered logit (its logit less the mean of all), its probability and the prediction, with all
clients and without each. Prints a line per client; csv=FILE writes a row per input and client, --json prints all of it.

inputs=traced asks about the inputs that the run traces (the default; provenance.inputs, inputs_per_label and
max_inputs choose others), inputs=all about all of the server's examples, inputs=correct or inputs=mispredicted about
those that are predicted right or wrong, inputs=3,17 about some of them, counted as in provenance.csv.

shapley=true adds the clients' Shapley values: exact up to 10 clients (shapley=exact), for more an estimate from
permutations=P random orders of the clients (shapley=sampled) with its standard error. Reads the run's folder alone.
"""

from tracefl.conf.readers import OneOf, file, text, whole_number
from tracefl.conf.tool import JSON, Given, Grammar, run_tool

GRAMMAR = Grammar(
    usage="tracefl counterfactual RUN [round=N] [inputs=traced|all|correct|mispredicted|3,17] "
    "[shapley=true|exact|sampled] [permutations=P] [csv=FILE] [--json] [provenance.KEY=VALUE ...] "
    "[privacy.trace=deployed|before_noise]",
    keys={
        **{"round": whole_number, "inputs": text, "csv": file()},
        **{"shapley": OneOf("true", "exact", "sampled"), "permutations": whole_number},
    },
    groups=("provenance", "privacy.trace"),
)


def main() -> None:
    """Leave each client out and print what changes; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    from tracefl.common.text_files import write_atomically
    from tracefl.questions.counterfactual import leave_each_out
    from tracefl.records.tables import to_csv
    from tracefl.report.console import TerminalConsole, say_json
    from tracefl.report.counterfactual import COUNTERFACTUAL_COLUMNS, as_json, counterfactual_rows, show
    from tracefl.report.terminal import terminal_lines

    with terminal_lines(TerminalConsole(stderr=True)):
        truth = leave_each_out(
            given.folder,
            given.get("round"),
            given.get("inputs", "traced"),
            shapley=given.get("shapley"),
            permutations=given.get("permutations"),
            overrides=given.overrides,
        )
    csv = given.get("csv")
    if csv is not None:
        write_atomically(csv, to_csv(COUNTERFACTUAL_COLUMNS, counterfactual_rows(truth)))
    if JSON in given.flags:
        say_json({"run": str(given.folder), **as_json(truth)})
    else:
        show(TerminalConsole(), truth, given.folder.name, csv)


if __name__ == "__main__":
    main()
