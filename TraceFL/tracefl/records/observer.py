"""Who follows a run while it happens: the terminal, W&B."""

from tracefl.records.progress import Progress
from tracefl.records.result import RoundResult


class Observer:
    """Receives a run's events, in the server's thread but for ``round_finished``; by default each does nothing."""

    def run_started(self, progress: Progress) -> None:
        """The federation starts or resumes; ``progress`` is kept up to date."""

    def round_started(self, server_round: int, clients: tuple[str, ...]) -> None:
        """A round's clients are sampled."""

    def client_replied(self) -> None:
        """One more of them has answered."""

    def round_finished(self, result: RoundResult) -> None:
        """A round is traced and on disk; told by the thread that wrote it, while the next round's clients train."""

    def close(self) -> None:
        """The run is over, also after an error."""
