"""Shapley values of a round's clients: each one's share in the predicted class's logit, by averaging subsets again.

The game of Shapley (1953) has the round's clients as players. The value v(S) of a subset S is the centered logit (less
the mean of all logits) of the predicted class by the model

    W_S = sum over k in S of p_k W_k / sum over k in S of p_k,

buffers included; v of the empty subset is that of the weights that the round started from. Where the server takes a
step to the average, each tensor takes the same step from these weights to W_S (record.py). Then

    phi_k = sum over S without k of  |S|! (K - |S| - 1)! / K! * (v(S + k) - v(S)),

and the values of all clients sum to v(all) - v(none): what the round did to the logit. Privacy noise that was added to
the average belongs to no client: it is in every subset's model, and in the one that the round started from.

phi_k is also the mean, over all orders in which the clients may join, of what client k adds when it joins. The sampled
estimate is that mean over some orders drawn at random (Castro, Gomez and Tejada 2009), each followed by its reverse:
a client that joins early in one joins late in the other, and what a client adds depends mostly on how many are there
already.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor, nn

from tracefl.errors import ModelMismatchError, TraceFLError
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.compute import Compute
from tracefl.provenance.inputs import Inputs, plain_model
from tracefl.provenance.modes import in_any_mode
from tracefl.provenance.reading import ReadRound, check_average, read_round
from tracefl.provenance.record import ClientId, RoundRecord
from tracefl.provenance.removal import blocks, centered_logit, logits_under, logits_with_all

MAX_CLIENTS = 10
"""Largest number of clients for which exact values are computed."""


class TooManyClientsError(TraceFLError, ValueError):
    """A round has more clients than exact Shapley values are computed for."""


@dataclass(frozen=True)
class ShapleyValues:
    """Shapley values of B inputs and K clients.

    Attributes:
        client_ids: The K clients, in the order of the columns.
        values: ``(B, K)`` in logits, float64 on the CPU. They sum to ``total`` for each input, estimated or not.
        standard_errors: ``(B, K)`` standard errors of ``values``, in logits; zeros where these are exact.
        total: ``(B,)`` v(all) - v(none).
        permutations: How many orders of the clients the estimate is based on; None for exact values.
    """

    client_ids: tuple[ClientId, ...]
    values: Tensor
    standard_errors: Tensor
    total: Tensor
    permutations: int | None = None


@in_any_mode
def exact_shapley(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    classes: Tensor,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> ShapleyValues:
    """Return the exact values, over all subsets of the clients.

    Cost: 2^K each of averages of the weights, reads of a client and forward passes: 1,024 for 10 clients. Memory: three
    models and one client.

    Args:
        global_model: The architecture; its own weights are not used and not changed.
        record: The round, of ``MAX_CLIENTS`` clients at most.
        inputs: ``(B, ...)`` or a mapping of such tensors.
        classes: ``(B,)`` int64 classes whose logit is shared out: those that the round's model predicts.
        check: As in ``logits_without``.
        compute: The device, and the inputs in one forward.

    Raises:
        TooManyClientsError: There are more clients.
        ModelMismatchError: A subset's model gives logits that are not finite, or names or shapes are not the model's.
        RecordError: The record is no average.
    """
    num_clients = len(record.clients)
    if num_clients > MAX_CLIENTS:
        raise TooManyClientsError(
            f"exact Shapley values take 2^K models of the round's K clients; they are computed up to {MAX_CLIENTS} "
            f"clients, this round has {num_clients}"
        )
    model = plain_model(global_model)
    record = read_round(model, record)
    with frozen_eval(model, compute.device) as place:
        game = _Game(model, record, inputs, classes, compute.forward_batch_size, place, check)
        values = torch.empty(2**num_clients, len(classes), dtype=torch.float64)  # v(S) of each input
        values[0] = game.value(f"{0:0{num_clients}b}")
        for subset in _gray_code(num_clients, game):
            values[subset] = game.value(f"{subset:0{num_clients}b}")
    found = values.t() @ shapley_coefficients(num_clients)
    return ShapleyValues(tuple(record.clients), found, torch.zeros_like(found), values[-1] - values[0])


@in_any_mode
def sampled_shapley(
    global_model: nn.Module,
    record: RoundRecord,
    inputs: Inputs,
    classes: Tensor,
    permutations: int,
    seed: int,
    *,
    check: bool = True,
    compute: Compute = Compute(),
) -> ShapleyValues:
    """Estimate the values from some orders of the clients, with the estimate's standard error.

    An order and its reverse are one draw; the error is the draws' standard deviation over the root of their number. An
    order's terms sum to v(all) - v(none), and so does the estimate.

    Cost: K - 1 each of averages of the weights, reads of a client and forward passes per order; plus K reads and 2
    forward passes in all. Memory: three models and one client.

    Args:
        global_model: As in ``exact_shapley``.
        record: The round, of any number of clients.
        inputs: As in ``exact_shapley``.
        classes: As in ``exact_shapley``.
        permutations: Orders, reverses included: even, and at least 4.
        seed: Equal seeds give equal orders.
        check: As in ``logits_without``.
        compute: As in ``exact_shapley``.

    Raises:
        ValueError: ``permutations`` is odd or below 4.
        ModelMismatchError: A subset's model gives logits that are not finite.
    """
    if permutations < 4 or permutations % 2:
        raise ValueError(f"permutations must be even, each order with its reverse, and at least 4, got {permutations}")
    num_clients = len(record.clients)
    generator = torch.Generator().manual_seed(seed)
    shape = len(classes), num_clients
    mean, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    model = plain_model(global_model)
    record = read_round(model, record)
    with frozen_eval(model, compute.device) as place:
        game = _Game(model, record, inputs, classes, compute.forward_batch_size, place, check)
        none = game.value("no client")
        for k in range(num_clients):
            game.join(k)
        everyone = game.value("all clients")
        for draw in range(1, permutations // 2 + 1):
            order = torch.randperm(num_clients, generator=generator).tolist()
            added = torch.zeros(shape, dtype=torch.float64)
            for members in (order, order[::-1]):
                added += _added(game, members, none, everyone) / 2
            change = added - mean  # Welford (1962): no difference of large sums
            mean += change / draw
            squares += change * (added - mean)
    draws = permutations // 2
    errors = (squares / (draws - 1) / draws).sqrt()
    return ShapleyValues(tuple(record.clients), mean, errors, everyone - none, permutations)


def shapley_coefficients(num_clients: int) -> Tensor:
    """Return how much v(S) counts in each client's value, ``(2^K, K)`` float64; bit k of row S says k is in S."""
    subsets = torch.arange(2**num_clients).unsqueeze(1)  # (2^K, 1)
    inside = (subsets >> torch.arange(num_clients)) & 1 == 1  # (2^K, K)
    sizes = inside.sum(dim=1)
    # By the size of the subset that the client is not in: s! (K - s - 1)! / K! = 1 / (K * binomial(K - 1, s)).
    weights = [1 / (num_clients * comb(num_clients - 1, size)) for size in range(num_clients)]
    weight = torch.tensor([0.0, *weights, 0.0], dtype=torch.float64)  # by size + 1; the ends are never used
    return torch.where(inside, weight[sizes].unsqueeze(1), -weight[sizes + 1].unsqueeze(1))


class _Game:
    """A subset of the clients, which join and leave one at a time, with its model and its value.

    A step costs one read of a client and one addition to a running sum. In float64 its rounding after 2^10 steps, about
    1e-13, is far below that of the float32 weights.
    """

    def __init__(
        self,
        model: nn.Module,
        record: ReadRound,
        inputs: Inputs,
        classes: Tensor,
        batch_size: int,
        device: torch.device,
        check: bool,
    ) -> None:
        self._model, self._record, self._batch_size = model, record, batch_size
        record.check_averaged("Shapley values")
        self._steps = record.steps("Shapley values")
        if check:
            check_average(record)
        _, self._batch = logits_with_all(model, record, inputs, batch_size, device, check)
        self._classes, self._device = classes.to(device), device
        self._ids = tuple(record.clients)
        self._weights = dict(record.global_weights)
        self._sums = {}
        for name, weights in record.global_weights.items():
            if weights.is_floating_point():
                self._sums[name] = torch.empty(weights.shape, dtype=torch.float64, device=weights.device)
                self._weights[name] = torch.empty_like(weights, memory_format=torch.contiguous_format)
        self._noise = {}
        if record.before_noise is not None:
            self._noise = {name: record.global_weights[name] - record.before_noise[name] for name in self._sums}
        self.clear()

    def clear(self) -> None:
        """Let all clients leave: what is left is the model that the round started from."""
        self._members: set[int] = set()
        for name, sums in self._sums.items():
            sums.zero_()
            self._weights[name].copy_(self._record.previous_global[name])
            if name in self._noise:
                self._weights[name] += self._noise[name]

    def join(self, k: int) -> None:
        """Let client number k join, or leave if it is in."""
        self._members ^= {k}
        own, p = self._record.clients[self._ids[k]], self._record.client_weights
        share = p[self._ids[k]] * (1 if k in self._members else -1)
        total = sum(p[self._ids[j]] for j in sorted(self._members))
        for name, running in self._sums.items():
            rate = self._steps[name]
            begin = running if rate == 1 else self._record.previous_global[name]
            for weights, some, part, start in blocks(self._weights[name], running, own[name], begin):
                some.add_(part.to(some).mul(share))  # not in place: the double of a double is itself
                average = some / total
                if rate != 1:
                    average.sub_(start.to(some)).mul_(rate).add_(start.to(some))
                weights.copy_(average)
            if name in self._noise:
                self._weights[name] += self._noise[name]

    def value(self, subset: str) -> Tensor:
        """Return v of the subset, ``(B,)`` float64 on the CPU.

        Raises:
            ModelMismatchError: A logit is not finite; ``subset`` names the subset in the message.
        """
        logits = logits_under(self._model, self._weights, self._batch, self._batch_size, self._device)
        if not logits.isfinite().all():
            raise ModelMismatchError(f"the model of the subset {subset} gives logits that are not finite")
        return centered_logit(logits, self._classes).cpu()


def _gray_code(num_clients: int, game: _Game) -> Iterator[int]:
    """Bring the game to every subset but the empty one, as bits: one client joins or leaves at a time (Gray 1953)."""
    subset = 0
    for step in range(1, 2**num_clients):
        turned = (step & -step).bit_length() - 1  # the lowest bit that is set
        subset ^= 1 << turned
        game.join(turned)
        yield subset


def _added(game: _Game, order: Sequence[int], none: Tensor, everyone: Tensor) -> Tensor:
    """Return what each client adds when it joins in this order, ``(B, K)``."""
    added = torch.empty(len(none), len(order), dtype=torch.float64)
    game.clear()
    before = none
    for place, k in enumerate(order, 1):
        if place < len(order):
            game.join(k)
            value = game.value(f"of the first {place} clients of an order")
        else:
            value = everyone
        added[:, k] = value - before
        before = value
    return added
