"""What a federation has to do, what each of its rounds yields, and the functions called while it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tracefl.federation.participation import Participation
from tracefl.federation.selection import Selection
from tracefl.learning.privacy.settings import ServerPrivacy
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import Evaluation
from tracefl.provenance import Aggregation, RoundRecord


@dataclass(frozen=True)
class FederationPlan:
    """What a federation has to do.

    Attributes:
        client_ids: Clients that can take part.
        num_rounds: Rounds of the whole run.
        clients_per_round: Clients sampled in each round; fewer if fewer are connected.
        min_clients: Replies that a round needs.
        timeout_seconds: Longest wait for a round's replies; None to wait for each client as ``Patience`` says.
        strategy: A key of ``strategy.STRATEGIES``.
        proximal_mu: FedProx's mu.
        aggregation: The robust rule of a strategy that has one; None for the weighted average.
        seed: Root seed.
        initial_weights: State dict from which the first round of this session starts. Its names, shapes and types are
            those of every reply.
        training: How a client trains, which bounds what it can have counted.
        client_job: Instructions for every client, as JSON: model, training, dp_sgd, num_rounds, location of the data,
            device, threads, seed.
        num_examples: Client id to number of training examples, if known to the server. The longest jobs are sent first,
            and a reply that states another number is rejected.
        rounds_done: Rounds completed in earlier sessions of the run.
        privacy: How the server clips updates and adds noise; None if it does neither.
        trainable: Names of the model's trainable parameters.
        frozen: Names of its other parameters, which clients send back as they are.
        tied: Name of a parameter to the first name of the same one: clients send both alike.
        max_update_norm: Largest norm of a client's update, as a multiple of the round's median; None for no bound.
        max_weight: Largest share of the average that one client has, in (0, 1]; None for no such bound.
        max_weight_multiple: Largest number of examples by which a client is weighted, as a multiple of the round's
            median; None for no such bound.
        selection: Draws the clients for ``provenance_selection``; ``on_round`` adds each round to its ledger.
        participation: Which clients are never sampled and which weigh less; ``on_round`` may change it, and so do
            refused replies.
    """

    client_ids: Sequence[str]
    num_rounds: int
    clients_per_round: int
    min_clients: int
    timeout_seconds: float | None
    strategy: str
    proximal_mu: float
    seed: int
    initial_weights: dict[str, Tensor]
    training: TrainingSettings
    client_job: str
    num_examples: Mapping[str, int] = field(default_factory=dict)
    rounds_done: int = 0
    aggregation: Aggregation | None = None
    privacy: ServerPrivacy | None = None
    trainable: Sequence[str] = ()
    frozen: Sequence[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    max_update_norm: float | None = None
    max_weight: float | None = None
    max_weight_multiple: float | None = None
    selection: Selection | None = None
    participation: Participation = field(default_factory=Participation)


@dataclass(frozen=True)
class RoundOutcome:
    """A round as the server saw it, after aggregation and before tracing: a RoundRecord and more.

    The words in it may be a client's; they are short and on one line each.

    Attributes:
        record: Weights of the clients that were averaged, and of the global model before and after.
        train_loss: Mean of the clients' training losses, with the weights of the average, in nats.
        evaluation: The new global model's, on the server's examples.
        dropped: Client id to the reason why the client was not averaged: an error, no reply, or a refused reply.
        refused: Those of ``dropped`` whose reply was refused.
        capped: Client id to what of its reply was brought down to a bound, in words; ``record`` has the result.
        clipping_norm: L2 norm to which the clients' updates were clipped; None without central privacy.
        next_clipping_norm: L2 norm for the next round; differs only with adaptive clipping.
    """

    record: RoundRecord
    train_loss: float
    evaluation: Evaluation
    dropped: Mapping[str, str] = field(default_factory=dict)
    refused: Sequence[str] = ()
    capped: Mapping[str, str] = field(default_factory=dict)
    clipping_norm: float | None = None
    next_clipping_norm: float | None = None


@dataclass(frozen=True)
class Joined:
    """A deployed client that can take part from now on.

    Attributes:
        counts: Its number of examples of each class.
        key: Fingerprint of its SuperNode's key.
    """

    counts: Sequence[int]
    key: str


@dataclass(frozen=True)
class FederationHooks:
    """Functions called while the federation runs, all in the server's thread.

    Attributes:
        on_sampled: A round begins: its number and its clients.
        on_reply: Another client of the round has replied.
        evaluate: Evaluates a state dict of the global model on the server's examples: whether a round counts depends
            on it. Asked once a round, and again for each choice of its clients where the result is not sound.
        on_round: The round is aggregated, and its evaluation sound. Must not keep the outcome's weights.
        on_joined: A client can take part from now on, for the first time or again: its id, and what it is.
    """

    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_reply: Callable[[], None]
    evaluate: Callable[[Mapping[str, Tensor]], Evaluation]
    on_round: Callable[[RoundOutcome], None]
    on_joined: Callable[[str, Joined], None]
