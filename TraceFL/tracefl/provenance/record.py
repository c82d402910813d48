"""A round's weights: those that went in and those that came out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class RoundRecord:
    """The weights of an aggregated round: what its K participants started from, what they sent, and the result.

    Attributes:
        server_round: The round, from 1.
        clients: Client id to its whole state dict after local training: parameters and buffers.
        client_weights: Client id to p_k, its weight in the average: n_k / sum(n), with n_k its number of examples,
            times its factor where ``mitigate=downweight`` gave it one. They sum to 1.
        previous_global: State dict that the clients started from.
        global_weights: State dict after aggregation, the one that is deployed.
        before_noise: The clients' average, where noise was then added to it for privacy; None where it is
            ``global_weights`` itself.
    """

    server_round: int
    clients: Mapping[str, Mapping[str, Tensor]]
    client_weights: Mapping[str, float]
    previous_global: Mapping[str, Tensor]
    global_weights: Mapping[str, Tensor]
    before_noise: Mapping[str, Tensor] | None = None

    @property
    def average(self) -> Mapping[str, Tensor]:
        """The clients' average: ``global_weights`` without noise."""
        return self.global_weights if self.before_noise is None else self.before_noise

    def without_noise(self) -> "RoundRecord":
        """Return the round as if its average had been deployed without noise."""
        return replace(self, global_weights=self.average, before_noise=None)
