"""A stored round without each of its clients: the ground truth that an attribution is measured against."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.bootstrap import FEWEST, Bootstrap, ends
from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.examples import Examples
from tracefl.learning.training import evaluate
from tracefl.provenance import (
    Compute,
    Counterfactuals,
    RoundRecord,
    ShapleyValues,
    counterfactuals,
    exact_shapley,
    sampled_shapley,
)
from tracefl.provenance.inputs import Inputs
from tracefl.provenance.scoring import mean_measured
from tracefl.provenance.shapley import MAX_CLIENTS
from tracefl.questions.overrides import asks_before_noise, read_tracer
from tracefl.questions.trace import Tracer
from tracefl.records.run import StoredRun

INPUTS = ("traced", "all", "correct", "mispredicted")
PERMUTATIONS = 50
"""Default number of orders of the clients drawn for an estimate."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruth:
    """A round's inputs with all clients and without each.

    Attributes:
        server_round: The round.
        inputs: Which inputs were asked for, as in ``leave_each_out``.
        input_indices: Positions of the B inputs in the server's examples.
        labels: Their true classes.
        found: The predictions with all clients and without each.
        client_weights: p_k of the K clients, in the order of ``found.client_ids``.
        faulty: Which of them are faulty in this round; None where no fault is known.
        shapley: Shapley values; None where none were asked for.
        seed: The run's root seed, for the intervals.
        seconds: Wall time of the removals.
        shapley_seconds: Wall time of the Shapley values.
    """

    server_round: int
    inputs: str
    input_indices: tuple[int, ...]
    labels: tuple[int, ...]
    found: Counterfactuals
    client_weights: tuple[float, ...]
    faulty: tuple[bool, ...] | None
    shapley: ShapleyValues | None
    seed: int
    seconds: float
    shapley_seconds: float

    def clients(self) -> list[dict[str, Any]]:
        """Return a row per client over all inputs, starting with the client that supports the predictions most.

        ``effect`` is the mean over the ``measured`` inputs whose logits without the client are finite, and
        ``own_effect`` that of the effect less what all removals of an input have in common; both with a 95 % interval
        over the inputs. ``changed`` counts the predictions that differ without the client, ``right`` those that are
        right without it, and ``carried`` those that it carries: its removal costs them, and no other more.
        ``shapley_standard_error`` is the mean of the inputs' standard errors: an upper bound on that of the mean,
        reached where the inputs' errors are fully correlated.
        """
        found, labels = self.found, torch.tensor(self.labels)
        first = found.carried_by.tolist()
        effects, own, changed, measured = found.effects, found.own_effects, found.changed, found.measured  # (B, K)
        averaged = {"effect": effects, "own_effect": own}
        if self.shapley is not None:
            averaged["shapley"] = self.shapley.values
        intervals = self.bootstrap.by_key(
            {(name, k): self._values(each[:, k]) for name, each in averaged.items() for k in range(effects.shape[1])}
        )
        rows = [
            {
                "client": client_id,
                "weight": self.client_weights[k],
                "faulty": None if self.faulty is None else self.faulty[k],
                "effect": _mean(effects[:, k]),
                **ends("effect", intervals["effect", k]),
                "own_effect": _mean(own[:, k]),
                **ends("own_effect", intervals["own_effect", k]),
                "carried": first.count(k),
                "changed": int(changed[:, k].sum()),
                "right": int((found.predicted_without[:, k] == labels).sum()),
                "measured": int(measured[:, k].sum()),
                "shapley": None if self.shapley is None else _mean(self.shapley.values[:, k]),
                **ends("shapley", intervals.get(("shapley", k))),
                "shapley_standard_error": None if self.shapley is None else _mean(self.shapley.standard_errors[:, k]),
            }
            for k, client_id in enumerate(found.client_ids)
        ]
        return sorted(rows, key=lambda row: -math.inf if row["effect"] is None else row["effect"], reverse=True)

    def common(self) -> dict[str, Any]:
        """Return the mean of what all removals of an input have in common, in logits, with its 95 % interval."""
        values = self.found.common_effects
        (found,) = self.bootstrap.by_key({"": self._values(values)}).values()
        return {"effect": _mean(values), **ends("effect", found)}

    @property
    def is_few(self) -> bool:
        """Whether there are too few inputs to order the clients by their means."""
        return len(self.input_indices) < FEWEST

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Draws of the inputs, the same for every mean."""
        return Bootstrap(self.input_indices, self.seed)

    def _values(self, values: Tensor) -> list[tuple[int, float]]:
        """Return the known ones of ``(B,)`` values with their inputs."""
        pairs = zip(self.input_indices, values.tolist(), strict=True)
        return [(index, value) for index, value in pairs if not math.isnan(value)]


def leave_each_out(
    folder: Path,
    server_round: int | None = None,
    inputs: str = "traced",
    *,
    shapley: str | None = None,
    permutations: int | None = None,
    overrides: Sequence[str] = (),
) -> GroundTruth:
    """Return a stored round's predictions with all clients and without each, from the run's folder alone.

    Args:
        folder: The run's folder.
        server_round: The round; None for the last stored one.
        inputs: A member of ``INPUTS``, or comma-separated positions in the server's examples.
        shapley: ``exact``, ``sampled``, or ``true``, which picks one by the number of clients; None for no
            Shapley values.
        permutations: Orders of the clients to estimate them from, even and at least 4; None for ``PERMUTATIONS``.
        overrides: ``provenance...`` and ``privacy.trace`` as on the command line.

    Raises:
        RecordError: The folder holds no run, or the round is not stored, has one client or no such input.
        ConfigError: An argument is illegal, or names what does not exist.
        ModelMismatchError: The round's model, or for Shapley values a subset's, gives logits that are not finite.
    """
    if permutations is not None and shapley not in ("true", "sampled"):
        raise ConfigError(
            f"permutations={permutations} is for an estimate of Shapley values; give shapley=sampled with it"
        )
    if permutations is not None and (permutations < 4 or permutations % 2):
        raise ConfigError(
            f"permutations must be an even number from 4, each order with its reverse, got {permutations}"
        )
    run = StoredRun(folder)
    tracer = read_tracer(run, overrides)
    model, record = run.round(server_round, asks_before_noise(run, overrides))
    ids = tuple(record.clients)
    if len(ids) < 2:
        raise RecordError(f"round {record.server_round} of {folder} has one client: there is no model without it")
    stored_as = run.settings.store.dtype
    if stored_as != "float32":
        log.warning(
            "the clients' weights are stored in store.dtype=%s: removals are exact up to its rounding", stored_as
        )
    method = _shapley_method(shapley, permutations, len(ids))
    positions, batch, labels = _inputs(run, tracer, model, record, inputs)
    compute = Compute(device=run.device)
    began = time.perf_counter()
    found = counterfactuals(model, record, batch, compute=compute)
    removed = time.perf_counter()
    values: ShapleyValues | None = None
    if method == "exact":
        log.info("exact Shapley values: %d models, each of %d inputs", 2 ** len(ids), len(labels))
        values = exact_shapley(model, record, batch, found.predicted, compute=compute)
    elif method == "sampled":
        orders = PERMUTATIONS if permutations is None else permutations
        log.info(
            "Shapley values from %d orders: %d models, each of %d inputs", orders, orders * (len(ids) - 1), len(labels)
        )
        seed = derive_seed(run.settings.seed, "shapley", record.server_round)
        values = sampled_shapley(model, record, batch, found.predicted, orders, seed, compute=compute)
    return GroundTruth(
        server_round=record.server_round,
        inputs=inputs,
        input_indices=tuple(positions.tolist()),
        labels=tuple(labels.tolist()),
        found=found,
        client_weights=tuple(record.client_weights[client_id] for client_id in ids),
        faulty=None if tracer.fault is None else tuple(tracer.fault.faulty(ids, record.server_round).tolist()),
        shapley=values,
        seed=run.settings.seed,
        seconds=removed - began,
        shapley_seconds=time.perf_counter() - removed,
    )


def _inputs(
    run: StoredRun, tracer: Tracer, model: nn.Module, record: RoundRecord, inputs: str
) -> tuple[Tensor, Inputs, Tensor]:
    """Return the positions, the batch and the labels of the requested inputs."""
    if inputs == "traced" and tracer.finds_nobody(record):
        raise RecordError(
            f"round {record.server_round} of {run.folder} traces no input, for no faulty client takes part in it; give "
            "inputs=mispredicted or inputs=all, or another round"
        )
    examples = tracer.examples_to_trace(run.server) if inputs == "traced" else run.server
    participants = run.label_counts[[int(client_id) for client_id in record.clients]]  # (K, C)
    positions = _choose(inputs, tracer, model, examples, participants)
    if not len(positions):
        raise RecordError(
            f"round {record.server_round} of {run.folder} has no input for inputs={inputs}; give inputs=all"
        )
    return positions, *examples.batch(positions)


def _shapley_method(shapley: str | None, permutations: int | None, num_clients: int) -> str | None:
    """Return ``exact``, ``sampled``, or None where no Shapley values are wanted."""
    if shapley == "true":
        return "exact" if num_clients <= MAX_CLIENTS and permutations is None else "sampled"
    if shapley == "exact" and num_clients > MAX_CLIENTS:
        raise ConfigError(
            f"shapley=exact takes 2^K models of a round's K clients, up to {MAX_CLIENTS}; this one has {num_clients}: "
            "give shapley=sampled"
        )
    return shapley


def _choose(inputs: str, tracer: Tracer, model: nn.Module, examples: Examples, participants: Tensor) -> Tensor:
    """Return the positions of the requested inputs."""
    if inputs not in INPUTS:
        return _positions(inputs, len(examples))
    if inputs == "all":
        return torch.arange(len(examples))
    predicted = evaluate(model, examples, device=tracer.device).predicted
    if inputs == "traced":
        return tracer.choose(examples, predicted, participants)
    return torch.nonzero((predicted == examples.labels) == (inputs == "correct")).flatten()


def _positions(given: str, count: int) -> Tensor:
    """Return the positions given as ``3,17``, in that order."""
    parts = given.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"inputs must be {', '.join(INPUTS)} or numbers such as 3,17, got {given!r}")
    numbers = [int(part) for part in parts]
    if max(numbers) >= count:
        raise ConfigError(f"inputs={given}: the server has examples 0 to {count - 1}")
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"inputs={given} names an example twice; name each once")
    return torch.tensor(numbers)


def known(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if math.isnan(value) else value


def _mean(values: Tensor) -> float | None:
    """Return the mean of the numbers that are not NaN; None if all are."""
    return mean_measured([known(value) for value in values.tolist()])
