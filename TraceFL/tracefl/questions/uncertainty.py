"""How far the means of a run's ledger are settled: their inputs, and intervals by a bootstrap over the inputs."""

from collections import defaultdict
from collections.abc import Iterable

from tracefl.common.bootstrap import FEWEST, Bootstrap, Interval, interval
from tracefl.records.result import RoundResult


class LedgerUncertainty:
    """The intervals of a ledger's means and sums.

    Args:
        results: The run's rounds, with at least one traced prediction.
        seed: The run's root seed.
        wrong_weight: Weight of the contributions to wrong predictions in the usefulness.
    """

    def __init__(self, results: Iterable[RoundResult], seed: int, wrong_weight: float) -> None:
        self._wrong_weight = wrong_weight
        self._values: defaultdict[tuple[str, bool, int | None], list[tuple[int, float]]] = defaultdict(list)
        inputs = set()
        for result in results:
            for t in result.traced:
                inputs.add(t.input_index)
                for client_id, contribution in t.contributions:
                    for of_class in (None, t.predicted):
                        key = client_id, t.predicted == t.label, of_class
                        self._values[key].append((t.input_index, contribution))
        self._bootstrap = Bootstrap(inputs, seed)
        self._means = self._bootstrap.by_key(self._values)
        self._totals = self._bootstrap.by_key(self._values, sums=True)

    def inputs(self, client_id: str, correct: bool | None = None, of_class: int | None = None) -> int:
        """Return how many different inputs a mean is based on; ``correct=None``: those of the usefulness."""
        kinds = (True, False) if correct is None else (correct,)
        return len({number for kind in kinds for number, _ in self._values.get((client_id, kind, of_class), ())})

    def mean(self, client_id: str, correct: bool, of_class: int | None = None) -> Interval | None:
        """Return the interval of a mean contribution, in logits; None for fewer than two inputs."""
        return self._means.get((client_id, correct, of_class))

    def total(self, client_id: str, correct: bool, of_class: int | None = None) -> Interval | None:
        """Return the interval of a sum of contributions, in logits; None for fewer than two inputs."""
        return self._totals.get((client_id, correct, of_class))

    def usefulness(self, client_id: str) -> Interval | None:
        """Return the interval of a client's usefulness, in logits, see ``ContributionLedger.usefulness``."""
        right, wrong = (self._values.get((client_id, correct, None), []) for correct in (True, False))
        sums, counts = self._bootstrap.draws([right, wrong])
        means = (sums / counts).nan_to_num(nan=0.0)  # a mean over no predictions counts as 0
        return interval(means[:, 0] - self._wrong_weight * means[:, 1], [*right, *wrong])

    def is_few(self, client_id: str) -> bool:
        """Return whether a client's usefulness is based on too few inputs to be placed among the others."""
        return self.inputs(client_id) < FEWEST
