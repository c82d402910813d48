"""How long a round waits for a client, where ``strategy.timeout_seconds`` does not say.

A client is waited for five times as long as the slowest reply so far has taken, in the first round ten times; longer,
up to ten times, where it holds more examples than those that replied; at least a minute, in the first round five, and
at most an hour. In the first round this begins once half of the clients have replied: before that, nobody knows how
long training takes. Who did not reply is waited for half as long the next time, and as long as all others once it has
replied again.
"""

from collections import Counter
from collections.abc import Mapping

MULTIPLE, LEAST_SECONDS = 5.0, 60.0
FIRST_MULTIPLE, FIRST_LEAST_SECONDS = 10.0, 300.0
MOST_SECONDS = 3600.0
SILENT_LEAST_SECONDS = 10.0
_MOST_LARGER = 10.0  # times as long for a client with more examples: it is the client that says how many it has


class Patience:
    """How long each client is waited for, by how long replies have taken in this session.

    Args:
        num_examples: Client id to its number of examples, where known.
        timeout_seconds: A whole round's limit, in place of all of this.
    """

    def __init__(self, num_examples: Mapping[str, int], timeout_seconds: float | None = None) -> None:
        self._num_examples = num_examples
        self.timeout_seconds = timeout_seconds
        self._slowest = 0.0  # seconds
        self._slowest_an_example = 0.0
        self._silences: Counter[str] = Counter()
        self._in_first_round = True
        self._asked = self._replied = 0
        self._given_up: dict[str, float] = {}

    def round_started(self, asked: int) -> None:
        """A round begins, with so many clients."""
        self._in_first_round = self._slowest == 0.0
        self._asked, self._replied = asked, 0
        self._given_up = {}

    def replied(self, client_id: str, seconds: float) -> None:
        """A client has replied, so many seconds after it was asked."""
        self._replied += 1
        self._slowest = max(self._slowest, seconds)
        self._slowest_an_example = max(self._slowest_an_example, seconds / self._num_examples.get(client_id, 1))
        del self._silences[client_id]

    def gave_up(self, client_id: str) -> None:
        """A client has not replied in time."""
        self._given_up[client_id] = self.seconds(client_id)
        self._silences[client_id] += 1

    def seconds(self, client_id: str) -> float:
        """Return for how long a client is waited for, by what is known so far."""
        if self._in_first_round and self._replied < self._asked / 2:
            return MOST_SECONDS
        expected = self._slowest_an_example * self._num_examples.get(client_id, 1)
        expected = min(max(expected, self._slowest), _MOST_LARGER * self._slowest)
        multiple, least = (FIRST_MULTIPLE, FIRST_LEAST_SECONDS) if self._in_first_round else (MULTIPLE, LEAST_SECONDS)
        seconds = min(max(multiple * expected, least), MOST_SECONDS)
        if not self._silences[client_id]:
            return seconds
        return min(max(seconds / 2.0 ** self._silences[client_id], expected, SILENT_LEAST_SECONDS), MOST_SECONDS)

    def why_silent(self, client_id: str) -> str:
        """Return why a client that has not replied in this round is no longer waited for."""
        if client_id in self._given_up:
            return f"no reply in {self._given_up[client_id]:.0f} s (strategy.timeout_seconds)"
        return "no reply before the time limit (strategy.timeout_seconds)"
