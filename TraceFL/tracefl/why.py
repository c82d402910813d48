"""Who is responsible for this prediction? One input of a stored run, explained: tables, JSON or a picture.

    python -m tracefl.trace RUN_FOLDER [round=N] image=FILE|text=WORDS|input=INDEX [against=CLASS] [--json] [png=FILE]

An image is prepared as the run's images were, a text by the run's own tokenizer; an input is one of the server's
examples, counted as in provenance.csv.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tracefl.errors import ConfigError
from tracefl.provenance import explain
from tracefl.questions.one_input import WAYS, find_class, read_question
from tracefl.questions.overrides import GROUPS, asks_before_noise, read_round, read_tracer
from tracefl.records.run import StoredRun
from tracefl.report.explanation import as_json, show
from tracefl.report.explanation_figure import check_figure_path, draw_explanation
from tracefl.report.terminal import TerminalConsole, terminal_lines

USAGE = (
    "python -m tracefl.trace RUN_FOLDER [round=N] image=FILE|text=WORDS|input=INDEX [against=CLASS] [--json] "
    "[png=FILE] [provenance=PRESET] [provenance.KEY=VALUE ...] [privacy.trace=deployed|before_noise]"
)
JSON = "--json"
_KEYS = (*WAYS, "round", "against", "png")


def asks_why(arguments: Sequence[str]) -> bool:
    """Return whether one prediction is asked about, and not the round."""
    return any(a == JSON or a.partition("=")[0] in (*WAYS, "against", "png") for a in arguments)


def explain_stored(folder: Path, arguments: Sequence[str]) -> None:
    """Explain one prediction of a stored run and show it as asked.

    Args:
        folder: The run's folder.
        arguments: As in ``USAGE``, after the folder.

    Raises:
        ConfigError: An argument is illegal, or asks for what is not there.
        DataError: The image cannot be read.
        RecordError: The folder is no run's, or the round is not stored.
    """
    given, overrides = _read(arguments)
    way = _way(given)
    server_round = read_round(given["round"]) if "round" in given else None
    picture = Path(given["png"]).expanduser() if "png" in given else None
    if picture is not None:
        check_figure_path(picture)
    with terminal_lines(Console(stderr=True)):
        run = StoredRun(folder)
        names = run.label_names
        against = find_class(given["against"], names) if "against" in given else None
        tracer = read_tracer(run, overrides)
        question = read_question(run, tracer, way, given[way])
        settings = tracer.provenance
        model, record = run.round(server_round, asks_before_noise(run, overrides))
        participants = run.label_counts[[int(client_id) for client_id in record.clients]]  # (K, C)
        try:
            found = explain(
                model,
                record,
                question.inputs,
                settings.method,
                label=question.label,
                against=against,
                label_counts=participants,
                memory_budget=settings.memory_budget,
                precision=settings.precision,
                device=run.device,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if picture is not None:
        draw_explanation(question, found, names, picture)
    if JSON in arguments:
        sys.stdout.write(json.dumps(as_json(question, found, settings.method, names)) + "\n")
    else:
        show(TerminalConsole(), question, found, settings.method, names)


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return what is given by key, and the overrides of the run's settings."""
    given: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument == JSON:
            continue
        if key in _KEYS and key in given:
            raise ConfigError(f"{key} is given twice: {given[key]!r} and {value!r}")
        if key in _KEYS and value.strip():
            given[key] = value
        elif value and (key in ("provenance", "privacy.trace") or key.startswith("provenance.")):
            overrides.append(argument)
        else:
            problem = (
                "does not go with one input" if key.partition(".")[0] in (*GROUPS, "csv") else "is unknown or empty"
            )
            raise ConfigError(f"argument {argument!r} {problem}; usage: {USAGE}")
    return given, overrides


def _way(given: dict[str, str]) -> str:
    """Return which input is given."""
    ways = [way for way in WAYS if way in given]
    if len(ways) != 1:
        problem = f"{' and '.join(f'{way}=' for way in ways)} are given" if ways else "none is given"
        raise ConfigError(f"one input is asked about: {problem}; give one of image=FILE, text=WORDS or input=INDEX")
    return ways[0]
