"""Who follows a run while it happens: the terminal, W&B."""

from tracefl.rounds import RoundResult


class Observer:
    """Told of a run's events, in the server's thread; each does nothing unless a subclass cares."""

    def run_started(self, num_rounds: int) -> None:
        """The federation starts."""

    def round_started(self, server_round: int, clients: tuple[str, ...]) -> None:
        """A round's clients are sampled."""

    def client_replied(self) -> None:
        """One more of them has answered."""

    def round_finished(self, result: RoundResult) -> None:
        """A round is traced and stored."""

    def close(self) -> None:
        """The run is over, also after an error."""
