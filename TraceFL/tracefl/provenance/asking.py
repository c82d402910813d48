"""Who carried a prediction, asked in one line: the clients' average is made here, asked, and answered as ``Answer``."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tracefl.common.warned import reworded
from tracefl.provenance.answer import Answer
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.given import check_by_id, tensors_of
from tracefl.provenance.inputs import Inputs, forward, plain_model, read_batch
from tracefl.provenance.method import attribute_round
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.options import Method
from tracefl.provenance.prevention import prevented_note
from tracefl.provenance.reading import ReadRound, holding, read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import class_probability, float64_average, logits_notes, logits_without
from tracefl.provenance.shares import Sizes, shares_of

ClientState: TypeAlias = Mapping[str, Tensor] | Sequence[Any] | str | Path | nn.Module
"""A client's state dict, its tensors in that order (Flower's NDArrays), its safetensors file, or its model."""

_LIKE_UPDATES = 0.3
"""Share of the norm of the model's parameters below which an average of others looks like one of updates."""


@in_any_mode
def who(
    model: nn.Module,
    clients: Mapping[ClientId, ClientState],
    inputs: Inputs,
    sizes: Sizes | None = None,
    *,
    labels: Sequence[int] | Tensor | None = None,
    class_names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    method: Method = Method(),
    check: bool = True,
    compute: Compute = Compute(),
) -> Answer:
    """Say which clients carried the predictions of their average.

    Args:
        model: The clients' architecture. The average is made of the clients; the model's own weights are not asked, and
            are the same afterwards.
        clients: Client id to its weights after local training, and not what training changed: an average far smaller
            than the model's own weights is warned of.
        inputs: ``(B, ...)`` one or many inputs, as the model takes them, or a mapping of such tensors.
        sizes: Each client's number of training examples, or its share of the average: by id, or in the order of
            ``clients``. None for a plain average, in which all count equally; the answer says so.
        labels: The B true classes, where they are known: shown beside the predictions.
        class_names: Names of the C classes, to be shown.
        texts: The B inputs as text, to be shown; images are shown by themselves.
        method: How to attribute; the best that is known, unless another is asked for.
        check: Whether the answer checks itself, as in ``attribute``.
        compute: The device, and the bounds on memory.

    Raises:
        TypeError: ``clients`` is no mapping, ``method`` no ``Method``, or a number in ``sizes`` none.
        ValueError: There are no clients or no inputs, inputs are not the model's, or ``sizes``, ``labels``,
            ``class_names`` or ``texts`` are not as many as they should be.
        ModelMismatchError: A client's weights are not the model's in name or shape, or not finite.
        LayerNotTraceableError: As ``attribute``.
        CheckError: As ``attribute``.
    """
    method = Method.checked(method)
    check_by_id(clients)
    if not clients:
        raise ValueError("no clients: who() needs the weights of at least one")
    asked = plain_model(model)
    shares = shares_of(clients, sizes, "sizes")
    notes = [] if sizes is not None or len(shares) == 1 else ["no sizes were given: the clients count equally"]
    if not method.estimates_removal:
        notes.append("contributions are the method's own, and no estimates of what leaving a client out changes")
    given = {k: weights.state_dict() if isinstance(weights, nn.Module) else weights for k, weights in clients.items()}
    given = {k: _of_its_own(weights, asked) for k, weights in given.items()}
    record = _averaged(asked, given, shares)
    if looks_like := _updates_words(asked, record):
        notes.insert(0, looks_like)
        warnings.warn(looks_like, stacklevel=3)
    if (distance := _distance(record, asked.state_dict())) > 0:
        notes.append(
            "the model that is asked is the clients' average; the weights that the model itself holds are others"
        )
        if sizes is None and distance < _distance(record, record.clients[next(iter(clients))]):
            # Nearer than a client: likely an average of them too, with weights that were not given.
            warnings.warn("; ".join([*notes, "if these are the round's, give sizes"]), stacklevel=3)
    with holding(asked, record.global_weights):
        count, num_classes = _check_inputs(asked, inputs, compute)
        given_labels = _checked_labels(labels, count, num_classes)
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"class_names must name the model's {num_classes} classes, got {len(class_names)} names")
        if texts is not None and len(texts) != count:
            raise ValueError(f"texts must be {count}, one for each input, got {len(texts)}")
        answer = answer_round(asked, record, inputs, given_labels, method, check=check, compute=compute)
    return replace(
        answer,
        class_names=None if class_names is None else tuple(class_names),
        texts=None if texts is None else tuple(texts),
        pictures=inputs.detach().cpu() if isinstance(inputs, Tensor) and _are_pictures(inputs) else None,
        notes=(*notes, *answer.notes),
    )


@in_any_mode
def answer_round(
    model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    labels: Tensor | None,
    method: Method,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> Answer:
    """Return the answer for some inputs of a round: its contributions and probabilities, without what is shown.

    Arguments and errors are those of ``attribute_round``.
    """
    record = read_round(plain_model(model), record)
    with reworded(lambda text: None if text == method.weakness else text):  # which the answer's notes say
        found = attribute_round(model, record, inputs, labels, method, check=check, compute=compute)
    logits, _ = logits_without(model, record, inputs, (), check=check, compute=compute)
    return Answer(
        attribution=found,
        weights=tuple(record.client_weights[client_id] for client_id in record.clients),
        probabilities=class_probability(logits, found.predicted),
        labels=labels,
        notes=(
            *([method.weakness] if method.weakness else []),
            *logits_notes(plain_model(model), logits),
            *([f"all clients were left out exactly: {found.doubt}"] if found.doubt else []),
            *(prevented_note(client_id, by) for client_id, by in found.prevented.items()),
        ),
    )


def _of_its_own(weights: Any, model: nn.Module) -> Any:
    """Return weights that stay as they are while the model holds the average: a client may be the model itself."""
    if not isinstance(weights, dict):
        return weights
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(model).values() if tensor.numel()}
    return {
        name: tensor.clone()
        if isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.untyped_storage().data_ptr() in places
        else tensor
        for name, tensor in weights.items()
    }


def _averaged(model: nn.Module, clients: Mapping[ClientId, Any], shares: Mapping[ClientId, float]) -> ReadRound:
    """Return the round whose model is the clients' average, in the model's types of numbers; integers stay its own."""
    own = model.state_dict()
    record = read_round(model, RoundRecord(1, clients, shares, previous_global=own, global_weights=own))
    average = float64_average(record)
    made = {name: average[name].to(tensor.dtype) if name in average else tensor for name, tensor in own.items()}
    return replace(record, previous_global=made, global_weights=made)


def _updates_words(model: nn.Module, record: RoundRecord) -> str:
    """Return that clients' weights look like what training added to the model's own; empty where they do not."""
    names = [name for name, tensor in model.named_parameters() if tensor.is_floating_point()]
    own, made = (
        math.sqrt(sum(float(weights[name].double().square().sum()) for name in names))
        for weights in (model.state_dict(), record.global_weights)
    )
    if not made < _LIKE_UPDATES * own:  # nor where one is not finite
        return ""
    return (
        f"the clients' weights look like updates: their norm is {made / own:.2g} of the model's; give weights: "
        "previous + update"
    )


def _distance(record: RoundRecord, weights: Mapping[str, Tensor]) -> float:
    """Return how far weights are from the record's average, Euclidean; 0 within rounding."""
    squares = 0.0
    for name, made in record.global_weights.items():
        if made.is_floating_point():
            other = weights[name].to(made)
            if not torch.allclose(made, other, rtol=1e-4, atol=1e-6):
                squares += float((made - other).double().square().sum())
    return math.sqrt(squares)


def _check_inputs(model: nn.Module, inputs: Inputs, compute: Compute) -> tuple[int, int]:
    """Return the numbers of inputs and of classes.

    Raises:
        ValueError: The model cannot take one of the inputs, or takes all of them for another number of inputs.
    """
    with frozen_eval(model, compute.device) as place, torch.no_grad():
        batch = read_batch(model, inputs, place)
        some = batch if batch.whole or batch.count == 1 else batch.take(torch.tensor([0, batch.count - 1]))
        try:
            logits = forward(model, some.part(0, some.count, place))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"the model cannot take {_shape(inputs)}{_advice(model, inputs, place)}: {error}"
            ) from error
        if len(logits) != some.count:
            raise ValueError(
                f"{_shape(inputs)} hold {batch.count} in their first dimension, and of {some.count} of them the model "
                f"gives logits for {len(logits)}{_advice(model, inputs, place)}"
            )
    return batch.count, logits.shape[1]


def _shape(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"inputs of shape {tuple(inputs.shape)} and {inputs.dtype}"
    return f"inputs {', '.join(f'{k} {tuple(v.shape)}' for k, v in inputs.items() if isinstance(v, Tensor))}"


def _advice(model: nn.Module, inputs: Inputs, place: torch.device) -> str:
    """Return what to do where the inputs are one input without a batch dimension; empty where they are not."""
    if isinstance(inputs, Mapping):
        one: Inputs = {k: v[None] if isinstance(v, Tensor) else v for k, v in inputs.items()}
        remedy = "give {k: v.unsqueeze(0) for k, v in inputs.items()}"
    else:
        one, remedy = inputs.detach()[None], "give inputs.unsqueeze(0)"
    try:
        logits = forward(model, read_batch(model, one, place).part(0, 1, place))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return ""
    return f"; this is one input without a batch dimension: {remedy}" if len(logits) == 1 else ""


def _checked_labels(labels: Sequence[int] | Tensor | None, count: int, num_classes: int) -> Tensor | None:
    if labels is None:
        return None
    found = torch.as_tensor(labels).detach().cpu().reshape(-1)
    if len(found) != count or found.is_floating_point():
        raise ValueError(f"labels must be {count} whole numbers, one for each input, got {len(found)} of {found.dtype}")
    if not ((found >= 0) & (found < num_classes)).all():
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {sorted(set(found.tolist()))}")
    return found.long()


def _are_pictures(inputs: Tensor) -> bool:
    """Whether inputs look like images: ``(B, 1 or 3, H, W)`` of at least 4 x 4 pixels."""
    return inputs.ndim == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) >= 4
