"""Trace a stored round again: ``tracefl trace RUN [round=N] [provenance=PRESET] [baselines=CHOICE]``.

Prints the clients responsible for each traced input; csv=FILE writes them. With the run's own settings these are the
rows of the run's provenance.csv; with others the same question is answered differently on the same weights.

Or ask who is responsible for one prediction, with image=FILE, text=WORDS or input=INDEX. An image is prepared as the
run's images were, a text by the run's own tokenizer; an input is one of the server's examples, counted as in
provenance.csv. against=CLASS, a number or a name, compares the prediction with another class; --json prints everything,
png=FILE draws it.

Reads the run's folder alone and needs neither Flower nor Ray.
"""

from tracefl.conf.readers import PICTURES, file, text, whole_number
from tracefl.conf.tool import JSON, Given, Grammar, run_tool
from tracefl.errors import ConfigError

_WAYS = ("image", "text", "input")
GRAMMAR = Grammar(
    usage="tracefl trace RUN [round=N] [csv=FILE | image=FILE|text=WORDS|input=INDEX [against=CLASS] [png=FILE]] "
    "[--json] [provenance=PRESET] [provenance.KEY=VALUE ...] [baselines=CHOICE] [privacy.trace=deployed|before_noise]",
    keys={
        **{"round": whole_number, "csv": file(), "png": file(*PICTURES)},
        **dict.fromkeys((*_WAYS, "against"), text),
    },
    groups=("provenance", "baselines", "privacy.trace"),
)


def main() -> None:
    """Trace one stored round, or explain one prediction, and print it; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    if given.picked(*_WAYS, "against", "png"):
        _explain(given)
    else:
        _trace(given)


def _trace(given: Given) -> None:
    from tracefl.common.text_files import write_atomically
    from tracefl.questions.retrace import retrace
    from tracefl.records.tables import PROVENANCE_COLUMNS, provenance_rows, to_csv
    from tracefl.report.console import TerminalConsole, say, say_json
    from tracefl.report.terminal import terminal_lines
    from tracefl.report.trace import as_json, show

    with terminal_lines(TerminalConsole(stderr=True)):
        server_round, trace = retrace(given.folder, given.get("round"), given.overrides)
    if "csv" in given.values:
        write_atomically(given.values["csv"], to_csv(PROVENANCE_COLUMNS, provenance_rows(server_round, trace.traced)))
    if JSON in given.flags:
        say_json({"run": str(given.folder), **as_json(server_round, trace)})
    else:
        console = TerminalConsole()
        show(console, server_round, trace)
        if "csv" in given.values:
            say(console, f"written: {given.values['csv']}")


def _explain(given: Given) -> None:
    from tracefl.questions.one_input import explain_stored
    from tracefl.report.console import TerminalConsole, say, say_json
    from tracefl.report.explanation import as_json, show
    from tracefl.report.terminal import terminal_lines

    ways = given.picked(*_WAYS)
    if len(ways) != 1:
        problem = f"{' and '.join(f'{way}=' for way in ways)} are given" if ways else "none is given"
        raise ConfigError(f"one input is asked about: {problem}; give one of image=FILE, text=WORDS or input=INDEX")
    of_rounds = [*given.picked("csv"), *(o for o in given.overrides if o.startswith("baselines"))]
    if of_rounds:
        raise ConfigError(f"{of_rounds[0]} does not go with {ways[0]}=; leave one of them out")
    with terminal_lines(TerminalConsole(stderr=True)):
        answer = explain_stored(
            given.folder, ways[0], given.values[ways[0]], given.get("round"), given.get("against"), given.overrides
        )
    if "png" in given.values:
        from tracefl.report.explanation_figure import draw_explanation  # matplotlib, only where it is needed

        draw_explanation(answer, given.values["png"])
    if JSON in given.flags:
        say_json(as_json(answer))
    else:
        console = TerminalConsole()
        show(console, answer)
        if "png" in given.values:
            say(console, f"written: {given.values['png']}")


if __name__ == "__main__":
    main()
