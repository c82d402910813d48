"""Flower's central differential privacy, applied to the trainable parameters only."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)

from tracefl.common.seeds import derive_seed
from tracefl.federation.messages import arrays_of, num_examples_of
from tracefl.learning.privacy.central import effective_noise_multiplier, next_clipping_norm, seeded_numpy
from tracefl.learning.privacy.settings import CentralPrivacySettings, ServerPrivacy

log = logging.getLogger(__name__)

_GUARD = "tracefl/above-zero"  # no parameter's name has a slash


class CentralPrivacy:
    """Flower's central differential privacy, applied to the trainable parameters only.

    Flower's strategies clip every array and add noise to it, including BatchNorm's statistics and counters. They are
    therefore given only the trainable parameters; the buffers are averaged separately, without clipping or noise.

    The clients keep FedAvg's weights, as in the paper. Flower's noise assumes equal weights, and a client with more
    examples can change the average by more, so no epsilon is claimed. Each round's log line states the effective
    noise multiplier for the heaviest client.

    Args:
        settings: How to clip and add noise; ``initial_clipping_norm`` applies to the first round that is run.
        clients_per_round: Clients sampled in each round.
        trainable: Names of the trainable parameters.
        tied: Name of a parameter to the first name of the same one: it is clipped once, and has one noise.
        seed: Root seed.
    """

    def __init__(
        self,
        settings: ServerPrivacy,
        clients_per_round: int,
        trainable: Sequence[str],
        tied: Mapping[str, str],
        seed: int,
    ) -> None:
        self._trainable = tuple(name for name in trainable if name not in tied)
        self._tied = {name: first for name, first in tied.items() if first in self._trainable}
        self._seed = seed
        self._mean = _Mean(fraction_evaluate=0.0)
        self._flower: DifferentialPrivacyServerSideFixedClipping | _AdaptiveClipping
        if isinstance(settings, CentralPrivacySettings):
            self._flower = DifferentialPrivacyServerSideFixedClipping(
                self._mean, settings.noise_multiplier, settings.clipping_norm, clients_per_round
            )
        else:
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
        """L2 norm that the next round's updates are clipped to; set back where a round is averaged again."""
        return self._flower.clipping_norm

    @clipping_norm.setter
    def clipping_norm(self, norm: float) -> None:
        self._flower.clipping_norm = norm

    def aggregate_train(
        self, server_round: int, previous: ArrayRecord, replies: Sequence[Message]
    ) -> tuple[ArrayRecord, MetricRecord, ArrayRecord]:
        """Clip the clients' updates in place and average them.

        Args:
            server_round: The round's number; each round has its own seed for the noise.
            previous: Weights that the clients started from.
            replies: Accepted replies, in the order of the clients' ids.

        Returns:
            The average with its noise, the clients' metrics, and the average before the noise.
        """
        key = self._mean.arrayrecord_key
        sent = [arrays_of(reply) for reply in replies]
        buffers = [name for name in previous if name not in self._trainable and name not in self._tied]
        for reply, arrays in zip(replies, sent, strict=True):
            reply.content[key] = ArrayRecord({name: arrays[name] for name in buffers})
        averaged_buffers, _ = self._mean.aggregate_train(server_round, replies)
        for reply, arrays in zip(replies, sent, strict=True):
            reply.content[key] = self._to_clip(arrays, 1e-100)
        flower = self._flower
        flower.current_arrays = self._to_clip(previous, 0.0)
        flower.num_sampled_clients = len(replies)
        norm, num_examples = flower.clipping_norm, [num_examples_of(reply) for reply in replies]
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
            reply.content[key] = self._whole(arrays_of(reply), arrays)
        return self._whole(noisy, averaged_buffers), metrics, self._whole(before_noise, averaged_buffers)

    def _to_clip(self, arrays: ArrayRecord, guard: float) -> ArrayRecord:
        """Return the trainable arrays and an extra number that keeps the update's norm, Flower's divisor, above 0."""
        return ArrayRecord({name: arrays[name] for name in self._trainable} | {_GUARD: Array(np.array([guard]))})

    def _whole(self, trainable: ArrayRecord, others: ArrayRecord) -> ArrayRecord:
        tied = {name: trainable[first] for name, first in self._tied.items()}
        return ArrayRecord(dict(others) | {name: trainable[name] for name in self._trainable} | tied)


class _Mean(FedAvg):
    """FedAvg that keeps its last average, to which Flower's wrapper then adds the noise."""

    average: ArrayRecord | None = None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.average, metrics = super().aggregate_train(server_round, replies)
        return self.average, metrics


class _AdaptiveClipping(DifferentialPrivacyServerSideAdaptiveClipping):
    """Flower's adaptive clipping, corrected to Andrew et al. (2021).

    Flower 1.41 lowers the norm when too many clients are clipped, so it tends to 0 or to infinity. It also scales the
    noise with the next round's norm, which is too little where that norm is lower.
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
