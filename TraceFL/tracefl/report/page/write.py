"""Renders and writes the page."""

import base64
import hashlib
import logging
import math
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import OmegaConf

from tracefl.common.bootstrap import FEWEST
from tracefl.common.environment import describe_environment
from tracefl.common.text_files import write_atomically
from tracefl.common.words import duration, numbers, percent
from tracefl.errors import one_line, plain
from tracefl.learning.faults.words import describe_fault
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.suspects import mean_suspects
from tracefl.records.reading import lacking_words
from tracefl.records.result import RoundResult
from tracefl.records.status import read_ended_state
from tracefl.report import REPORT
from tracefl.report.page import words
from tracefl.report.page.chart import HEIGHT, PHONE, WIDTH, rounds_chart
from tracefl.report.page.clients import PageClients, page_clients
from tracefl.report.page.heat import MINUS, heat_map
from tracefl.report.page.inputs import page_inputs
from tracefl.report.page.record import RunRecord, read_record
from tracefl.report.page.stand_outs import stand_out_map
from tracefl.report.page.suspicious import MEANING, MEANING_OF_FAULT, reading_order, suspicious_rounds
from tracefl.report.sentences import MEANING as MEANING_OF_CARRYING
from tracefl.report.sentences import answer

if TYPE_CHECKING:
    from tracefl.questions.replay import Replay

log = logging.getLogger(__name__)

_SCRIPTS = ("page", "clients", "inputs", "start")
_INPUT_ORDERS = (
    ("", "suspicious rounds first"),
    ("round", "by round"),
    ("unsure", "least probable first"),
    ("sure", "most probable first"),
    ("contribution", "highest contribution first"),
    ("effect", "largest exact effect first"),
)


def write_page(
    folder: Path, path: Path | None = None, record: RunRecord | None = None, replay: "Replay | None" = None
) -> Path:
    """Write a run's report.

    Args:
        folder: The run's folder.
        path: The file; None for ``report.html`` in the run's folder.
        record: The run, if it has been read already.
        replay: The same run without some clients, where it was measured.

    Returns:
        The file.

    Raises:
        RecordError: The folder is no run's, is damaged, or has no round that can be read.
        OSError: The file cannot be written; one that was there still is.
    """
    path = folder / REPORT if path is None else path
    write_atomically(path, render(record or read_record(folder), replay))
    return path


def write_at_end(folder: Path, device: str, rounds: Sequence[RoundResult] | None = None) -> None:
    """Write the report at the end of a run; a failure is only a warning, because the run's results are safe.

    Ctrl-C ends the writing alone, with the same words: a run that has made its last round is complete.

    Args:
        folder: The run's folder, with at least one recorded round.
        device: What the run computed on.
        rounds: The results of all rounds; None to read them from the folder.
    """
    try:
        record = read_record(folder, read_ended_state(folder), describe_environment(device), rounds)
        write_page(folder, record=record)
        if record.lacking:
            log.warning("%s lacks %s", REPORT, lacking_words(record.lacking))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the run's results are there and must not be lost
        said = one_line(error)
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        log.warning("%s was not written (%s); to try again: tracefl report %s", REPORT, reason, folder)


def render(record: RunRecord, replay: "Replay | None" = None) -> str:
    """Return the page of a run as HTML, with what it would be without some clients where that was measured."""
    suspicious = suspicious_rounds(record.rounds)
    marked = {each.server_round for each in suspicious}
    inputs = page_inputs(record, reading_order(record.rounds))
    heat, clients = heat_map(record), page_clients(record)
    rows = [result.row for result in record.rounds]
    template = files(__package__) / "template"  # .md, for flwr run packs no .html, .js or .css
    script = "\n".join((template / f"{part}.js.md").read_text() for part in _SCRIPTS)
    settings, names = record.settings, tuple(map(plain, record.run.label_names))
    kinds = _kinds(clients)
    name, run_word = record.run.folder.resolve().name, shlex.quote(words.run_word(record))
    stored = record.run.store.stored_rounds()
    data = {
        "rows": inputs.rows,
        "shown": inputs.shown,
        "pictures": inputs.are_pictures,
        "names": names,
        "suspicious": [each.server_round for each in suspicious],
        "words": _expected_words(record),
        "run": run_word,
        "rounds": len(rows),
        "stored": stored,
        "clients": clients.sections,
        "exact": clients.is_exact,
    }
    return (
        _environment()
        .get_template("report.html.md")
        .render(
            record=record,
            config=settings,
            yaml=OmegaConf.to_yaml(OmegaConf.create(dict(settings.resolved))),
            name=name,
            run_word=run_word,
            answers=answer(record.run, record.rounds, replay),
            meaning_of_carrying=MEANING_OF_CARRYING,
            state=words.state_words(record),
            setting=words.setting(settings, record.run.is_deployed),
            environment=words.environment(record.environment),
            rows=rows,
            means={
                key: mean_measured([row[key] for row in rows]) for key in ("localization_accuracy", "chance_accuracy")
            },
            traced=len(record.traced),
            charts=[rounds_chart(rows, marked, width) for width in (WIDTH, PHONE)],
            height=HEIGHT,
            heat=heat,
            standing=stand_out_map(record),
            clients=clients,
            kinds=kinds,
            client_orders=_client_orders(kinds, clients.is_exact),
            input_orders=[each for each in _INPUT_ORDERS if each[0] != "effect" or not clients.is_exact],
            stored=numbers(stored),
            fault=None if settings.fault is None else describe_fault(settings.fault, settings.num_clients),
            rules=mean_suspects(row for result in record.rounds for row in result.suspects),
            suspicious={each.server_round: each for each in suspicious},
            meaning=(MEANING_OF_FAULT, *MEANING) if settings.fault is not None else MEANING,
            inputs=inputs,
            fewest=FEWEST,
            nobody=any(row["by"] is None for row in inputs.rows),
            names=names,
            data=data,
            timings=words.timings(record),
            seconds_an_input=words.seconds_an_input(record),
            command=record.run.command,
            is_deployed=record.run.is_deployed,
            not_shown=(*inputs.not_shown, *heat.not_shown, *clients.not_shown),
            style=(template / "style.css.md").read_text(),
            script=script,
            # The only script that may run is the page's own, whatever a class or a text says.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _expected_words(record: RunRecord) -> str | None:
    """Return what makes a client an expected one in this run; None where that is not known."""
    if not record.mispredictions:
        return "holds the label"
    return None if record.run.fault is None else "is faulty"


def _kinds(clients: PageClients) -> list[str]:
    """Return which kinds of predictions were traced: correct ones, wrong ones, or both."""
    return [kind for kind in ("correct", "wrong") if any(getattr(row, kind).traced for row in clients.rows)]


def _client_orders(kinds: Sequence[str], is_exact: bool) -> list[tuple[str, str]]:
    """Return the orders of the clients: keys as in the address, and their words."""
    orders = [("", "by number"), ("rounds", "most rounds first"), ("examples", "most examples first")]
    for kind in kinds:
        orders += [
            (kind, f"most {kind} predictions carried first"),
            (f"{kind}_contribution", f"highest contribution to {kind} ones first"),
            *([] if is_exact else [(f"{kind}_effect", f"largest exact effect on {kind} ones first")]),
            (f"{kind}_own", f"largest effect of its own on {kind} ones first"),
        ]
    return orders


def _environment() -> Environment:
    """Return the page's Jinja environment: everything is escaped, and an undefined name is an error."""
    made = Environment(
        loader=PackageLoader("tracefl.report.page", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "number": _number, "logits": _logits, "duration": duration}
    return made


def _shown(value: Any) -> Any:
    """Return what the page shows of a value: text without marks that turn the direction of writing."""
    return plain(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: Any, digits: int = 2) -> str:
    """Return a number as text, ``-`` where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def _logits(value: float | None, digits: int = 3) -> str:
    """Return logits as text with their sign, ``-`` where nothing was measured."""
    return "-" if value is None else f"{value:+.{digits}f}".replace("-", MINUS)
