"""One input to explain, prepared like the run's data: an image, a text or one of the server's examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tracefl.common.names import did_you_mean
from tracefl.common.paths import expand
from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets import images_to_tensor
from tracefl.learning.datasets.images import decode_image
from tracefl.learning.examples import PIXELS, Examples
from tracefl.provenance import Explanation, Method, explain
from tracefl.provenance.inputs import Inputs
from tracefl.questions.overrides import asks_before_noise, read_tracer
from tracefl.questions.trace import Tracer
from tracefl.questions.unlike import is_unlike
from tracefl.records.run import SERVER, StoredRun

WAYS = ("image", "text", "input")


@dataclass(frozen=True)
class Question:
    """One input, and how to show it.

    Attributes:
        way: A member of ``WAYS``.
        given: The file, the text or the index, as typed.
        description: Such as ``server's example 3``.
        inputs: ``(1, ...)`` in the model's input shape.
        label: True class; None where it is not known.
        pixels: ``(3, H, W)`` uint8 as the model sees them; None for text.
        text: As the model sees it, truncated to its length; None for images.
        is_unlike: Whether an image of one's own is like none of the server's; None where that is not known.
    """

    way: str
    given: str
    description: str
    inputs: Inputs
    label: int | None = None
    pixels: Tensor | None = None
    text: str | None = None
    is_unlike: bool | None = None


class ExplainedInput(NamedTuple):
    """One input, and the explanation of its prediction.

    Attributes:
        question: The input.
        found: The explanation.
        method: How the clients were attributed.
        names: Names of the C classes.
    """

    question: Question
    found: Explanation
    method: Method
    names: Sequence[str]


def explain_stored(
    folder: Path,
    way: str,
    given: str,
    server_round: int | None = None,
    against: str | None = None,
    overrides: Sequence[str] = (),
) -> ExplainedInput:
    """Explain one prediction of a stored run, from the run's folder alone.

    Args:
        folder: The run's folder.
        way: A member of ``WAYS``.
        given: The file, the text, or the position in the server's examples.
        server_round: The round; None for the last stored one.
        against: Another class to compare the prediction with, by number or name.
        overrides: Overrides of the group provenance and of privacy.trace, as on the command line.

    Raises:
        ConfigError: An argument is illegal, or names what does not exist.
        DataError: The image cannot be read.
        RecordError: The folder holds no run, or the round is not stored.
    """
    run = StoredRun(folder)
    other = None if against is None else find_class(against, run.label_names)
    tracer = read_tracer(run, overrides)
    question = read_question(run, tracer, way, given)
    method = tracer.provenance.method
    model, record = run.round(server_round, asks_before_noise(run, overrides))
    try:
        found = explain(
            model,
            record,
            question.inputs,
            method,
            label=question.label,
            against=other,
            label_counts=run.label_counts[[int(client_id) for client_id in record.clients]],  # (K, C)
            compute=tracer.compute,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return ExplainedInput(question, found, method, run.label_names)


def read_question(run: StoredRun, tracer: Tracer, way: str, given: str) -> Question:
    """Prepare an input as the run's data were prepared.

    Args:
        run: The run.
        tracer: The run's tracer, which puts a backdoor's trigger into the server's examples.
        way: A member of ``WAYS``.
        given: The file, the text, or the position in the server's examples.

    Raises:
        ConfigError: The model takes another kind of input, or the server has no such example.
        DataError: The file is not a readable image.
    """
    kind = run.settings.dataset.kind
    if way != "input" and way != kind:
        name = run.settings.model.name
        raise ConfigError(f"{way}={given!r}: model.name={name} of {run.folder} takes {kind}; give {kind}= or input=")
    return {"image": _image, "text": _text, "input": _example}[way](run, tracer, given)


def find_class(given: str, names: Sequence[str]) -> int:
    """Return the class with this number, or else with this name; an exact match wins over another capitalization.

    Raises:
        ConfigError: No class matches, or several do.
    """
    if given.isdecimal() and int(given) < len(names):
        return int(given)
    exact = [number for number, name in enumerate(names) if name == given]
    found = exact or [number for number, name in enumerate(names) if name.casefold() == given.casefold()]
    if len(found) != 1:
        problem = f"means {len(found)} classes" if found else "is no class"
        raise ConfigError(
            f"against={given!r} {problem} of the run: give a number from 0 to {len(names) - 1} or a name"
            f"{did_you_mean(given, names)}"
        )
    return found[0]


def _image(run: StoredRun, tracer: Tracer, given: str) -> Question:
    del tracer
    path, dataset = expand(given), run.settings.dataset
    try:
        pixels = images_to_tensor([decode_image(path.read_bytes())], dataset.image_size)  # (1, 3, H, W)
    except OSError as error:
        raise DataError(f"image={given!r} cannot be read: {error.strerror or error}; give an image's file") from error
    except DataError as error:
        raise DataError(f"image={given!r} {error}") from error
    none = torch.zeros(1, dtype=torch.int64)
    examples = Examples({PIXELS: pixels}, none, none, dataset.mean, dataset.std)
    unlike = is_unlike(pixels[0], run.server.features[PIXELS]) if run.files.has(SERVER) else None
    inputs, _ = examples.batch(none)
    return Question("image", given, f"image {path.name}", inputs, pixels=pixels[0], is_unlike=unlike)


def _text(run: StoredRun, tracer: Tracer, given: str) -> Question:
    del tracer
    if given.encode(errors="ignore").decode() != given:  # the terminal passed bytes that are not characters
        raise ConfigError(f"text={given!r} is not UTF-8; give a text of whole characters")
    encoder, tokens = run.encoder, run.server.features["input_ids"].shape[1]
    encoded = encoder.encode([given], tokens)  # as long as the run's own, whatever the configuration says
    return Question(
        "text", given, "the text given", {k: t.long() for k, t in encoded.items()}, text=encoder.decode(encoded)[0]
    )


def _example(run: StoredRun, tracer: Tracer, given: str) -> Question:
    server = run.server
    if not given.isdecimal() or int(given) >= len(server):
        raise ConfigError(f"input={given!r}: the server has examples 0 to {len(server) - 1}")
    index = torch.tensor([int(given)])
    examples = tracer.examples_to_trace(server)
    inputs, labels = examples.batch(index)
    description = f"server's example {int(given)}" + (", with the trigger in it" if examples is not server else "")
    features = {name: tensor[index] for name, tensor in examples.features.items()}
    if PIXELS in features:
        return Question("input", given, description, inputs, int(labels), pixels=features[PIXELS][0])
    (text,) = run.encoder.decode(features)
    return Question("input", given, description, inputs, int(labels), text=text)
