"""Inner products of all clients' parameters with all inputs' gradients, one parameter tensor at a time.

A parameter's gradient comes as a sum of outer products over the layer's S positions (layers.OuterProducts). For B
inputs, C targets, K clients and P parameters there are two exact orders of multiplication:

- by gradient: form each input's gradient, then one product [B C x P] . [P x K]: B C P (S + K) multiplications;
- by application: apply the clients' parameters to the layer's input, then contract with the output's gradient:
  B P S K multiplications, and B S K m (C + 1) for the contraction, m output features. Nothing of the size B P is ever
  written, and with many targets the expensive part is shared.

The cost model counts multiplications, and for every entry of a gradient that is formed what writing and reading it
again costs, in multiplications (``_ENTRY``). benchmarks/contractions.py shows how often, and how far, the choice is off
the better one.

A third order, positions first, is taken where nothing is lost by it: the gradient of a bias or a normalisation's
parameters is a sum over positions, and a position whose gradient is zero for an input (padding; all tokens but the
classified one in a transformer's last block) is dropped before anything is multiplied.

Conditioning: clients differ little, so inner products of whole weights cancel in float32. The global model's parameters
(the center) are subtracted from every client's before the product, in the same pass that brings them into the cache;
the center's own product is added back in float64, where it is common to all clients and so changes no difference.

Memory: parameters are taken in blocks of rows and clients in chunks, so that a block of gradients and a block of
clients' parameters stay in the processor's cache together; neither B, K nor P changes what is held at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance.layers import OuterProducts, ParameterGradient, RowGradients
from tracefl.provenance.sources import Clients, Part

_ENTRY = 12  # multiplications that writing and reading one more entry of a gradient is worth
_BLOCK = {"cpu": 2**21, "cuda": 2**26}  # entries of one block: 8 MiB of a processor's cache, 256 MiB of a GPU's memory
_CHUNK = 32  # clients in one product on a CPU: more would leave too few parameters of each in a block
_SEGMENT = 1024  # parameters in one of the small products that a long one is split into: twice as fast on a CPU
_SPARSE_POSITIONS = 16  # from so many positions on, look for positions without gradient


@dataclass(frozen=True)
class Piece:
    """One parameter's gradient and what its product counts for.

    Attributes:
        parameter: Its name in the model.
        gradient: As a rule of layers.py gives it.
        factor: What its products are multiplied by.
    """

    parameter: str
    gradient: ParameterGradient
    factor: float


def contract(pieces: Iterable[Piece], clients: Clients) -> Tensor:
    """Return ``(B, C, K)`` float64: all pieces' products with every client's parameters, less the reference's.

    Args:
        pieces: At least one; each is asked for when the one before is nearly done, and then forgotten.
        clients: The K clients.
    """
    total: Tensor | None = None
    current: _Block | None = None
    formed: Tensor | None = None
    for block, chunk, parameters in clients.staged(_blocks(pieces, clients)):
        if block is not current:
            current, formed = block, None if block.by_application else _formed(block.gradient)
        inputs, targets = _leading(block.gradient)
        if total is None:
            total = torch.zeros(inputs, targets, len(clients) + 1, dtype=torch.float64, device=clients.device)
        if formed is None:
            assert isinstance(block.gradient, OuterProducts)
            part = _applied(block.gradient, parameters)
        else:
            part = _product(formed, parameters.flatten(1)).view(inputs, targets, -1)
        total[:, :, chunk].add_(part[:, :, : chunk.stop - chunk.start], alpha=block.factor)
    if total is None:
        raise ValueError("contract() needs at least one piece")
    return total[:, :, :-1] + total[:, :, -1:]  # the last client is what the center was short of


@dataclass(frozen=True, eq=False)
class _Block(Part):
    """Some rows of a parameter, and the gradient of these."""

    gradient: ParameterGradient
    factor: float
    by_application: bool


def _blocks(pieces: Iterable[Piece], clients: Clients) -> Iterator[_Block]:
    """Cut gradients into blocks of rows of their parameters, whole groups where they have several."""
    width = _CHUNK if clients.device.type == "cpu" else len(clients) + 1
    for piece in pieces:
        gradient = piece.gradient
        if isinstance(gradient, OuterProducts):
            gradient = without_empty_positions(gradient)
        by_application = isinstance(gradient, OuterProducts) and application_is_cheaper(gradient, len(clients))
        inputs, targets = _leading(gradient)
        held = max(min(len(clients) + 1, width), 1 if by_application else inputs * targets)
        taps = gradient.taps if isinstance(gradient, OuterProducts) else ()
        for part, rows in _row_parts(gradient, _BLOCK[clients.device.type] // held):
            yield _Block(piece.parameter, rows, taps, width, part, piece.factor, by_application)


def _row_parts(gradient: ParameterGradient, entries: int) -> Iterator[tuple[ParameterGradient, slice | Tensor]]:
    """Yield parts of a gradient of about so many parameters, and the parameter's rows that they are of."""
    if not isinstance(gradient, OuterProducts):
        tensor = gradient if isinstance(gradient, Tensor) else gradient.gradient
        for part in _slices(tensor.shape[2], entries // max(1, tensor[0, 0, 0].numel())):
            if isinstance(gradient, RowGradients):
                yield RowGradients(tensor[:, :, part], gradient.rows[part]), gradient.rows[part]
            else:
                yield tensor[:, :, part], part
        return
    g, z = gradient.gradient, gradient.layer_input
    groups, m, n = g.shape[2], g.shape[4], z.shape[3]
    rows, columns = (n, m) if gradient.rows_from_input else (m, n)
    if groups > 1:
        for part in _slices(groups, entries // (rows * columns)):
            factors = OuterProducts(g[:, :, part], z[:, part], gradient.rows_from_input, gradient.taps)
            yield factors, slice(part.start * rows, part.stop * rows)
        return
    for part in _slices(rows, entries // columns):
        if gradient.rows_from_input:
            yield OuterProducts(g, z[..., part], True, gradient.taps), part
        else:
            yield OuterProducts(g[..., part], z, False, gradient.taps), part


def _slices(count: int, step: int) -> Iterator[slice]:
    step = max(1, step)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def application_is_cheaper(factors: OuterProducts, num_clients: int) -> bool:
    """Compare the two orders of multiplication by the cost model above."""
    _, targets, _, positions, m = factors.gradient.shape
    n = factors.layer_input.shape[-1]
    wide = m  # features that the clients' outputs have
    by_gradient = targets * m * n * (max(positions, _ENTRY) + num_clients)
    by_application = m * n * positions * num_clients + positions * num_clients * wide * (targets + 1)
    return by_application < by_gradient


def without_empty_positions(factors: OuterProducts) -> OuterProducts:
    """Leave out positions whose gradient is zero, as many as every input can spare.

    Only on a CPU: to know them, a GPU would have to be waited for.
    """
    gradient, layer_input = factors.gradient, factors.layer_input
    positions = gradient.shape[3]
    if gradient.device.type != "cpu" or positions < _SPARSE_POSITIONS:
        return factors
    counts = gradient.ne(0).any(dim=4).sum(dim=(1, 2))  # (B, S): 0 where no target and no group has a gradient
    kept = int((counts > 0).sum(dim=1).max())
    if kept > 0.75 * positions:
        return factors
    places = (counts > 0).int().argsort(dim=1, descending=True, stable=True)[:, : max(kept, 1)]  # (B, kept)
    index = places.view(len(places), 1, 1, -1, 1)
    return OuterProducts(
        gradient.take_along_dim(index, dim=3),
        layer_input.take_along_dim(index.squeeze(1), dim=2),
        factors.rows_from_input,
        factors.taps,
    )


def _leading(gradient: ParameterGradient) -> tuple[int, int]:
    tensor = gradient if isinstance(gradient, Tensor) else gradient.gradient
    return tensor.shape[0], tensor.shape[1]


def _formed(gradient: ParameterGradient) -> Tensor:
    """Return the gradient itself, ``(B * C, rows * columns)``."""
    if not isinstance(gradient, OuterProducts):
        tensor = gradient if isinstance(gradient, Tensor) else gradient.gradient
        return tensor.flatten(2).flatten(0, 1)
    g, z = gradient.gradient, gradient.layer_input.unsqueeze(1)  # (B, C, G, S, m), (B, 1, G, S, n)
    first, second = (z, g) if gradient.rows_from_input else (g, z)
    if g.shape[3] == 1:  # an outer product: no sum to take
        return (first.transpose(3, 4) * second).flatten(2).flatten(0, 1)
    return torch.matmul(first.transpose(3, 4), second).flatten(2).flatten(0, 1)


def _product(gradients: Tensor, parameters: Tensor) -> Tensor:
    """Return ``gradients @ parameters.T``, ``(rows, n)`` times ``(clients, n)``: few rows, few clients, large n."""
    n = gradients.shape[1]
    whole = n - n % _SEGMENT
    if gradients.device.type != "cpu" or whole < 2 * _SEGMENT:
        return gradients @ parameters.T
    left = gradients[:, :whole].view(len(gradients), -1, _SEGMENT).transpose(0, 1)  # (segments, rows, segment)
    right = parameters[:, :whole].view(len(parameters), -1, _SEGMENT).permute(1, 2, 0)  # (segments, segment, clients)
    product = torch.bmm(left, right).sum(dim=0)
    return product if whole == n else product + gradients[:, whole:] @ parameters[:, whole:].T


def _applied(factors: OuterProducts, parameters: Tensor) -> Tensor:
    """Return ``(B, C, clients)``: each client's parameters applied to the input, contracted with the gradient."""
    g, z = factors.gradient, factors.layer_input  # (B, C, G, S, m), (B, G, S, n)
    groups, n, m = z.shape[1], z.shape[3], g.shape[4]
    if groups == 1:
        if factors.rows_from_input:
            weight = parameters.view(-1, n, m).transpose(0, 1).reshape(n, -1)  # (n, K * m)
        else:
            weight = parameters.view(-1, n).T  # (n, K * m)
        outputs = (z.squeeze(1) @ weight).view(*z.shape[:1], z.shape[2], -1, m)  # (B, S, K, m)
        if g.shape[1] == 1:
            return torch.einsum("bskm,bsm->bk", outputs, g[:, 0, 0]).unsqueeze(1)
        return torch.einsum("bskm,bcsm->bck", outputs, g.squeeze(2))
    letters = "kgnm" if factors.rows_from_input else "kgmn"
    shape = (-1, groups, n, m) if factors.rows_from_input else (-1, groups, m, n)
    return torch.einsum(f"{letters},bgsn,bcgsm->bck", parameters.view(shape), z, g)
