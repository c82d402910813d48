"""What each client contributed to a run's correct and wrong predictions, summed over all its rounds.

A traced prediction of round t has a contribution T_k of every client k that took part in round t (see provenance/),
in the units of ``provenance.target``: logits. The ledger sums them over the rounds in which the client took part,
separately for correct and wrong predictions and for each predicted class: T_k is its part in the predicted class's
logit, so a positive contribution to a wrong prediction speaks against the client. Only traced predictions count
(``provenance.inputs``, ``inputs_per_label``, ``max_inputs``), and a server input counts once in each round in which it
was traced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefl.errors import RecordError
from tracefl.provenance import Method
from tracefl.questions.overrides import read_tracer
from tracefl.questions.uncertainty import LedgerUncertainty
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.strategies import SelectionSettings

WRONG_WEIGHT = 0.5
"""Default weight of the contributions to wrong predictions in a client's usefulness."""


@dataclass(frozen=True)
class Tally:
    """A client's contributions to some predictions.

    Attributes:
        predictions: Number of predictions.
        total: Sum of the contributions, in logits.
    """

    predictions: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean contribution to a prediction, in logits; None without a prediction."""
        return self.total / self.predictions if self.predictions else None

    def plus(self, contribution: float) -> "Tally":
        """Return the tally with one more prediction."""
        return Tally(self.predictions + 1, self.total + contribution)


class ContributionLedger:
    """The contributions of all clients, added round by round.

    The same rounds in the same order give the same numbers to the last bit, during a run or from its records, so a
    resumed run draws the same clients as an uninterrupted one.

    Args:
        results: Rounds to start with.

    Attributes:
        rounds_of: Client id to the rounds in which it took part, ascending.
        dropped: Client id to the rounds for which it was sampled and in which it did not count, ascending.
        refused: Those of them in which its reply was refused.
        capped: Client id to the rounds in which it was brought down to a bound, ascending.
        rounds: Number of rounds.
        traced_rounds: The rounds with a traced prediction, ascending.
        correct_predictions: Number of traced correct predictions.
        wrong_predictions: Number of traced wrong predictions.
        nobodys_predictions: Number of traced predictions that nobody carries.
    """

    def __init__(self, results: Iterable[RoundResult] = ()) -> None:
        self.rounds_of: dict[str, list[int]] = {}
        self.dropped: dict[str, list[int]] = {}
        self.refused: dict[str, list[int]] = {}
        self.capped: dict[str, list[int]] = {}
        self.rounds = 0
        self.traced_rounds: list[int] = []
        self.correct_predictions = 0
        self.wrong_predictions = 0
        self.nobodys_predictions = 0
        self._tallies: dict[tuple[str, bool], dict[int, Tally]] = {}  # (client, correct) to predicted class to tally
        self._sums: dict[tuple[str, bool], Tally] = {}
        for result in results:
            self.add_round(result)

    def add_round(self, result: RoundResult) -> None:
        """Add a finished round."""
        number = result.server_round
        self.rounds += 1
        for kept, client_ids in (
            (self.rounds_of, result.client_weights),
            (self.dropped, result.dropped),
            (self.refused, result.refused),
            (self.capped, result.capped),
        ):
            for client_id in client_ids:
                kept.setdefault(client_id, []).append(number)
        if result.traced:
            self.traced_rounds.append(number)
        for traced in result.traced:
            correct = traced.predicted == traced.label
            self.correct_predictions += correct
            self.wrong_predictions += not correct
            self.nobodys_predictions += traced.responsible is None
            for client_id, contribution in traced.contributions:
                of_class = self._tallies.setdefault((client_id, correct), {})
                of_class[traced.predicted] = of_class.get(traced.predicted, Tally()).plus(contribution)
                self._sums[client_id, correct] = self.tally(client_id, correct).plus(contribution)

    def tally(self, client_id: str, correct: bool) -> Tally:
        """Return a client's contributions to all correct, or to all wrong, predictions."""
        return self._sums.get((client_id, correct), Tally())

    def by_class(self, client_id: str, correct: bool) -> Mapping[int, Tally]:
        """Return the same by predicted class, without classes that were not traced."""
        return self._tallies.get((client_id, correct), {})

    def usefulness(self, client_id: str, wrong_weight: float = WRONG_WEIGHT) -> float | None:
        """Return how much a client speaks for correct predictions and against wrong ones, in logits.

        u_k = C_k - wrong_weight * W_k, with C_k client k's mean contribution to the correct predictions of its rounds
        and W_k that to the wrong ones; a mean over no predictions counts as 0. With ``provenance=removal``, whose T_k
        is to first order what the logit loses without the client, C_k is what a correct prediction would lose on
        average, and W_k what a wrong one would. A client is measured against the others of its rounds, and holding much
        data counts.

        Args:
            client_id: The client.
            wrong_weight: At least 0. 1 would favour clients that only unlearn: a client with random labels lowers
                whatever the others agree on, including wrong predictions.

        Returns:
            None for a client without a traced prediction.
        """
        right, wrong = self.tally(client_id, True), self.tally(client_id, False)
        if not right.predictions and not wrong.predictions:
            return None
        return (right.mean or 0.0) - wrong_weight * (wrong.mean or 0.0)


@dataclass(frozen=True)
class RunLedger:
    """A run's ledger, and what is needed to show it.

    Attributes:
        ledger: The ledger.
        client_ids: All clients of the run, including those that never took part.
        label_names: Name of each class.
        faulty: The clients known to be faulty; None where no fault is known.
        method: How the predictions were traced.
        uncertainty: The intervals of its means and sums.
        wrong_weight: Weight of the contributions to wrong predictions in the usefulness.
    """

    ledger: ContributionLedger
    client_ids: Sequence[str]
    label_names: Sequence[str]
    faulty: frozenset[str] | None
    method: Method
    uncertainty: LedgerUncertainty
    wrong_weight: float = WRONG_WEIGHT

    def usefulness(self, client_id: str) -> float | None:
        """Return a client's usefulness in logits; None without a traced prediction."""
        return self.ledger.usefulness(client_id, self.wrong_weight)

    @property
    def ranked(self) -> list[str]:
        """The clients with a traced prediction, most useful first; last those with too few inputs to be placed."""
        useful = {k: u for k in self.client_ids if (u := self.usefulness(k)) is not None}
        return sorted(useful, key=lambda k: (self.uncertainty.is_few(k), -useful[k]))

    @property
    def untraced(self) -> list[str]:
        """The clients without a traced prediction."""
        return [k for k in self.client_ids if self.usefulness(k) is None]

    def predictions(self, correct: bool) -> int:
        """Return the number of traced correct, or wrong, predictions."""
        return self.ledger.correct_predictions if correct else self.ledger.wrong_predictions

    def traced_rounds(self, client_id: str) -> list[int]:
        """Return the rounds of a client in which predictions were traced."""
        traced = set(self.ledger.traced_rounds)
        return [n for n in self.ledger.rounds_of.get(client_id, ()) if n in traced]


def read_ledger(folder: Path) -> RunLedger:
    """Return a run's ledger, from its folder.

    Raises:
        RecordError: The folder holds no run, a round is damaged or missing, or no prediction was traced.
    """
    run = StoredRun(folder)
    results = list(run.results())
    ledger = ContributionLedger(results)
    if not ledger.traced_rounds:
        raise RecordError(
            f"{folder} has no traced prediction in its {ledger.rounds} rounds, so nothing to account for; run with "
            "provenance=removal provenance.inputs=all"
        )
    tracer, strategy = read_tracer(run), run.settings.strategy
    wrong_weight = strategy.wrong_weight if isinstance(strategy, SelectionSettings) else WRONG_WEIGHT
    return RunLedger(
        ledger=ledger,
        client_ids=tuple(map(str, range(len(run.label_counts)))),
        label_names=run.label_names,
        faulty=None if tracer.fault is None else frozenset(tracer.fault.clients),
        method=tracer.provenance.method,
        uncertainty=LedgerUncertainty(results, run.settings.seed, wrong_weight),
        wrong_weight=wrong_weight,
    )
