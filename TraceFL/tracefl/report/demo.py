"""What ``tracefl demo`` shows: its story, one wrong prediction as a picture, and the answer in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.nn.functional import adaptive_avg_pool2d

from tracefl.common.words import percent
from tracefl.learning.examples import PIXELS, Examples
from tracefl.provenance import TracedInput
from tracefl.questions.replay import Replay
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.report import REPORT
from tracefl.report.replay import as_json as replay_as_json
from tracefl.report.sentences import answer, next_commands, telling
from tracefl.report.terminal import show_answer

_SIDE = 8  # of the picture, in characters of double width
_SHADES = " ░▒▓█"
_BAR = 24  # characters of the longest bar


@dataclass(frozen=True)
class Demo:
    """A finished demo.

    Attributes:
        run: Its run.
        rounds: The results of the run's rounds.
        replay: The run averaged again without its faulty clients.
    """

    run: StoredRun
    rounds: Sequence[RoundResult]
    replay: Replay


def show(console: Console, demo: Demo) -> None:
    """Print a wrong prediction with the clients' contributions to it, the answer, and what to type next."""
    wrong = [t for t in demo.rounds[-1].traced if t.predicted != t.label]
    console.print()
    if wrong:
        console.print(_picture(demo.run, telling(wrong)))
        console.print()
    show_answer(console, demo.run, demo.rounds, demo.replay)


def as_json(demo: Demo) -> dict[str, Any]:
    """Return what was found in JSON's types."""
    return {
        "run": str(demo.run.folder),
        "report": str(demo.run.folder / REPORT),
        "answer": [asdict(sentence) for sentence in answer(demo.run, demo.rounds, demo.replay)],
        "replay": replay_as_json(demo.replay),
        "next": list(next_commands(demo.run, demo.rounds)),
    }


def _picture(run: StoredRun, traced: TracedInput) -> Table:
    """Return an image beside what its prediction is made of."""
    grid = Table.grid(padding=(0, 4, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_row(Text("\n".join(image_lines(run.server, traced.input_index))), Text("\n".join(_parts(run, traced))))
    return grid


def _parts(run: StoredRun, traced: TracedInput) -> Iterator[str]:
    names = run.label_names
    surely = "" if traced.probability is None else f", probability {percent(traced.probability)}"
    yield f"test image {traced.input_index}: it is {names[traced.label]}"
    yield f"the model says {names[traced.predicted]}{surely}"
    yield "contributions of the clients, in logits:"
    most = max(abs(value) for _, value in traced.contributions) or 1
    for client, value in traced.contributions[: _SIDE - 3]:
        yield f"  client {client:<3} {value:+7.2f} {'█' * round(_BAR * max(value, 0) / most)}"


def image_lines(server: Examples, index: int) -> list[str]:
    """Return one of the server's images in characters: the brighter a place, the denser."""
    pixels = server.features[PIXELS][index].float().mean(dim=0)  # (H, W), 0 to 255
    small = adaptive_avg_pool2d(pixels[None, None], _SIDE)[0, 0]  # (8, 8)
    shades = (small / small.max().clamp(min=1) * (len(_SHADES) - 1)).round().to(torch.int64)
    return ["".join(_SHADES[shade] * 2 for shade in row) for row in shades.tolist()]
