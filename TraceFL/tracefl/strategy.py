"""Flower's strategies, made repeatable and observable: seeded sampling by client id, and a record of every round."""

import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import Tensor

from tracefl.errors import RoundFailedError
from tracefl.provenance import RoundRecord
from tracefl.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundOutcome:
    """A round as the server saw it.

    Attributes:
        record: Weights of the clients that count, and of the global model before and after.
        train_loss: Mean of the clients' training losses, weighted by examples, in nats.
        left_out: Client id to the reason why it does not count: failed, silent, or weights that are not finite.
    """

    record: RoundRecord
    train_loss: float
    left_out: Mapping[str, str]


@dataclass
class Session:
    """What a strategy needs to know of a run.

    Attributes:
        nodes: Client id to Flower's node id, of all clients that can take part.
        clients_per_round: Clients sampled a round.
        min_clients: Replies that a round needs.
        seed: Root seed.
        on_sampled: Called with the round and its sampled client ids.
        on_round: Called with each round's outcome. It may not keep the record's weights.
        num_examples: Client id to training examples, where they are known: the longest jobs are sent first.
        rounds_done: Rounds that earlier sessions of the run have done: Flower counts those of this session, from 1.
    """

    nodes: Mapping[str, int]
    clients_per_round: int
    min_clients: int
    seed: int
    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_round: Callable[[RoundOutcome], None]
    num_examples: Mapping[str, int] = field(default_factory=dict)
    rounds_done: int = 0
    sampled: tuple[str, ...] = field(default=(), init=False)
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
        everyone = sorted(session.nodes, key=int)
        draw = random.Random(derive_seed(session.seed, "sample", server_round))
        session.sampled = tuple(sorted(draw.sample(everyone, session.clients_per_round), key=int))
        session.previous = arrays
        session.on_sampled(server_round, session.sampled)
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        longest_first = sorted(session.sampled, key=lambda k: -session.num_examples.get(k, 0))
        return self._construct_messages(record, [session.nodes[k] for k in longest_first], MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the clients that count, in the order of their ids, and hand the round over.

        Raises:
            RoundFailedError: Fewer than ``session.min_clients`` count.
        """
        session = self.session
        server_round += session.rounds_done
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        counted: dict[str, Message] = {}
        weights: dict[str, dict[str, Tensor]] = {}
        left_out: dict[str, str] = {}
        for client_id in session.sampled:
            reply = by_node.get(session.nodes[client_id])
            if reply is None:
                left_out[client_id] = "no reply before the time limit (strategy.timeout_seconds)"
            elif reply.has_error():
                left_out[client_id] = _cause(reply.error.reason)
            else:
                state = reply.content.array_records[self.arrayrecord_key].to_torch_state_dict()
                bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
                if bad:
                    left_out[client_id] = f"weights that are not finite, first in {bad[0]}"
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
        arrays, metrics = super().aggregate_train(server_round, list(counted.values()))
        if arrays is None or metrics is None or session.previous is None:
            raise RoundFailedError(f"round {server_round}: the strategy returned no average")
        num_examples = {k: _num_examples(reply) for k, reply in counted.items()}
        total = sum(num_examples.values())
        like = next(iter(weights.values()))
        record = RoundRecord(
            server_round=server_round,
            clients=weights,
            client_weights={k: n / total for k, n in num_examples.items()},
            previous_global=_as(session.previous, like),
            global_weights=_as(arrays, like),
        )
        session.on_round(RoundOutcome(record, float(str(metrics["train-loss"])), left_out))
        return arrays, metrics


class TracedFedProx(FedProx, TracedFedAvg):
    """FedProx (Li et al. 2020): as FedAvg, with a proximal term in the clients' loss."""


STRATEGIES: dict[str, type[TracedFedAvg]] = {"fedavg": TracedFedAvg, "fedprox": TracedFedProx}


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


def _num_examples(reply: Message) -> int:
    return int(str(reply.content.metric_records["metrics"]["num-examples"]))


def _cause(reason: str | None) -> str:
    """Return what went wrong, out of a traceback that Ray and Flower wrapped: its last line, without their marks."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"\x1b\[\d*m|^<class '[\w.]+'>:<'|'>$", "", lines[-1])
