"""A stored round without each of its clients: the ground truth that an attribution is measured against."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.examples import Examples
from tracefl.learning.training import evaluate
from tracefl.provenance import Counterfactuals, ShapleyValues, counterfactuals, exact_shapley, sampled_shapley
from tracefl.provenance.scoring import mean_measured
from tracefl.provenance.shapley import MAX_CLIENTS
from tracefl.questions.overrides import asks_before_noise, read_tracer
from tracefl.questions.trace import Tracer
from tracefl.records.run import StoredRun

INPUTS = ("traced", "all", "correct", "mispredicted")
PERMUTATIONS = 50
"""Orders of the clients that an estimate stands on, unless it is asked for otherwise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruth:
    """A round's inputs with all clients and without each.

    Attributes:
        server_round: The round.
        inputs: Which inputs were asked for, in the command's words.
        input_indices: Positions of the B inputs in the server's examples.
        labels: Their true classes.
        found: The predictions.
        client_weights: p_k of the K clients, in the order of ``found.client_ids``.
        faulty: Which of them are faulty in this round; None where nothing is known to be wrong.
        shapley: Shapley values; None where they were not asked for.
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
    seconds: float
    shapley_seconds: float

    def clients(self) -> list[dict[str, Any]]:
        """Return each client over all inputs, the one that supports the predictions most first.

        ``effect`` is the mean over the inputs that could be measured without the client, ``measured`` of them;
        ``changed`` counts the predictions that become another, ``right`` those that are right without the client, and
        ``first`` the inputs whose centered logit falls most without it. ``shapley_standard_error`` is the mean of the
        inputs' errors: the error of the mean is no larger, and smaller where the inputs' errors do not go together.
        """
        found, first, labels = self.found, self.found.first.tolist(), torch.tensor(self.labels)
        effects, changed, measured = found.effects, found.changed, found.measured  # (B, K)
        rows = [
            {
                "client": client_id,
                "weight": self.client_weights[k],
                "faulty": None if self.faulty is None else self.faulty[k],
                "effect": _mean(effects[:, k]),
                "first": first.count(k),
                "changed": int(changed[:, k].sum()),
                "right": int((found.predicted_without[:, k] == labels).sum()),
                "measured": int(measured[:, k].sum()),
                "shapley": None if self.shapley is None else _mean(self.shapley.values[:, k]),
                "shapley_standard_error": None if self.shapley is None else _mean(self.shapley.standard_errors[:, k]),
            }
            for k, client_id in enumerate(found.client_ids)
        ]
        return sorted(rows, key=lambda row: -math.inf if row["effect"] is None else row["effect"], reverse=True)


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
        server_round: The round; None for the last one that is stored.
        inputs: A member of ``INPUTS``, or positions in the server's examples with commas between them.
        shapley: ``exact``, ``sampled`` or ``true``, which picks one by the number of clients; None for no values.
        permutations: Orders of the clients for an estimate of them, even and at least 4; None for ``PERMUTATIONS``.
        overrides: Of the group provenance, and of privacy.trace, as on the command line.

    Raises:
        RecordError: The folder is no run's, the round is not stored, has one client or no such input.
        ConfigError: An argument is illegal, or asks for what is not there.
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
    kept_in = run.settings.store.dtype
    if kept_in != "float32":
        log.warning(
            "the clients' weights are kept in store.dtype=%s: removals are exact but for that rounding", kept_in
        )
    way = _shapley_way(shapley, permutations, len(ids))
    asked = tracer.asked(run.server) if inputs == "traced" else run.server
    chosen = _choose(inputs, tracer, model, asked, run.label_counts[[int(client_id) for client_id in ids]])
    if not len(chosen):
        raise RecordError(f"round {record.server_round} of {folder} has no input for inputs={inputs}; give inputs=all")
    batch, labels = asked.batch(chosen)
    began = time.perf_counter()
    found = counterfactuals(model, record, batch, device=run.device)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    values: ShapleyValues | None = None
    if way == "exact":
        log.info("exact Shapley values: %d models, each of %d inputs", 2 ** len(ids), len(chosen))
        values = exact_shapley(model, record, batch, found.predicted, device=run.device)
    elif way == "sampled":
        orders = PERMUTATIONS if permutations is None else permutations
        log.info(
            "Shapley values from %d orders: %d models, each of %d inputs", orders, orders * (len(ids) - 1), len(chosen)
        )
        seed = derive_seed(run.settings.seed, "shapley", record.server_round)
        values = sampled_shapley(model, record, batch, found.predicted, orders, seed, device=run.device)
    return GroundTruth(
        server_round=record.server_round,
        inputs=inputs,
        input_indices=tuple(chosen.tolist()),
        labels=tuple(labels.tolist()),
        found=found,
        client_weights=tuple(record.client_weights[client_id] for client_id in ids),
        faulty=None if tracer.fault is None else tuple(tracer.fault.faulty(ids, record.server_round).tolist()),
        shapley=values,
        seconds=seconds,
        shapley_seconds=time.perf_counter() - began,
    )


def _shapley_way(asked: str | None, permutations: int | None, num_clients: int) -> str | None:
    """Return ``exact``, ``sampled``, or None where no Shapley values are asked for."""
    if asked == "true":
        return "exact" if num_clients <= MAX_CLIENTS and permutations is None else "sampled"
    if asked == "exact" and num_clients > MAX_CLIENTS:
        raise ConfigError(
            f"shapley=exact takes 2^K models of a round's K clients, up to {MAX_CLIENTS}; this one has {num_clients}: "
            "give shapley=sampled"
        )
    return asked


def _choose(inputs: str, tracer: Tracer, model: nn.Module, asked: Examples, participants: Tensor) -> Tensor:
    """Return the positions of the inputs that are asked about."""
    if inputs not in INPUTS:
        return _positions(inputs, len(asked))
    if inputs == "all":
        return torch.arange(len(asked))
    predicted = evaluate(model, asked, device=tracer.device).predicted
    if inputs == "traced":
        return tracer.choose(asked, predicted, participants)
    return torch.nonzero((predicted == asked.labels) == (inputs == "correct")).flatten()


def _positions(given: str, count: int) -> Tensor:
    """Return the positions that are given as ``3,17``, in their order."""
    parts = given.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"inputs must be {', '.join(INPUTS)} or numbers such as 3,17, got {given!r}")
    numbers = [int(part) for part in parts]
    if max(numbers) >= count:
        raise ConfigError(f"inputs={given}: the server has examples 0 to {count - 1}")
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"inputs={given} names an example twice")
    return torch.tensor(numbers)


def known(value: float) -> float | None:
    """Return a number, None for NaN."""
    return None if math.isnan(value) else value


def _mean(values: Tensor) -> float | None:
    """Return the mean of what was measured, None where nothing was."""
    return mean_measured([known(value) for value in values.tolist()])
