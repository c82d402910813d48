"""Flower's strategies, made repeatable and observable: seeded sampling by client id, and a record of every round."""

import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedProx,
)
from torch import Tensor

from tracefl.answers import why_not
from tracefl.errors import RoundFailedError
from tracefl.participation import Participation
from tracefl.privacy import PrivacySettings
from tracefl.privacy.central import effective_noise_multiplier, next_clipping_norm, seeded_numpy
from tracefl.provenance import RoundRecord
from tracefl.seeds import derive_seed
from tracefl.selection import Selection

log = logging.getLogger(__name__)

_GUARD = "tracefl/above-zero"  # no parameter's name has a slash


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
                    state = {} if refused else _arrays(reply).to_torch_state_dict()
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
            _weigh(counted[client_id], session.participation.factors[client_id])
        num_examples = {k: _num_examples(reply) for k, reply in counted.items()}
        total = sum(num_examples.values())
        like = next(iter(weights.values()))
        previous, central, replies = session.previous, session.central, list(counted.values())
        clipping_norm = None if central is None else central.clipping_norm
        before_noise = None
        if central is None or previous is None:
            arrays, metrics = super().aggregate_train(server_round, replies)
        else:
            arrays, metrics, before_noise = central.aggregate_train(server_round, previous, replies)
            weights = {k: _arrays(reply).to_torch_state_dict() for k, reply in counted.items()}  # now clipped
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


class CentralPrivacy:
    """Flower's central differential privacy, of the trainable parameters alone.

    Flower's strategies clip and noise every array that they are handed, BatchNorm's statistics and counters too. So
    they are handed the trainable parameters, and the buffers are averaged beside them as they are.

    The clients keep FedAvg's weights, as in the paper. Flower's noise takes each for an equal part of the average: a
    client with more examples can move it by more, and no epsilon is claimed. Each round's log line says what the noise
    is worth for the heaviest client.

    Args:
        settings: ``central`` or ``central_adaptive``; there ``initial_clipping_norm`` is that of the first round run.
        clients_per_round: Clients sampled a round.
        trainable: Names of the parameters that are trained.
        seed: Root seed.
    """

    def __init__(self, settings: PrivacySettings, clients_per_round: int, trainable: Sequence[str], seed: int) -> None:
        self._trainable = tuple(trainable)
        self._seed = seed
        self._mean = _Mean(fraction_evaluate=0.0)
        self._flower: DifferentialPrivacyServerSideFixedClipping | _AdaptiveClipping
        assert settings.noise_multiplier is not None
        if settings.clipping_norm is not None:
            self._flower = DifferentialPrivacyServerSideFixedClipping(
                self._mean, settings.noise_multiplier, settings.clipping_norm, clients_per_round
            )
        else:
            assert settings.initial_clipping_norm is not None
            assert settings.target_clipped_quantile is not None
            assert settings.clip_norm_lr is not None
            self._flower = _AdaptiveClipping(
                self._mean,
                settings.noise_multiplier,
                clients_per_round,
                settings.initial_clipping_norm,
                settings.target_clipped_quantile,
                settings.clip_norm_lr,
                settings.clipped_count_stddev,
            )

    @property
    def clipping_norm(self) -> float:
        """L2 norm that the next round's updates are clipped to."""
        return self._flower.clipping_norm

    def aggregate_train(
        self, server_round: int, previous: ArrayRecord, replies: Sequence[Message]
    ) -> tuple[ArrayRecord, MetricRecord, ArrayRecord]:
        """Clip the clients in place and average them.

        Args:
            server_round: The round; the noise is drawn from a seed of its own.
            previous: Weights that the clients started from.
            replies: Of the clients that count, without errors and finite, in the order of their ids.

        Returns:
            The average with its noise, the clients' metrics, and the average before the noise.
        """
        key = self._mean.arrayrecord_key
        sent = [_arrays(reply) for reply in replies]
        buffers = [name for name in previous if name not in self._trainable]
        for reply, arrays in zip(replies, sent, strict=True):
            reply.content[key] = ArrayRecord({name: arrays[name] for name in buffers})
        averaged_buffers, _ = self._mean.aggregate_train(server_round, replies)
        for reply, arrays in zip(replies, sent, strict=True):
            reply.content[key] = self._to_clip(arrays, 1e-100)
        flower = self._flower
        flower.current_arrays = self._to_clip(previous, 0.0)
        flower.num_sampled_clients = len(replies)
        norm, num_examples = flower.clipping_norm, [_num_examples(reply) for reply in replies]
        largest_weight = max(num_examples) / sum(num_examples)
        with seeded_numpy(derive_seed(self._seed, "privacy", server_round)):
            noisy, metrics = flower.aggregate_train(server_round, replies)
        before_noise = self._mean.average
        assert averaged_buffers is not None
        assert noisy is not None
        assert metrics is not None
        assert before_noise is not None
        log.info(
            "round=%d clipping_norm=%.4g noise_stddev=%.3g noise_multiplier=%.3g (%.3g for the heaviest client)",
            server_round,
            norm,
            flower.noise_multiplier * norm / len(replies),
            flower.noise_multiplier,
            effective_noise_multiplier(flower.noise_multiplier, largest_weight, len(replies)),
        )
        for reply, arrays in zip(replies, sent, strict=True):
            reply.content[key] = self._whole(_arrays(reply), arrays)
        return self._whole(noisy, averaged_buffers), metrics, self._whole(before_noise, averaged_buffers)

    def _to_clip(self, arrays: ArrayRecord, guard: float) -> ArrayRecord:
        """Return the trainable arrays, and a number that keeps an update's norm above 0: Flower divides by it."""
        return ArrayRecord({name: arrays[name] for name in self._trainable} | {_GUARD: Array(np.array([guard]))})

    def _whole(self, trainable: ArrayRecord, others: ArrayRecord) -> ArrayRecord:
        return ArrayRecord(dict(others) | {name: trainable[name] for name in self._trainable})


class _Mean(FedAvg):
    """FedAvg that remembers its last average: Flower's privacy adds its noise outside of it."""

    average: ArrayRecord | None = None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.average, metrics = super().aggregate_train(server_round, replies)
        return self.average, metrics


class _AdaptiveClipping(DifferentialPrivacyServerSideAdaptiveClipping):
    """Flower's adaptive clipping as Andrew et al. (2021) have it.

    Flower 1.41 lowers the norm where too many clients are clipped, so that it runs away to 0 or without end; and it
    adds the noise of the next round's norm, which where that is lower is too little.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self._next_norm = self.clipping_norm
        averaged = super().aggregate_train(server_round, replies)
        self.clipping_norm = self._next_norm
        return averaged

    def _geometric_update(self, clipped_fraction: float) -> None:
        self._next_norm = next_clipping_norm(
            self.clipping_norm, clipped_fraction, self.target_clipped_quantile, self.clip_norm_lr
        )


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


def _arrays(reply: Message) -> ArrayRecord:
    return reply.content.array_records["arrays"]


def _num_examples(reply: Message) -> float:
    """Return what a client counts for in the average: its examples, where nothing has made it lighter."""
    return float(str(reply.content.metric_records["metrics"]["num-examples"]))


def _weigh(reply: Message, factor: float) -> None:
    """Let a client count in the average for so many times its examples."""
    reply.content.metric_records["metrics"]["num-examples"] = factor * _num_examples(reply)


def error_cause(reason: str | None) -> str:
    """Return what went wrong, out of a traceback that Ray and Flower wrapped: its last line, without their marks."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"\x1b\[\d*m|^<class '[\w.]+'>:<'|'>$", "", lines[-1])
