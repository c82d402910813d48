"""A run's progress, and an estimate of the time left."""

import time


class Progress:
    """Rounds and wall time of a run, over all of its sessions.

    Args:
        num_rounds: Rounds of the run.
        rounds_done: Rounds that earlier sessions recorded.
        seconds: Wall time that earlier sessions took.
    """

    def __init__(self, num_rounds: int, rounds_done: int = 0, seconds: float = 0.0) -> None:
        self.num_rounds = num_rounds
        self.rounds_done = rounds_done
        self._rounds_before = rounds_done
        self._seconds_before = seconds
        self._began = self._first_round_began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def seconds_a_round(self) -> float | None:
        """Mean wall time of this session's rounds; None before the first is done."""
        rounds = self.rounds_done - self._rounds_before
        return (time.monotonic() - self._first_round_began) / rounds if rounds else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate for the rounds to come; None before the first is done."""
        a_round = self.seconds_a_round
        return None if a_round is None else a_round * (self.num_rounds - self.rounds_done)

    def round_started(self, server_round: int) -> None:
        """Start the clock at the session's first round: what precedes it happens once."""
        if server_round == self._rounds_before + 1:
            self._first_round_began = time.monotonic()

    def round_finished(self, server_round: int) -> None:
        """Count the round, which is recorded."""
        self.rounds_done = server_round
