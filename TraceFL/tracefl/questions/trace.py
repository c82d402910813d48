"""Provenance of one round: the same function during a run and later, from what the run stored."""

import logging
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.training import evaluate
from tracefl.provenance import (
    RoundRecord,
    TracedInput,
    attribute_round,
    score_inputs,
    select_inputs,
    select_mispredicted,
)
from tracefl.provenance.verification import ExactRemovals
from tracefl.questions.baselines import Evidence
from tracefl.questions.suspects import Row, compare_rules, row_without_inputs
from tracefl.records.settings import ProvenanceSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundTrace:
    """A round's traced inputs and what they took.

    Attributes:
        traced: One entry an input; empty where no input is to be traced.
        suspects: Rows of suspects.csv; empty where correct predictions are traced.
        provenance_seconds: Wall time of the attribution.
        counterfactual_seconds: Wall time of the exact removals; 0 where they were not asked for.
    """

    traced: tuple[TracedInput, ...] = ()
    suspects: tuple[Row, ...] = ()
    provenance_seconds: float = 0.0
    counterfactual_seconds: float = 0.0


@dataclass(frozen=True)
class Tracer:
    """What is traced of a run's rounds, and how.

    Attributes:
        provenance: Which inputs, and how they are attributed.
        label_counts: ``(num_clients, C)`` training examples of each true class, row i for client i.
        fault: What some clients do wrong; None where nothing is known to be wrong.
        baselines: Names of the rules that stand beside provenance of mispredictions.
        seed: Root seed, of what the rules draw.
        device: Where to compute.
    """

    provenance: ProvenanceSettings
    label_counts: Tensor
    fault: Fault | None = None
    baselines: tuple[str, ...] = ()
    seed: int = 0
    device: torch.device | str = "cpu"

    @property
    def mispredictions(self) -> bool:
        """Mispredictions alone are traced, to find who is faulty; where it is left open, those of a faulty run."""
        if self.provenance.inputs is None:
            return self.fault is not None
        return self.provenance.inputs == "mispredicted"

    @property
    def traces_all_mispredictions(self) -> bool:
        """Mispredictions are traced, and not only those that a known fault has led to."""
        inputs = self.provenance.inputs
        return inputs == "all" or (inputs == "mispredicted" and self.fault is None)

    def unknowing(self) -> "Tracer":
        """Return what traces mispredictions, all of them, as one must who knows of no fault; nothing is checked."""
        looks_at = replace(self.provenance, inputs="mispredicted", counterfactual=False)
        return replace(self, provenance=looks_at, fault=None, baselines=())

    def trace(
        self, model: nn.Module, record: RoundRecord, server: Examples, predicted: Tensor | None = None
    ) -> RoundTrace:
        """Trace a round's predictions to its clients, and check the answers.

        Args:
            model: Holds ``record.global_weights``.
            record: The round.
            server: The server's N examples.
            predicted: ``(N,)`` what the model predicts for them, where it is known.
        """
        ids = tuple(record.clients)
        faulty = None if self.fault is None else self.fault.faulty(ids, record.server_round)  # (K,)
        if self.mispredictions and faulty is not None and not faulty.any():  # nobody to find
            return RoundTrace(suspects=(row_without_inputs(record.server_round, ids, faulty),))
        asked = self.asked(server)
        if predicted is None or asked is not server:
            predicted = evaluate(model, asked, device=self.device).predicted
        participants = self.label_counts[torch.tensor([int(client_id) for client_id in ids])]  # (K, C)
        chosen = self.choose(asked, predicted, participants)
        if not len(chosen):
            none = (row_without_inputs(record.server_round, ids, faulty),) if self.mispredictions else ()
            return RoundTrace(suspects=none)
        inputs, labels = asked.batch(chosen)
        settings = self.provenance
        removals = ExactRemovals(model, record, inputs, batch_size=settings.batch_size, device=self.device)
        began = time.perf_counter()
        attribution = attribute_round(
            model,
            record,
            inputs,
            labels,
            settings.method,
            batch_size=settings.batch_size,
            memory_budget=settings.memory_bytes,
            precision=settings.precision,
            device=self.device,
            removals=removals,
        )
        provenance_seconds = time.perf_counter() - began
        began = time.perf_counter()
        effects = self._effects(record, removals)
        counterfactual_seconds = time.perf_counter() - began
        if not self.mispredictions:
            held = participants.t()[labels]  # (M, K)
            traced = score_inputs(attribution, chosen, labels, held > 0, held, effects)
            if self.provenance.inputs == "all":
                traced = tuple(t if t.predicted == t.label else _unchecked(t) for t in traced)
            return RoundTrace(traced, (), provenance_seconds, counterfactual_seconds)
        known = None if faulty is None else faulty.expand(len(chosen), len(ids))
        traced = score_inputs(attribution, chosen, labels, known, None, effects)
        evidence = Evidence(
            record=record,
            model=model,
            inputs=inputs,
            predicted=predicted[chosen],
            num_faults=1 if faulty is None else int(faulty.sum()),
            seed=self.seed,
            device=self.device,
        )
        suspects = compare_rules(attribution.contributions, provenance_seconds, evidence, faulty, self.baselines)
        return RoundTrace(traced, suspects, provenance_seconds, counterfactual_seconds)

    def asked(self, server: Examples) -> Examples:
        """Return the examples whose predictions are traced: the server's, for a backdoor with the trigger in them."""
        return self.fault.inputs(server) if self.fault is not None and self.mispredictions else server

    def _effects(self, record: RoundRecord, removals: ExactRemovals) -> Tensor | None:
        """Return each client's exact removal effects ``(M, K)``; None where not asked for or not to be had."""
        if not self.provenance.counterfactual or len(record.clients) < 2:
            return None
        removals.find(torch.ones_like(removals.known))  # but for those that the attribution's proof has found
        lost = [k for k, known in zip(record.clients, removals.known.all(dim=0).tolist(), strict=True) if not known]
        if lost:  # such as by a variance that a faulty client made negative
            log.warning(
                "round=%d is not checked against exact removals: without client %s no model gives finite logits",
                record.server_round,
                ", ".join(lost),
            )
            return None
        return removals.effects

    def choose(self, server: Examples, predicted: Tensor, participants: Tensor) -> Tensor:
        """Return the positions of the inputs to trace, ``(M,)``.

        Args:
            server: The N examples that are asked.
            predicted: ``(N,)`` what the model predicts for them.
            participants: ``(K, C)`` training examples of each class that the round's clients hold.
        """
        if not self.mispredictions:
            right = select_inputs(predicted, server.labels, participants, self.provenance.inputs_per_label)
            if self.provenance.inputs != "all":
                return right
            wrong = select_mispredicted(predicted != server.labels, self.provenance.max_inputs)
            return torch.cat((right, wrong)).sort().values
        wrong = predicted != server.labels
        misled = wrong if self.fault is None else self.fault.misled(server.labels, predicted)
        return select_mispredicted(misled, self.provenance.max_inputs)


def _unchecked(wrong: TracedInput) -> TracedInput:
    """Return a misprediction without what is known of its label's holders: they are not responsible for it."""
    return replace(wrong, responsible_clients=(), correct=None, chance=None, top_holder=None)
