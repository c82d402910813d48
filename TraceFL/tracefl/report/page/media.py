"""Parts of the page as W&B media: a picture of the maps, and a table of the traced inputs."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracefl.learning.examples import PIXELS
from tracefl.records.reading import lacking_words
from tracefl.records.tables import NOBODY
from tracefl.report.page.figure import draw_heat_map
from tracefl.report.page.heat import heat_map
from tracefl.report.page.inputs import texts_of
from tracefl.report.page.record import RunRecord, read_record
from tracefl.report.page.suspicious import reading_order

log = logging.getLogger(__name__)

MOST_ROWS = 1000
COLUMNS = (
    *("round", "input", "shown", "label", "predicted"),
    *("carried by", "traced client", "contributions", "expected clients", "localized"),
)


def report_media(folder: Path, wandb: Any) -> dict[str, Any]:
    """Return a run's W&B media by name, of the rounds that can be read; warn of others.

    Args:
        folder: The run's folder, with at least one recorded round.
        wandb: The module.

    Raises:
        RecordError: The folder is damaged.
    """
    record = read_record(folder)
    if record.lacking:
        log.warning("W&B's figures of the whole run lack %s", lacking_words(record.lacking))
    table = wandb.Table(columns=[*COLUMNS], data=table_rows(record, wandb.Image))
    picture = wandb.Image(draw_heat_map(heat_map(record)))
    return {"report/clients_and_classes": picture, "report/traced_inputs": table}


def table_rows(record: RunRecord, image: Callable[[Any], Any]) -> list[list[Any]]:
    """Return the rows of the traced inputs of all rounds, suspicious rounds first; at most ``MOST_ROWS``.

    Args:
        record: The run.
        image: Makes an image of ``(H, W, 3)`` uint8 pixels.
    """
    place = {server_round: n for n, server_round in enumerate(reading_order(record.rounds))}
    traced = sorted(record.traced, key=lambda each: (place[each[0]], each[1].input_index))
    kept = traced[:MOST_ROWS]
    if len(kept) < len(traced):
        log.info("W&B's table of the run holds %d of %d traced inputs; each round's has all", len(kept), len(traced))
    examples, names = record.inputs(), record.run.label_names
    wanted = list(dict.fromkeys(t.input_index for _, t in kept))
    shown: dict[int, Any]
    if PIXELS in examples.features:
        pixels = examples.features[PIXELS]
        shown = {index: image(pixels[index].permute(1, 2, 0).numpy()) for index in wanted}
    else:
        shown = dict(zip(wanted, texts_of(record, examples, wanted), strict=True))
    return [
        [
            *(server_round, t.input_index, shown[t.input_index], names[t.label], names[t.predicted]),
            *(t.responsible or NOBODY, t.traced_client),
            " ".join(f"{client}:{value:+.3g}" for client, value in t.contributions),
            *(" ".join(t.expected_clients), t.localized),
        ]
        for server_round, t in kept
    ]
