"""Flower's strategies with reproducible sampling by client id, and an outcome for every round."""

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.common.words import repeated
from tracefl.errors import RoundFailedError
from tracefl.federation.averaging import Averaged, Averaging, like
from tracefl.federation.central_privacy import CentralPrivacy
from tracefl.federation.culprits import culprits
from tracefl.federation.grid import UNREADABLE
from tracefl.federation.messages import CLIENT_ID, LOSS
from tracefl.federation.patience import Patience
from tracefl.federation.plan import FederationHooks, FederationPlan, RoundOutcome
from tracefl.federation.replies import Sent, Trained, error_cause, read_reply
from tracefl.federation.robust import aggregate
from tracefl.learning.training import Evaluation

log = logging.getLogger(__name__)

MOST_LOGIT = 2.0**24
"""From here on float32 has no fractions: what a logit loses without a client is its rounding."""

_UNSOUND = "logits that are not finite or above 2^24"


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
        self.patience = Patience(plan.num_examples, plan.timeout_seconds)
        self._hooks = hooks
        self._find_clients = find_clients
        self._central = (
            CentralPrivacy(plan.privacy, plan.clients_per_round, plan.trainable, plan.tied, plan.seed)
            if plan.privacy is not None
            else None
        )
        self._sent: dict[str, Message] = {}  # by client, in the order of their ids
        self._previous = ArrayRecord()
        self._dropped: dict[str, str] = {}  # of this round
        self._refused: list[str] = []

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
        if len(sampled) < plan.min_clients:
            raise RoundFailedError(self._too_few(server_round, len(sampled)))
        self._hooks.on_sampled(server_round, sampled)
        self._previous = arrays
        config["server-round"] = server_round
        self._sent = {}
        for client_id in sampled:
            own = ConfigRecord({**config, CLIENT_ID: client_id})
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
        """Average the sound replies in the order of the clients' ids, and pass the round on.

        The round counts once its model's logits on the server's examples are sound: those who make them otherwise are
        refused, and the others averaged.

        Raises:
            RoundFailedError: Fewer than ``plan.min_clients`` replies are left.
        """
        server_round += self.plan.rounds_done
        self._dropped, self._refused = {}, []
        sound = self._read(server_round, replies)
        average = Averaging(
            self.plan,
            server_round,
            self._previous,
            sound,
            lambda messages: self.aggregate(server_round, messages),
            self._central,
        )
        while True:
            self._check_enough(server_round, sound)
            made, evaluation = self._evaluated(server_round, average, sound)
            if self._is_sound(evaluation):
                break
            for client_id in self._culprits(server_round, average, sound):
                self._refuse(server_round, client_id, f"with it the round's model gives {_UNSOUND}")
                del sound[client_id]
        for client_id, words in made.capped.items():
            log.warning("round=%d client %s is capped: %s", server_round, client_id, words)
        self._hooks.on_round(
            RoundOutcome(
                record=made.record,
                train_loss=float(str(made.metrics[LOSS])),
                evaluation=evaluation,
                dropped=self._dropped,
                refused=tuple(self._refused),
                capped=made.capped,
                clipping_norm=average.clipping_norm,
                next_clipping_norm=None if self._central is None else self._central.clipping_norm,
            )
        )
        # What is recorded is what the next round starts from, in this session as in one that is resumed: to Flower's
        # average of a counter, 11.99..., a client would say 11, and the record 12.
        return ArrayRecord(dict(made.record.global_weights)), made.metrics

    def aggregate(
        self, server_round: int, messages: Sequence[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return what Flower makes of sound replies: their weighted average, and the means of their metrics."""
        return super().aggregate_train(server_round, messages)

    def _too_few(self, server_round: int, there: int) -> str:
        plan = self.plan
        refused = [k for k in sorted(plan.participation.refusals, key=int) if k in plan.participation.excluded]
        words = f"; refused strategy.max_refusals={plan.participation.max_refusals} times: client {', '.join(refused)}"
        return (
            f"round {server_round}: {there} clients can take part, strategy.min_clients is {plan.min_clients}"
            + words * bool(refused)
        )

    def _read(self, server_round: int, replies: Iterable[Message]) -> dict[str, Trained]:
        """Return the sound replies by client, in the order of their ids; the other clients are dropped."""
        by_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
        previous = like(self._previous, self.plan.initial_weights)
        sound: dict[str, Trained] = {}
        for client_id, message in self._sent.items():
            reply = by_message.get(message.metadata.message_id)
            if reply is None:
                self._drop(server_round, client_id, self.patience.why_silent(client_id))
                continue
            try:
                if reply.has_error():
                    leave_out = self._refuse if reply.error.code == UNREADABLE else self._drop
                    leave_out(server_round, client_id, error_cause(reply.error.reason))
                else:
                    sound[client_id] = read_reply(reply, self._what_was_sent(client_id, previous))
            except ValueError as error:
                self._refuse(server_round, client_id, str(error))
            except Exception as error:  # noqa: BLE001 - whatever a reply brings about leaves out its client alone
                self._refuse(server_round, client_id, f"a reply that cannot be read: {type(error).__name__}: {error}")
        return sound

    def _what_was_sent(self, client_id: str, previous: Mapping[str, Tensor]) -> Sent:
        plan = self.plan
        return Sent(
            client_id,
            plan.initial_weights,
            previous,
            plan.frozen,
            plan.tied,
            plan.num_examples.get(client_id),
            plan.training,
        )

    def _drop(self, server_round: int, client_id: str, reason: str) -> None:
        """Leave a client out of the round, for a reason that may be in its own words."""
        self._dropped[client_id] = repeated(reason)
        log.warning("round=%d client %s is dropped: %s", server_round, client_id, self._dropped[client_id])

    def _refuse(self, server_round: int, client_id: str, reason: str) -> None:
        """Leave a client out for what it sent; after ``strategy.max_refusals`` times it is asked no more."""
        self._drop(server_round, client_id, reason)
        self._refused.append(client_id)
        participation = self.plan.participation
        if participation.refuse(client_id):
            log.warning(
                "round=%d client %s was refused %d times (strategy.max_refusals) and is asked no more",
                server_round,
                client_id,
                participation.refusals[client_id],
            )

    def _check_enough(self, server_round: int, sound: Collection[str]) -> None:
        """Raise a RoundFailedError where fewer replies than ``plan.min_clients`` can be averaged."""
        if len(sound) < self.plan.min_clients:
            raise RoundFailedError(
                f"round {server_round}: {len(sound)} of {len(self._sent)} clients answered, "
                f"strategy.min_clients is {self.plan.min_clients}; dropped: "
                + "; ".join(f"client {client_id}: {reason}" for client_id, reason in self._dropped.items())
            )

    def _evaluated(
        self, server_round: int, average: Averaging, replies: Mapping[str, Trained]
    ) -> tuple[Averaged, Evaluation]:
        made = average(replies)
        if made is None:
            raise RoundFailedError(f"round {server_round}: the strategy returned no average")
        return made, self._hooks.evaluate(made.record.global_weights)

    def _is_sound(self, evaluation: Evaluation) -> bool:
        """Return whether a round's model is of any use; of one with privacy's noise, whether it is finite."""
        return evaluation.largest_logit < (MOST_LOGIT if self._central is None else float("inf"))

    def _culprits(self, server_round: int, average: Averaging, replies: Mapping[str, Trained]) -> Sequence[str]:
        """Return those without whom the round's model gives sound logits.

        Raises:
            RoundFailedError: There are none: nobody in particular is to blame.
        """
        rule = self.plan.aggregation

        def is_sound(some: Collection[str]) -> bool:
            if rule is not None and len(some) < rule.fewest:
                return True  # nothing is known of them yet
            left = {client_id: reply for client_id, reply in replies.items() if client_id in some}
            return self._is_sound(self._evaluated(server_round, average, left)[1])

        found = culprits(average.by_norm(replies), is_sound)
        if not found:
            raise RoundFailedError(
                f"round {server_round}: the average of {len(replies)} clients gives {_UNSOUND}, "
                "whoever is left out of it; lower client.lr, or client.epochs"
            )
        return found


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


class Robust(TracedFedAvg):
    """FedAvg whose server makes one model of the clients' by a robust rule, see robust.py."""

    def aggregate(
        self, server_round: int, messages: Sequence[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return what the rule makes of sound replies, and the means of their metrics."""
        del server_round
        assert self.plan.aggregation is not None
        metrics = self.train_metrics_aggr_fn([message.content for message in messages], self.weighted_by_key)
        return aggregate(self.plan.aggregation, messages), metrics


STRATEGIES: dict[str, type[TracedFedAvg]] = {
    "fedavg": TracedFedAvg,
    "fedprox": TracedFedProx,
    "provenance_selection": ProvenanceSelection,
    "krum": Robust,
    "bulyan": Robust,
    "trimmed_mean": Robust,
    "median": Robust,
}
