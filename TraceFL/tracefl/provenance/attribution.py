"""What an attribution says: a contribution and a score for every input and client."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """The clients' parts in the global model's predictions for B inputs, K clients.

    Attributes:
        client_ids: The K clients, in the order of the columns below.
        contributions: ``(B, K)`` T_k in units of the target (logits), on the CPU; float64 for a float64 model, else
            float32.
        scores: ``(B, K)`` softmax of the contributions over the clients (Gill et al. 2025, Eq. 7); rows sum to 1.
        predicted: ``(B,)`` int64 class that the global model predicts, on the CPU.
    """

    client_ids: tuple[str, ...]
    contributions: Tensor
    scores: Tensor
    predicted: Tensor

    @property
    def responsible(self) -> tuple[str, ...]:
        """The client with the highest contribution, one for each input."""
        return tuple(self.client_ids[k] for k in self.contributions.argmax(dim=1).tolist())

    def ranking(self, i: int) -> tuple[tuple[str, float], ...]:
        """Return (client id, score) of input ``i``, highest first.

        Contributions decide the order: scores that lie far apart round to 0 and 1 and no longer tell clients apart.
        """
        order = self.contributions[i].argsort(descending=True, stable=True).tolist()
        return tuple((self.client_ids[k], float(self.scores[i, k])) for k in order)
