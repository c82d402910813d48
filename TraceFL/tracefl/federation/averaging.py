"""A round's model: of sound replies within bounds, in messages of the server's own, which Flower aggregates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from tracefl.federation.bounds import bounded, capped_counts
from tracefl.federation.central_privacy import CentralPrivacy
from tracefl.federation.messages import ARRAYS, LOSS, METRICS, NUM_EXAMPLES, arrays_of
from tracefl.federation.plan import FederationPlan
from tracefl.federation.replies import Trained
from tracefl.provenance import RoundRecord
from tracefl.provenance.norms import FEWEST_COMPARED, bound_of, update_norms

Mean = Callable[[Sequence[Message]], tuple[ArrayRecord | None, MetricRecord | None]]
"""What Flower makes of messages: the weights, by their average or a robust rule, and the mean of the metrics."""

_BUFFERS = "change of the buffers"
_ROUNDING = 1e-6  # by which an average of the same whole numbers may miss them
_HERE = 1  # any node: these messages are sent nowhere


@dataclass(frozen=True)
class Averaged:
    """Some of a round's replies, averaged.

    Attributes:
        record: The round as it would be.
        metrics: Means over its clients.
        capped: Client id to what of its reply was brought down to a bound, in words.
    """

    record: RoundRecord
    metrics: MetricRecord
    capped: Mapping[str, str]


@dataclass(frozen=True)
class _Part:
    """Tensors whose change by a client is bounded together.

    Attributes:
        what: In words that follow "its".
        names: Of floating-point tensors.
        norms: Client id to the L2 norm of its change of them.
    """

    what: str
    names: Sequence[str]
    norms: Mapping[str, float]


class Averaging:
    """Averages all sound replies of a round, or some of them; each time as if the round had no others.

    Args:
        plan: The federation's.
        server_round: The round.
        previous: The weights that the clients started from.
        replies: Client id to its reply, in the order in which they are added up.
        mean: Flower's average.
        central: The server's privacy; None without.
    """

    def __init__(
        self,
        plan: FederationPlan,
        server_round: int,
        previous: ArrayRecord,
        replies: Mapping[str, Trained],
        mean: Mean,
        central: CentralPrivacy | None,
    ) -> None:
        self._plan, self._round, self._mean, self._central = plan, server_round, mean, central
        self._previous = previous
        self._start = like(previous, plan.initial_weights)
        self._parts = [
            _Part(what, names, update_norms({k: reply.state for k, reply in replies.items()}, self._start, names))
            for what, names in self._bounded_names()
        ]
        self.clipping_norm = None if central is None else central.clipping_norm
        """L2 norm to which privacy clips this round's updates; None without."""

    def by_norm(self, replies: Mapping[str, Trained]) -> list[str]:
        """Return the clients of replies by how far these lie from what they started from, the farthest first."""
        states = {k: reply.state for k, reply in replies.items()}
        norms = update_norms(states, self._start, [name for name, w in self._start.items() if w.is_floating_point()])
        return sorted(norms, key=lambda k: -norms[k])

    def __call__(self, replies: Mapping[str, Trained]) -> Averaged | None:
        """Average some of the replies; None where Flower returns no average.

        Args:
            replies: Some of the round's, in the same order, at least one.
        """
        kept, capped = self._within_bounds(replies)
        messages = _messages(kept)
        before_noise = None
        if self._central is None:
            arrays, metrics = self._mean(messages)
        else:
            assert self.clipping_norm is not None
            self._central.clipping_norm = self.clipping_norm  # an average of others may have moved it
            arrays, metrics, before_noise = self._central.aggregate_train(self._round, self._previous, messages)
        if arrays is None or metrics is None:
            return None
        declared, total = self._plan.initial_weights, sum(reply.num_examples for reply in kept.values())
        clients = {k: reply.state for k, reply in kept.items()}
        if self._central is not None:  # which has clipped them
            clients = {k: like(arrays_of(each), declared) for k, each in zip(kept, messages, strict=True)}
        record = RoundRecord(
            server_round=self._round,
            clients=clients,
            client_weights={k: reply.num_examples / total for k, reply in kept.items()},
            previous_global=self._start,
            global_weights=like(arrays, declared),
            before_noise=None if before_noise is None else like(before_noise, declared),
            aggregation=self._plan.aggregation,
        )
        return Averaged(record, metrics, capped)

    def _bounded_names(self) -> list[tuple[str, list[str]]]:
        """Return what is bounded together, each with its tensors' names: the trained parameters, and the buffers.

        With central privacy the parameters are not: they are clipped there, and a bound that follows the other clients
        would make one client's part in the average depend on the others' data.
        """
        plan = self._plan
        if plan.max_update_norm is None:
            return []
        floating = [name for name, tensor in plan.initial_weights.items() if tensor.is_floating_point()]
        trained = set(plan.trainable)
        others = [name for name in floating if name not in trained and name not in set(plan.frozen)]
        parts = [(_BUFFERS, others)]
        if plan.privacy is None:
            parts.insert(0, ("update", [name for name in floating if name in trained]))
        return [(what, names) for what, names in parts if names]

    def _within_bounds(self, replies: Mapping[str, Trained]) -> tuple[dict[str, Trained], dict[str, str]]:
        """Return replies as they are averaged, and of each that was brought down to a bound how, in words."""
        found, said = dict(replies), {k: list[str]() for k in replies}
        for part in self._parts:
            bound = bound_of([part.norms[k] for k in replies], self._plan.max_update_norm)
            if bound is None and part.what == _BUFFERS and len(replies) >= FEWEST_COMPARED:
                bound = 0.0  # most left them alone, such as a table of positions: training does
            for k in replies:
                if bound is not None and (norm := part.norms[k]) > bound:
                    state = bounded(found[k].state, self._start, part.names, bound / norm)
                    found[k] = replace(found[k], state=state, arrays=ArrayRecord(state))
                    said[k].append(
                        f"its {part.what} had a norm of {norm:.4g} and counts with {bound:.4g}, "
                        f"{self._plan.max_update_norm:g} times the round's median"
                    )
        factors = self._plan.participation.factors
        for k, count in self._counts(replies).items():
            found[k] = replace(found[k], num_examples=count)
            if count < (wanted := replies[k].num_examples * factors.get(k, 1)):
                said[k].append(f"its {wanted:.15g} examples count as {count:.6g}")
        return found, {k: "; ".join(words) for k, words in said.items() if words}

    def _counts(self, replies: Mapping[str, Trained]) -> dict[str, float]:
        """Return by what replies are weighted: examples, within bounds, times the factors of ``mitigate``."""
        plan, factors = self._plan, self._plan.participation.factors
        counts: dict[str, float] = {k: reply.num_examples for k, reply in replies.items()}
        counts = capped_counts(counts, plan.max_weight_multiple, plan.max_weight)
        counts = {k: factors[k] * count if k in factors else count for k, count in counts.items()}
        return counts if plan.max_weight is None else capped_counts(counts, None, plan.max_weight)


def like(arrays: ArrayRecord, declared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return arrays as tensors of the model's types: Flower averages integer buffers to float64."""
    state = arrays.to_torch_state_dict()
    return {name: _as_type(state[name], torch.as_tensor(tensor).dtype) for name, tensor in declared.items()}


def _as_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_floating_point() and not dtype.is_floating_point:
        nearest = tensor.round()
        tensor = torch.where((tensor - nearest).abs() < _ROUNDING, nearest, tensor)
    return tensor.to(dtype)


def _messages(replies: Mapping[str, Trained]) -> list[Message]:
    """Return replies as Flower averages them: new messages, with nothing in them but what was checked."""
    return [
        Message(
            RecordDict(
                {ARRAYS: reply.arrays, METRICS: MetricRecord({NUM_EXAMPLES: reply.num_examples, LOSS: reply.loss})}
            ),
            _HERE,
            MessageType.TRAIN,
        )
        for reply in replies.values()
    ]
