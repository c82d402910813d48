"""The traced inputs for the page's script; each picture or text is included once, however often it was traced."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tracefl.errors import plain
from tracefl.learning.examples import PIXELS, Examples
from tracefl.provenance import TracedInput
from tracefl.report.page.record import RunRecord

MOST_INPUTS = 8_000  # traced inputs on a page
MOST_CLIENTS = 10  # ranked clients of an input
MOST_PIXELS = 96  # side of a picture
MOST_CHARACTERS = 700  # of a text
MOST_BYTES = 4_000_000  # of all pictures or texts


@dataclass(frozen=True)
class PageInputs:
    """Traced inputs as JSON types.

    Attributes:
        rows: One per traced input: ``r`` round, ``i`` input, ``l`` label, ``p`` predicted class, ``ok`` whether the
            traced client is an expected one (None where those are not known), ``q`` probability of the predicted class,
            ``k`` clients as [client, contribution in logits, exact effect in logits or None, score, 1 where expected],
            by exact effect where all are known, else by contribution; the score None where those two orders differ,
            ``n`` how many there are, ``first`` the place of the first expected one where the traced client is none,
            ``c`` chance, ``by`` who carries the prediction, None for nobody, ``t`` the traced client, ``s`` its
            suspicion in standard deviations, None where that was not asked.
        shown: Input to its picture as a data URI, or to its text.
        are_pictures: Whether they are pictures.
        not_shown: What is not on the page, in words.
    """

    rows: tuple[dict[str, Any], ...]
    shown: Mapping[int, str]
    are_pictures: bool
    not_shown: tuple[str, ...]


def page_inputs(record: RunRecord, order: Sequence[int]) -> PageInputs:
    """Return a run's traced inputs.

    Args:
        record: The run.
        order: Its rounds by priority: where there are too many inputs, those of the last rounds are dropped.
    """
    place = {server_round: n for n, server_round in enumerate(order)}
    traced = sorted(record.traced, key=lambda each: (place[each[0]], each[1].input_index))
    kept = traced[:MOST_INPUTS]
    not_shown = []
    if len(kept) < len(traced):
        not_shown.append(
            f"{len(kept)} of {len(traced)} traced inputs are listed, those of suspicious rounds and then of the last "
            "ones; provenance.csv has all"
        )
    cut = sum(len(t.ranking) > MOST_CLIENTS for _, t in kept)
    if cut:
        not_shown.append(f"of {cut} inputs only the first {MOST_CLIENTS} ranked clients; provenance.csv has all")
    examples = record.inputs()
    wanted = list(dict.fromkeys(t.input_index for _, t in kept))
    are_pictures = PIXELS in examples.features
    all_shown, notes = _pictures(examples, wanted) if are_pictures else _texts(record, examples, wanted)
    shown = within_budget(all_shown, MOST_BYTES)
    if len(shown) < len(wanted):
        what = "pictures" if are_pictures else "texts"
        not_shown.append(f"{len(shown)} of {len(wanted)} {what} are on the page, which would be too large with all")
    rows = tuple(_row(server_round, t) for server_round, t in kept)
    return PageInputs(rows, shown, are_pictures, (*not_shown, *notes))


def within_budget(shown: Iterable[tuple[int, str]], most_bytes: int) -> dict[int, str]:
    """Return the first (input, text) pairs that fit into ``most_bytes``."""
    kept, size = {}, 0
    for index, text in shown:
        size += len(text.encode())
        if size > most_bytes:
            break
        kept[index] = text
    return kept


def picture_uri(pixels: Tensor) -> str:
    """Return ``(3, H, W)`` uint8 pixels as a data URI: PNG, grey where the colours are equal."""
    grey = bool((pixels == pixels[:1]).all())
    picture = Image.fromarray(pixels[0].numpy() if grey else pixels.permute(1, 2, 0).contiguous().numpy())
    if max(picture.size) > MOST_PIXELS:
        picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _pictures(examples: Examples, wanted: Sequence[int]) -> tuple[Iterable[tuple[int, str]], list[str]]:
    pixels = examples.features[PIXELS]
    side = max(pixels.shape[-2:])
    notes = [f"pictures are reduced from {side} to {MOST_PIXELS} pixels"] if side > MOST_PIXELS else []
    return ((index, picture_uri(pixels[index])) for index in wanted), notes


def texts_of(record: RunRecord, examples: Examples, wanted: Sequence[int]) -> list[str]:
    """Return the texts of some examples, as the model sees them.

    Raises:
        RecordError: The run's tokenizer is missing or damaged.
    """
    index = torch.tensor(wanted, dtype=torch.int64)
    return record.run.encoder.decode({name: tensor[index] for name, tensor in examples.features.items()})


def _texts(record: RunRecord, examples: Examples, wanted: Sequence[int]) -> tuple[Iterable[tuple[int, str]], list[str]]:
    texts = [plain(text, keep="\n\t") for text in texts_of(record, examples, wanted)]
    cut = sum(len(text) > MOST_CHARACTERS for text in texts)
    notes = [f"{cut} texts are cut after {MOST_CHARACTERS} characters"] if cut else []
    shown = (text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…" for text in texts)
    return zip(wanted, shown, strict=True), notes


def _row(server_round: int, t: TracedInput) -> dict[str, Any]:
    expected, effects, contributions = set(t.expected_clients), t.exact_effects, dict(t.contributions)
    order, scores = t.by_effect, dict(t.ranking)
    agree = order == tuple(scores)
    scored = [client for client, _ in t.suspicions] or order  # in the order that localization goes by
    ranks = [rank for rank, client in enumerate(scored, 1) if client in expected]
    return {
        "r": server_round,
        "i": t.input_index,
        "l": t.label,
        "p": t.predicted,
        "ok": t.localized,
        "q": short(t.probability),
        "k": [
            [
                client,
                *map(short, (contributions.get(client), effects.get(client), scores[client] if agree else None)),
                int(client in expected),
            ]
            for client in order[:MOST_CLIENTS]
        ],
        "n": len(t.ranking),
        "first": ranks[0] if ranks and not t.localized else None,
        "c": None if t.chance is None else round(t.chance, 4),
        "by": t.responsible,
        "t": t.traced_client,
        "s": short(t.suspicions[0][1]) if t.suspicions else None,
    }


def short(value: float | None) -> float | None:
    """Return a number with the digits that the page shows; None where it is not finite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
