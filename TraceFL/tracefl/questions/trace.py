"""A round's predictions traced to its clients: one function, used during a run and later on what the run stored.

A run is traced in one of two ways. To the holders: predictions, most of them correct, are traced to the clients that
trained on examples of their label. To the faulty: only mispredictions are traced, to the clients that caused them.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tracefl.common.warned import reworded
from tracefl.learning.examples import Examples
from tracefl.learning.faults import Fault
from tracefl.learning.training import Evaluation, evaluate
from tracefl.provenance import (
    Attribution,
    Compute,
    Confusions,
    RoundRecord,
    TracedInput,
    attribute_round,
    class_suspicions,
    confusions,
    score_inputs,
    select_inputs,
    select_mispredicted,
    select_of_each_class,
)
from tracefl.provenance.inputs import Inputs
from tracefl.provenance.prevention import prevented_words
from tracefl.provenance.standing_out import FEWEST_CLIENTS
from tracefl.provenance.verification import ExactRemovals
from tracefl.questions.baselines import Evidence, PastRound
from tracefl.questions.suspects import Row, compare_rules, row_without_inputs
from tracefl.records.settings import ProvenanceSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundTrace:
    """The traced inputs of a round, made from its RoundRecord during the run or later from the run's folder.

    Attributes:
        traced: One entry for each traced input; empty where there is none to trace.
        suspects: Rows of suspects.csv; empty where predictions are traced to the holders.
        provenance_seconds: Wall time of the attribution.
        counterfactual_seconds: Wall time of the exact removals; 0 where they are switched off.
        doubt: As in ``Attribution``.
        class_suspicions: Client id to how far it stands out for each class; of none where that is not asked, or where
            the round does not count.
    """

    traced: tuple[TracedInput, ...] = ()
    suspects: tuple[Row, ...] = ()
    provenance_seconds: float = 0.0
    counterfactual_seconds: float = 0.0
    doubt: str = ""
    class_suspicions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answer:
    """M predictions attributed to K clients, not yet judged right or wrong.

    Attributes:
        positions: ``(M,)`` positions of the inputs in the examples.
        inputs: The M inputs.
        labels: ``(M,)`` their true classes.
        predicted: ``(M,)`` predicted classes.
        probabilities: ``(M,)`` of these classes, 0 to 1.
        attribution: Contributions ``(M, K)``.
        effects: ``(M, K)`` exact removal effects in logits, NaN of clients that cannot be left out; or None.
        suspicions: ``(M, K)`` in standard deviations, of each input's confusion, NaN of correct predictions; or None.
        provenance_seconds: As in ``RoundTrace``.
        counterfactual_seconds: As in ``RoundTrace``.
    """

    positions: Tensor
    inputs: Inputs
    labels: Tensor
    predicted: Tensor
    probabilities: Tensor
    attribution: Attribution
    effects: Tensor | None
    provenance_seconds: float
    counterfactual_seconds: float
    suspicions: Tensor | None = None

    def score(self, expected: Tensor | None, held: Tensor | None) -> tuple[TracedInput, ...]:
        """Score the answer against what is known of the participants, as ``score_inputs`` does."""
        return score_inputs(
            self.attribution,
            self.positions,
            self.labels,
            expected,
            held,
            self.effects,
            self.probabilities,
            self.suspicions,
        )


@dataclass(frozen=True)
class Tracer:
    """Which predictions of a run's rounds are traced, and how.

    Attributes:
        provenance: Which inputs, and how they are attributed.
        label_counts: ``(num_clients, C)`` training examples of each true class, row i for client i.
        fault: What some clients do wrong; None where no fault is known.
        baselines: Names of the rules compared with provenance on mispredictions.
        seed: Root seed of what the rules draw.
        device: Where to compute.
        history: The rounds before the one that is traced, as in ``Evidence``.
    """

    provenance: ProvenanceSettings
    label_counts: Tensor
    fault: Fault | None = None
    baselines: tuple[str, ...] = ()
    seed: int = 0
    device: torch.device | str = "cpu"
    history: tuple[PastRound, ...] = ()

    @property
    def compute(self) -> Compute:
        """The device, and the bounds on memory."""
        settings = self.provenance
        return Compute(settings.batch_size, settings.memory_bytes, settings.precision, self.device)

    @property
    def seeks_faulty(self) -> bool:
        """Whether only mispredictions are traced, to the faulty clients: the default if the run has a fault."""
        if self.provenance.inputs is None:
            return self.fault is not None
        return self.provenance.inputs == "mispredicted"

    @property
    def adds_up(self) -> bool:
        """Whether to say of each round how far its clients stand out for any class: the default without a fault."""
        asked = self.provenance.stand_outs
        return self.fault is None if asked is None else asked

    def trace(
        self, model: nn.Module, record: RoundRecord, server: Examples, evaluation: Evaluation | None = None
    ) -> RoundTrace:
        """Trace a round's predictions to its clients, and check the answers.

        Args:
            model: Holds ``record.global_weights``.
            record: The round.
            server: The server's N examples.
            evaluation: The model's evaluation on them; None to compute it.
        """
        asked = _Round(self, model, record)
        found = (self._trace_to_faulty if self.seeks_faulty else self._trace_to_holders)(asked, server, evaluation)
        if not self.adds_up:
            return found
        began = time.perf_counter()
        suspicions = self._class_suspicions(asked, server)
        seconds = found.provenance_seconds + time.perf_counter() - began
        return replace(found, class_suspicions=suspicions, provenance_seconds=seconds)

    def class_suspicions(self, model: nn.Module, record: RoundRecord, server: Examples) -> dict[str, tuple[float, ...]]:
        """Return how far each client of a round stands out for each class; of none where the round does not count.

        Args:
            model: The architecture.
            record: The round.
            server: The server's examples.
        """
        return self._class_suspicions(_Round(self, model, record), server)

    @staticmethod
    def _class_suspicions(asked: "_Round", server: Examples) -> dict[str, tuple[float, ...]]:
        return {} if len(asked.record.clients) < FEWEST_CLIENTS else class_suspicions(asked.pushes(server))

    def _trace_to_holders(self, asked: "_Round", server: Examples, evaluation: Evaluation | None) -> RoundTrace:
        record = asked.record
        answer = self._answer(asked, server, evaluation)
        if answer is None:
            return RoundTrace()
        held = self._participants(record).t()[answer.labels]  # (M, K)
        traced = answer.score(held > 0, held)
        if self.provenance.inputs == "all":
            traced = tuple(t if t.predicted == t.label else _unjudged(t) for t in traced)
        seconds = answer.provenance_seconds, answer.counterfactual_seconds
        return RoundTrace(traced, (), *seconds, answer.attribution.doubt)

    def _trace_to_faulty(self, asked: "_Round", server: Examples, evaluation: Evaluation | None) -> RoundTrace:
        model, record = asked.model, asked.record
        ids = tuple(record.clients)
        faulty = None if self.fault is None else self.fault.faulty(ids, record.server_round)  # (K,)
        answer = None if self.finds_nobody(record) else self._answer(asked, server, evaluation)
        if answer is None:
            return RoundTrace(suspects=(row_without_inputs(record.server_round, ids, faulty),))
        expected = None if faulty is None else faulty.expand(len(answer.positions), len(ids))  # (M, K)
        traced = answer.score(expected, None)
        evidence = Evidence(
            record=record,
            model=model,
            inputs=answer.inputs,
            predicted=answer.predicted,
            num_faults=1 if faulty is None else int(faulty.sum()),
            seed=self.seed,
            device=self.device,
            history=self.history,
        )
        by = answer.attribution.contributions if answer.suspicions is None else answer.suspicions
        suspects = compare_rules(by, answer.provenance_seconds, evidence, faulty, self.baselines)
        seconds = answer.provenance_seconds
        return RoundTrace(traced, suspects, seconds, answer.counterfactual_seconds, answer.attribution.doubt)

    def _answer(self, asked: "_Round", server: Examples, evaluation: Evaluation | None) -> _Answer | None:
        """Attribute the predictions to trace; None if there are none."""
        model, record = asked.model, asked.record
        examples = self.examples_to_trace(server)
        if evaluation is None or examples is not server:
            evaluation = evaluate(model, examples, device=self.device)
        positions = self.choose(examples, evaluation.predicted, self._participants(record))
        if not len(positions):
            return None
        inputs, labels = examples.batch(positions)
        removals = ExactRemovals(model, record, inputs, self.compute)
        began = time.perf_counter()
        if record.aggregation is not None and self._has_no_answer(removals):
            return None
        method = self.provenance.method
        with reworded(lambda text: None if text == method.weakness else text.replace("; also=", "; provenance.also=")):
            attribution = attribute_round(
                model, record, inputs, labels, method, compute=self.compute, removals=removals
            )
        suspicions = self._suspicions(asked, examples, labels, evaluation.predicted[positions])
        attributed = time.perf_counter()
        if attribution.doubt:
            count = len(record.clients)
            log.warning(
                "round=%d all %d clients are left out exactly: %s", record.server_round, count, attribution.doubt
            )
        effects = self._effects(record, removals)
        seconds = attributed - began, time.perf_counter() - attributed
        classes = evaluation.predicted[positions], evaluation.probabilities[positions]
        return _Answer(positions, inputs, labels, *classes, attribution, effects, *seconds, suspicions)

    def _suspicions(self, asked: "_Round", examples: Examples, labels: Tensor, predicted: Tensor) -> Tensor | None:
        """Return how far each client stands out for the confusion of each traced input, ``(M, K)``.

        NaN of correct predictions; None where confusions are not asked about, or where there are none.
        """
        wrong = labels != predicted
        if self.provenance.suspect_by != "confusion" or len(asked.record.clients) < 2 or not wrong.any():
            return None
        return asked.pushes(examples).suspicion[:, labels, predicted].t().where(wrong.unsqueeze(1), torch.nan)

    def _has_no_answer(self, removals: ExactRemovals) -> bool:
        """Return whether a client of a round that a robust rule aggregated cannot be left out, and say why.

        Then nothing can be told of that client, and so not who carries a prediction: such a round has no estimates.
        """
        removals.find(torch.ones_like(removals.known))
        if removals.possible.all():
            return False
        record = removals.record
        ids = [k for k, possible in zip(record.clients, removals.possible.tolist(), strict=True) if not possible]
        by = [prevented_words(client_id, by) for client_id, by in removals.prevented.items()]
        assert record.aggregation is not None
        log.warning(
            "round=%d nothing is traced: %s",
            record.server_round,
            "; ".join(by)
            or f"{record.aggregation.rule} makes no model without client {ids[0]} of {len(record.clients)} clients",
        )
        return True

    def finds_nobody(self, record: RoundRecord) -> bool:
        """Whether faulty clients are sought and none takes part in the round, of which nothing is then traced."""
        ids = tuple(record.clients)
        return self.seeks_faulty and self.fault is not None and not self.fault.faulty(ids, record.server_round).any()

    def examples_to_trace(self, server: Examples) -> Examples:
        """Return the examples whose predictions are traced: the server's, with a backdoor's trigger in them."""
        return self.fault.inputs(server) if self.fault is not None and self.seeks_faulty else server

    def _participants(self, record: RoundRecord) -> Tensor:
        """Return the ``(K, C)`` training examples of each class that the round's clients hold."""
        return self.label_counts[torch.tensor([int(client_id) for client_id in record.clients])]

    def _effects(self, record: RoundRecord, removals: ExactRemovals) -> Tensor | None:
        """Return each client's exact removal effects, ``(M, K)``; NaN for clients that cannot be left out.

        None where switched off, or where nobody can be left out.
        """
        if not self.provenance.counterfactual or len(record.clients) < 2:
            return None
        removals.find(torch.ones_like(removals.known))  # computes those that the verification did not
        for client_id, by in removals.prevented.items():
            words = prevented_words(client_id, by)
            log.warning("round=%d not checked against its exact removal: %s", record.server_round, words)
        if not removals.possible.any():
            return None
        return removals.effects.masked_fill(~removals.possible, torch.nan)

    def choose(self, examples: Examples, predicted: Tensor, participants: Tensor) -> Tensor:
        """Return the positions of the inputs to trace, ``(M,)``.

        Args:
            examples: The N examples, as ``examples_to_trace`` returns them.
            predicted: ``(N,)`` the model's predictions for them.
            participants: ``(K, C)`` training examples of each class that the round's clients hold.
        """
        wrong = predicted != examples.labels
        if self.seeks_faulty:
            misled = wrong if self.fault is None else self.fault.misled(examples.labels, predicted)
            return select_mispredicted(misled, self.provenance.max_inputs)
        right = select_inputs(predicted, examples.labels, participants, self.provenance.inputs_per_label)
        if self.provenance.inputs != "all":
            return right
        return torch.cat((right, select_mispredicted(wrong, self.provenance.max_inputs))).sort().values


class _Round:
    """A round that is asked about. Who pushes which class where in it is found once for the same examples."""

    def __init__(self, tracer: Tracer, model: nn.Module, record: RoundRecord) -> None:
        self.model = model
        self.record = record
        self._tracer = tracer
        self._found: list[tuple[Examples, Confusions]] = []

    def pushes(self, examples: Examples) -> Confusions:
        """Return the pushes of some of each class of the examples; a client that cannot be left out is logged."""
        for asked, found in self._found:
            if asked is examples:
                return found
        chosen = select_of_each_class(examples.labels, self._tracer.provenance.class_inputs)
        found = confusions(self.model, self.record, *examples.batch(chosen), compute=self._tracer.compute)
        for client_id, by in found.prevented.items():
            log.warning("round=%d not suspected: %s", self.record.server_round, prevented_words(client_id, by))
        self._found.append((examples, found))
        return found


def _unjudged(wrong: TracedInput) -> TracedInput:
    """Return a misprediction unjudged: nobody is expected to be responsible, its holders neither."""
    return replace(wrong, expected_clients=(), localized=None, chance=None, top_holder=None)
