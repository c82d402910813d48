"""Flower's strategies with reproducible sampling by client id, and an outcome for every round."""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.errors import RoundFailedError
from tracefl.federation.central_privacy import CentralPrivacy
from tracefl.federation.plan import FederationHooks, FederationPlan, RoundOutcome
from tracefl.federation.replies import arrays_of, num_examples_of, read_weights, scale_weight
from tracefl.provenance import RoundRecord

log = logging.getLogger(__name__)


class TracedFedAvg(FedAvg):
    """FedAvg (McMahan et al. 2017) with seeded sampling, which passes every round to ``hooks.on_round``.

    Clients are not asked to evaluate: the server evaluates on data of its own.

    Args:
        plan: What the federation has to do.
        hooks: Functions to call while the federation runs.
        find_clients: Called when a round begins; returns client id to Flower's node id, for all clients that can take
            part. In a simulation several clients may share a node.
        **options: Options of the Flower strategy.
    """

    def __init__(
        self,
        plan: FederationPlan,
        hooks: FederationHooks,
        find_clients: Callable[[], Mapping[str, int]],
        **options: Any,
    ) -> None:
        super().__init__(fraction_evaluate=0.0, **options)
        self.plan = plan
        self._hooks = hooks
        self._find_clients = find_clients
        self._central = (
            CentralPrivacy(plan.privacy, plan.clients_per_round, plan.trainable, plan.seed)
            if plan.privacy is not None
            else None
        )
        self._sent: dict[str, Message] = {}  # by client, in the order of their ids
        self._previous = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the round's clients by id with the round's seed, since Flower's node ids differ from run to run."""
        del grid
        plan = self.plan
        server_round += plan.rounds_done  # Flower counts the rounds of this session, from 1
        nodes = self._find_clients()
        seed = derive_seed(plan.seed, "sample", server_round)
        drawn = plan.participation.sample(self.draw_clients, sorted(nodes, key=int), plan.clients_per_round, seed)
        sampled = tuple(sorted(drawn, key=int))
        self._hooks.on_sampled(server_round, sampled)
        self._previous = arrays
        config["server-round"] = server_round
        self._sent = {}
        for client_id in sampled:
            own = ConfigRecord({**config, "client-id": client_id})
            content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: own})
            self._sent[client_id] = Message(content, nodes[client_id], MessageType.TRAIN)
        longest_first = sorted(sampled, key=lambda client_id: -plan.num_examples.get(client_id, 0))
        return [self._sent[client_id] for client_id in longest_first]

    def draw_clients(self, client_ids: Sequence[str], count: int, seed: int) -> Sequence[str]:
        """Draw ``count`` of the clients that can take part, all with the same probability."""
        return random.Random(seed).sample(client_ids, count)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the accepted replies in the order of the clients' ids, and pass the round on.

        Raises:
            RoundFailedError: Fewer than ``plan.min_clients`` replies are accepted.
        """
        server_round += self.plan.rounds_done
        accepted, weights, dropped = self._judge(replies)
        for client_id, reason in dropped.items():
            log.warning("round=%d client %s is dropped: %s", server_round, client_id, reason)
        if len(accepted) < self.plan.min_clients:
            raise RoundFailedError(
                f"round {server_round}: {len(accepted)} of {len(self._sent)} clients answered, "
                f"strategy.min_clients is {self.plan.min_clients}; dropped: "
                + "; ".join(f"client {client_id}: {reason}" for client_id, reason in dropped.items())
            )
        factors = self.plan.participation.factors
        for client_id in accepted.keys() & factors.keys():
            scale_weight(accepted[client_id], factors[client_id])
        num_examples = {client_id: num_examples_of(reply) for client_id, reply in accepted.items()}
        total = sum(num_examples.values())
        like = next(iter(weights.values()))
        central, before_noise = self._central, None
        clipping_norm = None if central is None else central.clipping_norm
        if central is None:
            arrays, metrics = super().aggregate_train(server_round, list(accepted.values()))
        else:
            arrays, metrics, before_noise = central.aggregate_train(
                server_round, self._previous, list(accepted.values())
            )
            weights = {k: arrays_of(reply).to_torch_state_dict() for k, reply in accepted.items()}  # now clipped
        if arrays is None or metrics is None:
            raise RoundFailedError(f"round {server_round}: the strategy returned no average")
        record = RoundRecord(
            server_round=server_round,
            clients=weights,
            client_weights={client_id: n / total for client_id, n in num_examples.items()},
            previous_global=_as(self._previous, like),
            global_weights=_as(arrays, like),
            before_noise=None if before_noise is None else _as(before_noise, like),
        )
        next_clipping_norm = None if central is None else central.clipping_norm
        loss = float(str(metrics["train-loss"]))
        self._hooks.on_round(RoundOutcome(record, loss, dropped, clipping_norm, next_clipping_norm))
        return arrays, metrics

    def _judge(
        self, replies: Iterable[Message]
    ) -> tuple[dict[str, Message], dict[str, dict[str, Tensor]], dict[str, str]]:
        """Return the accepted replies, their weights, and why the other clients are dropped, each by client id."""
        by_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
        accepted: dict[str, Message] = {}
        weights: dict[str, dict[str, Tensor]] = {}
        dropped: dict[str, str] = {}
        for client_id, message in self._sent.items():
            reply = by_message.get(message.metadata.message_id)
            if reply is None:
                dropped[client_id] = "no reply before the time limit (strategy.timeout_seconds)"
                continue
            try:
                weights[client_id] = read_weights(
                    reply, client_id, self._previous, self.plan.num_examples.get(client_id)
                )
                accepted[client_id] = reply
            except ValueError as error:
                dropped[client_id] = str(error)
        return accepted, weights, dropped


class TracedFedProx(TracedFedAvg, FedProx):
    """FedProx (Li et al. 2020): as FedAvg, with a proximal term in the clients' loss."""

    def __init__(
        self, plan: FederationPlan, hooks: FederationHooks, find_clients: Callable[[], Mapping[str, int]]
    ) -> None:
        super().__init__(plan, hooks, find_clients, proximal_mu=plan.proximal_mu)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Also send the proximal term's weight."""
        config["proximal-mu"] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)


class ProvenanceSelection(TracedFedAvg):
    """FedAvg that prefers the clients whose contributions to earlier rounds were useful, see selection.py."""

    def draw_clients(self, client_ids: Sequence[str], count: int, seed: int) -> Sequence[str]:
        """Draw clients by their usefulness."""
        assert self.plan.selection is not None
        return self.plan.selection.draw(client_ids, count, seed)


STRATEGIES: dict[str, type[TracedFedAvg]] = {
    "fedavg": TracedFedAvg,
    "fedprox": TracedFedProx,
    "provenance_selection": ProvenanceSelection,
}


def _as(arrays: ArrayRecord, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return arrays as tensors of the clients' types: Flower averages integer buffers to float64."""
    state = arrays.to_torch_state_dict()
    return {name: state[name].to(torch.as_tensor(tensor).dtype) for name, tensor in like.items()}
