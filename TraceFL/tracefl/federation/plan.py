"""What a federation is to do, and who is told of it while it happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tracefl.federation.participation import Participation
from tracefl.federation.selection import Selection
from tracefl.federation.strategy import RoundOutcome
from tracefl.learning.privacy import PrivacySettings


@dataclass(frozen=True)
class FederationPlan:
    """What a federation does.

    Attributes:
        client_ids: Clients that can take part.
        num_rounds: Rounds of the whole run.
        clients_per_round: Clients sampled a round.
        min_clients: Replies that a round needs.
        timeout_seconds: Longest wait for a round's replies.
        strategy: A name of ``strategy.STRATEGIES``.
        proximal_mu: FedProx's mu.
        seed: Root seed.
        initial_weights: State dict that the first round to run starts from.
        client_job: What every client is told, as JSON: model, training, privacy, num_rounds, where its data are,
            device, threads, seed.
        num_examples: Client id to training examples, where the server knows them: long jobs then start first.
        privacy: What the server clips and how much noise it adds, where it does.
        trainable: Names of the model's trainable parameters.
        rounds_done: Rounds that earlier sessions have done.
        selection: Draws the clients of ``provenance_selection``, from what ``on_round`` has added to its ledger.
        participation: Who is never sampled, and who weighs less; ``on_round`` may change it.
    """

    client_ids: Sequence[str]
    num_rounds: int
    clients_per_round: int
    min_clients: int
    timeout_seconds: float
    strategy: str
    proximal_mu: float
    seed: int
    initial_weights: dict[str, Tensor]
    client_job: str
    num_examples: Mapping[str, int] = field(default_factory=dict)
    rounds_done: int = 0
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    trainable: Sequence[str] = ()
    selection: Selection | None = None
    participation: Participation = field(default_factory=Participation)


@dataclass(frozen=True)
class FederationHooks:
    """Who is told what, while it happens. Each is called in the server's thread.

    Attributes:
        on_sampled: A round begins: its number and its clients.
        on_reply: One more client of the round has answered.
        on_round: The round is aggregated.
        on_joined: Another client can take part from now on, or one came back: its id and its examples of each class.
    """

    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_reply: Callable[[], None]
    on_round: Callable[[RoundOutcome], None]
    on_joined: Callable[[str, Sequence[int]], None]
