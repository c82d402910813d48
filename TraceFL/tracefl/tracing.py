"""Provenance of one round: the same function during a run and later, from what the run stored."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracefl.config import ProvenanceSettings
from tracefl.examples import Examples
from tracefl.provenance import RoundRecord, TracedInput, attribute_round, removal_effects, score_inputs, select_inputs


@dataclass(frozen=True)
class RoundTrace:
    """A round's traced inputs and what they took.

    Attributes:
        traced: One entry an input; empty where the global model predicts no held label correctly.
        provenance_seconds: Wall time of the attribution.
        counterfactual_seconds: Wall time of the exact removals; 0 where they were not asked for.
    """

    traced: tuple[TracedInput, ...]
    provenance_seconds: float
    counterfactual_seconds: float


def trace_round(
    model: nn.Module,
    record: RoundRecord,
    server: Examples,
    predicted: Tensor,
    label_counts: Tensor,
    settings: ProvenanceSettings,
    device: torch.device | str = "cpu",
) -> RoundTrace:
    """Trace a round's correct predictions to its clients, and check the answers.

    Args:
        model: Holds ``record.global_weights``.
        record: The round.
        server: The server's N examples.
        predicted: ``(N,)`` what the model predicts for them.
        label_counts: ``(num_clients, C)`` training examples of each class, row i for client i.
        settings: What is traced and how.
        device: Where to compute.
    """
    participants = label_counts[torch.tensor([int(client_id) for client_id in record.clients])]  # (K, C)
    chosen = select_inputs(predicted, server.labels, participants, settings.inputs_per_label)
    if not len(chosen):
        return RoundTrace((), 0.0, 0.0)
    inputs, labels = server.batch(chosen)
    begin = time.perf_counter()
    attribution = attribute_round(
        model,
        record,
        inputs,
        labels,
        settings.method,
        batch_size=settings.batch_size,
        memory_budget=settings.memory_budget,
        precision=settings.precision,
        device=device,
    )
    traced_at = time.perf_counter()
    effects = None
    if settings.counterfactual and len(record.clients) > 1:
        effects = removal_effects(model, record, inputs, device=device)
    checked_at = time.perf_counter()
    traced = score_inputs(attribution, chosen, labels, participants, effects)
    return RoundTrace(traced, traced_at - begin, checked_at - traced_at)
