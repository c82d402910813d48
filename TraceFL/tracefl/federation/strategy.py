"""Flower's strategies, made repeatable and observable: seeded sampling by client id, and a record of every round."""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAvg,
    FedProx,
)
from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.errors import RoundFailedError
from tracefl.federation.central_privacy import CentralPrivacy
from tracefl.federation.participation import Participation
from tracefl.federation.replies import arrays_of, error_cause, num_examples_of, weigh, why_not
from tracefl.federation.selection import Selection
from tracefl.provenance import RoundRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundOutcome:
    """A round as the server saw it.

    Attributes:
        record: Weights of the clients that count, and of the global model before and after.
        train_loss: Mean of the clients' training losses, weighted as they are averaged, in nats.
        left_out: Client id to the reason why it does not count: failed, silent, or a reply that cannot be averaged.
        clipping_norm: L2 norm that the clients' updates were clipped to; None without central privacy.
        next_clipping_norm: That of the next round; another where it adapts.
    """

    record: RoundRecord
    train_loss: float
    left_out: Mapping[str, str]
    clipping_norm: float | None = None
    next_clipping_norm: float | None = None


@dataclass
class Session:
    """What a strategy needs to know of a run.

    Attributes:
        find_clients: Called when a round begins: client id to Flower's node id, of all clients that can take part.
            Several clients may share a node of a simulation.
        clients_per_round: Clients sampled a round, fewer where fewer are there.
        min_clients: Replies that a round needs.
        seed: Root seed.
        on_sampled: Called with the round and its sampled client ids.
        on_round: Called with each round's outcome. It may not keep the record's weights.
        num_examples: Client id to training examples, where they are known: the longest jobs are sent first, and a reply
            that says otherwise does not count.
        rounds_done: Rounds that earlier sessions of the run have done: Flower counts those of this session, from 1.
        central: Clips the clients and adds noise to their average; None without central privacy.
        selection: Draws the clients of ``provenance_selection``; None for other strategies.
        participation: Who is never sampled, and who weighs less than its examples.
    """

    find_clients: Callable[[], Mapping[str, int]]
    clients_per_round: int
    min_clients: int
    seed: int
    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_round: Callable[[RoundOutcome], None]
    num_examples: Mapping[str, int] = field(default_factory=dict)
    rounds_done: int = 0
    central: "CentralPrivacy | None" = None
    selection: Selection | None = None
    participation: Participation = field(default_factory=Participation)
    sampled: tuple[str, ...] = field(default=(), init=False)
    messages: dict[str, Message] = field(default_factory=dict, init=False)
    previous: ArrayRecord | None = field(default=None, init=False)


class TracedFedAvg(FedAvg):
    """FedAvg (McMahan et al. 2017) with seeded sampling, whose rounds are handed to ``session.on_round``."""

    session: Session

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the round's clients from a seed of their own: Flower's node ids differ from run to run."""
        del grid
        session = self.session
        server_round += session.rounds_done
        nodes = session.find_clients()
        seed = derive_seed(session.seed, "sample", server_round)
        drawn = session.participation.sample(self.draw_clients, sorted(nodes, key=int), session.clients_per_round, seed)
        session.sampled = tuple(sorted(drawn, key=int))
        session.previous = arrays
        session.on_sampled(server_round, session.sampled)
        config["server-round"] = server_round
        session.messages = {}
        for client_id in sorted(session.sampled, key=lambda k: -session.num_examples.get(k, 0)):  # longest first
            own = ConfigRecord({**config, "client-id": client_id})
            content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: own})
            session.messages[client_id] = Message(content, nodes[client_id], MessageType.TRAIN)
        return list(session.messages.values())

    def draw_clients(self, client_ids: Sequence[str], count: int, seed: int) -> Sequence[str]:
        """Return the clients of the next round, all equally likely, out of those that can take part."""
        return random.Random(seed).sample(client_ids, count)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the clients that count, in the order of their ids, and hand the round over.

        Raises:
            RoundFailedError: Fewer than ``session.min_clients`` count.
        """
        session = self.session
        server_round += session.rounds_done
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        counted: dict[str, Message] = {}
        weights: dict[str, dict[str, Tensor]] = {}
        left_out: dict[str, str] = {}
        for client_id in session.sampled:
            reply = answers.get(session.messages[client_id].metadata.message_id)
            if reply is None:
                left_out[client_id] = "no reply before the time limit (strategy.timeout_seconds)"
            elif reply.has_error():
                left_out[client_id] = error_cause(reply.error.reason)
            else:
                sent = {} if session.previous is None else session.previous
                refused = why_not(reply.content, client_id, sent, session.num_examples.get(client_id))
                state = {}
                try:
                    state = {} if refused else arrays_of(reply).to_torch_state_dict()
                except (ValueError, TypeError, EOFError) as error:
                    refused = f"weights that cannot be read: {error}"
                bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
                if refused or bad:
                    left_out[client_id] = refused or f"weights that are not finite, first in {bad[0]}"
                else:
                    counted[client_id], weights[client_id] = reply, state
        for client_id, reason in left_out.items():
            log.warning("round=%d client %s is left out: %s", server_round, client_id, reason)
        if len(counted) < session.min_clients:
            raise RoundFailedError(
                f"round {server_round}: {len(counted)} of {len(session.sampled)} clients answered, "
                f"strategy.min_clients is {session.min_clients}; left out: "
                + "; ".join(f"client {k}: {why}" for k, why in left_out.items())
            )
        for client_id in counted.keys() & session.participation.factors.keys():
            weigh(counted[client_id], session.participation.factors[client_id])
        num_examples = {k: num_examples_of(reply) for k, reply in counted.items()}
        total = sum(num_examples.values())
        like = next(iter(weights.values()))
        previous, central, replies = session.previous, session.central, list(counted.values())
        clipping_norm = None if central is None else central.clipping_norm
        before_noise = None
        if central is None or previous is None:
            arrays, metrics = super().aggregate_train(server_round, replies)
        else:
            arrays, metrics, before_noise = central.aggregate_train(server_round, previous, replies)
            weights = {k: arrays_of(reply).to_torch_state_dict() for k, reply in counted.items()}  # now clipped
        if arrays is None or metrics is None or previous is None:
            raise RoundFailedError(f"round {server_round}: the strategy returned no average")
        record = RoundRecord(
            server_round=server_round,
            clients=weights,
            client_weights={k: n / total for k, n in num_examples.items()},
            previous_global=_as(previous, like),
            global_weights=_as(arrays, like),
            before_noise=None if before_noise is None else _as(before_noise, like),
        )
        next_clipping_norm = None if central is None else central.clipping_norm
        loss = float(str(metrics["train-loss"]))
        session.on_round(RoundOutcome(record, loss, left_out, clipping_norm, next_clipping_norm))
        return arrays, metrics


class TracedFedProx(FedProx, TracedFedAvg):
    """FedProx (Li et al. 2020): as FedAvg, with a proximal term in the clients' loss."""


class ProvenanceSelection(TracedFedAvg):
    """FedAvg that favours the clients whose contributions to the rounds before were of use, see selection.py."""

    def draw_clients(self, client_ids: Sequence[str], count: int, seed: int) -> Sequence[str]:
        """Return the clients of the next round by their usefulness."""
        assert self.session.selection is not None
        return self.session.selection.draw(client_ids, count, seed)


STRATEGIES: dict[str, type[TracedFedAvg]] = {
    "fedavg": TracedFedAvg,
    "fedprox": TracedFedProx,
    "provenance_selection": ProvenanceSelection,
}


def make_strategy(name: str, session: Session, proximal_mu: float = 0.0) -> TracedFedAvg:
    """Return a strategy of the given name, without evaluation on the clients: their data is not the server's."""
    options: dict[str, Any] = {"proximal_mu": proximal_mu} if issubclass(STRATEGIES[name], FedProx) else {}
    strategy = STRATEGIES[name](fraction_evaluate=0.0, **options)
    strategy.session = session
    return strategy


def _as(arrays: ArrayRecord, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return arrays as tensors of the clients' types: Flower averages integer buffers to float64."""
    state = arrays.to_torch_state_dict()
    return {name: state[name].to(torch.as_tensor(tensor).dtype) for name, tensor in like.items()}
