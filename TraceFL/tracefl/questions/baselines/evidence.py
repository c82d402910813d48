"""What a rule is given, and what it returns: one suspicion per client of the round."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracefl.errors import TraceFLError
from tracefl.provenance import RoundRecord
from tracefl.provenance.inputs import Inputs


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
    """

    record: RoundRecord
    model: nn.Module
    inputs: Inputs
    predicted: Tensor
    seed: int
    num_faults: int = 1
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.num_faults < 1:
            raise ValueError(f"a rule looks for at least 1 faulty client, got num_faults={self.num_faults}")


Rule = Callable[[Evidence], Tensor]
"""Evidence to ``(K,)``, one suspicion per client; or ``(M, K)`` where the rule judges each input separately.

Float64 on the CPU, higher is more suspicious, columns in the order of ``record.clients``. Only the order within a row
matters: rules have no common scale.
"""


class NotApplicableError(TraceFLError, ValueError):
    """A rule does not apply to this model or round: NA in tables, not a failure."""
