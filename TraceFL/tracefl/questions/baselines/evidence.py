"""What a rule is given, and what it returns: one suspicion per client of the round."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tracefl.errors import TraceFLError
from tracefl.provenance import RoundRecord
from tracefl.provenance.inputs import Inputs

PastRound: TypeAlias = Callable[[], RoundRecord]
"""What reads an earlier round when it is called, so that not all of them are in memory at once."""


@dataclass(frozen=True)
class Evidence:
    """A round of K clients and M inputs that its global model mispredicts. It holds neither labels nor who is faulty.

    Attributes:
        record: The round.
        model: The architecture; its weights are the record's global weights. Rules leave it unchanged.
        inputs: ``(M, ...)`` or a mapping of such tensors, as ``Examples.batch`` returns them.
        predicted: ``(M,)`` int64, the class that the global model predicts for each.
        seed: Root seed of what a rule draws.
        num_faults: How many clients a rule may suspect, at least 1; the same for every rule.
        device: Where to compute.
        history: The rounds right before this one, oldest first and without a gap, for the rules of ``NEED_HISTORY``.
    """

    record: RoundRecord
    model: nn.Module
    inputs: Inputs
    predicted: Tensor
    seed: int
    num_faults: int = 1
    device: torch.device | str = "cpu"
    history: Sequence[PastRound] = ()

    def __post_init__(self) -> None:
        if self.num_faults < 1:
            raise ValueError(f"a rule looks for at least 1 faulty client, got num_faults={self.num_faults}")

    @property
    def rounds(self) -> Iterator[RoundRecord]:
        """Yield the earlier rounds, oldest first, each read when its turn comes, and then the round itself."""
        for read in self.history:
            yield read()
        yield self.record

    def check_history(self, rule: str, fewest: int) -> None:
        """Refuse evidence of too few rounds.

        Args:
            rule: Its name.
            fewest: Earlier rounds that it needs.

        Raises:
            NotApplicableError: There are fewer.
        """
        if len(self.history) < fewest:
            raise NotApplicableError(
                f"{rule} needs the weights of the {fewest} rounds before this one, and has those of {len(self.history)}"
            )


Rule = Callable[[Evidence], Tensor]
"""Evidence to ``(K,)``, one suspicion per client; or ``(M, K)`` where the rule judges each input separately.

Float64 on the CPU, higher is more suspicious, columns in the order of ``record.clients``. Only the order within a row
matters: rules have no common scale.
"""


class NotApplicableError(TraceFLError, ValueError):
    """A rule does not apply to this model or round: NA in tables, not a failure."""
