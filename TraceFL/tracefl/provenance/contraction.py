"""Inner products of all clients' parameters with all inputs' gradients, one parameter tensor at a time.

A parameter's gradient comes as a sum of outer products over the layer's S positions (layers.OuterProducts). For B
inputs, C targets, K clients and P parameters there are two exact orders of multiplication:

- by gradient: form each input's gradient, then one product [B C x P] . [P x K]: B C P (S + K) multiplications;
- by application: apply the clients' parameters to the layer's input, then contract with the output's gradient:
  B P S K multiplications, and B S K m (C + 1) for the contraction, m output features. Nothing of the size B P is ever
  written, and with many targets the expensive part is shared.

The cost model counts multiplications; writing an entry of a formed gradient and reading it back counts as ``_ENTRY`` of
them. benchmarks/contractions.py measures how often the model picks the slower order, and how much slower that is.

A third order, positions first, is used where it loses nothing: the gradient of a bias or a normalisation's parameters
is a sum over positions, and a position whose gradient is zero for an input (padding; all tokens but the classified one
in a transformer's last block) is dropped before anything is multiplied.

Conditioning: clients differ little, so inner products of whole weights cancel in float32. The global model's parameters
(the center) are subtracted from every client's before the product, in the same pass that brings them into the cache;
the center's own product is added back in float64, where it is common to all clients and so changes no difference.

Precision: products are taken in the parameters' own, at least float32. With ``factors=torch.bfloat16`` large products'
factors are rounded to it and their sums kept in float32, as a GPU's tensor cores do.

Memory: parameters are taken in blocks of rows and clients in chunks, so that a block of gradients and a block of
clients' parameters stay in the processor's cache together; neither B, K nor P changes what is held at once. One thread
handles a block from beginning to end (workers.py).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tracefl.provenance.layers import OuterProducts, ParameterGradient, RowGradients
from tracefl.provenance.sources import Clients, Part
from tracefl.provenance.workers import OrderedSum, Work, run_workers

_ENTRY = 8  # cost of writing and reading one more entry of a gradient, in multiplications
_THIN = 1.6  # cost of a multiplication in a product with few rows and columns, relative to a large product's
_BLOCK = {"cpu": 2**21, "cuda": 2**26}  # entries of one block: 8 MiB of a processor's cache, 256 MiB of a GPU's memory
_CHUNK = 16  # clients in one product on a CPU: more would leave too few parameters of each in a block
_MULTIPLE = 16  # clients are padded to a multiple of this: thin matrix products of odd sizes are half as fast
_SEGMENT = 1024  # parameters in one of the small products that a long one is split into: twice as fast on a CPU
_SPARSE_POSITIONS = 16  # look for positions without a gradient where there are at least this many


@dataclass(frozen=True)
class Piece:
    """One parameter's gradient and the factor of its products.

    Attributes:
        parameter: Its name in the model.
        gradient: As returned by a rule of layers.py.
        factor: What its products are multiplied by.
    """

    parameter: str
    gradient: ParameterGradient
    factor: float


def contract(
    calls: Iterable[Callable[[], Iterable[Piece]]], clients: Clients, factors: torch.dtype | None = None
) -> Tensor:
    """Return ``(B, C, K)`` float64: all pieces' products with every client's parameters, less the reference's.

    Args:
        calls: Functions that each return the pieces of one call of a layer, with at least one piece in all. Each is
            called, on any thread, when the work before it is nearly done.
        clients: The K clients.
        factors: Dtype to which the factors of large products are rounded; None for no rounding.
    """

    def blocks_of(call: Callable[[], Iterable[Piece]]) -> Callable[[], Iterator[_Block]]:
        return lambda: (block for piece in call() for block in _blocks(piece, clients, factors))

    work = Work(blocks_of(call) for call in calls)
    found = OrderedSum(work.made)

    def run() -> None:
        gradients = _Gradients()
        term = torch.empty(0)
        for place, block, chunk, parameters in clients.staged(work):
            leading = _leading(block.gradient)
            if chunk.start == 0:
                term = torch.empty(*leading, len(clients) + 1, dtype=torch.float64, device=clients.device)
                if not block.by_application:
                    gradients.form(block.gradient)
            if block.by_application:
                part = _applied(block.gradient, parameters)
            else:
                part = gradients.times(parameters.flatten(1)).view(*leading, -1)
            term[:, :, chunk] = part[:, :, : chunk.stop - chunk.start]
            if chunk.stop == len(clients) + 1:
                found.add(place, term.mul_(block.factor))

    run_workers(work, run, clients.device)
    total = found.total()
    return total[:, :, :-1] + total[:, :, -1:]  # the last client is the center less the reference


@dataclass(frozen=True, eq=False)
class _Block(Part):
    """Some rows of a parameter, and their gradient."""

    gradient: ParameterGradient
    factor: float
    by_application: bool


def _blocks(piece: Piece, clients: Clients, dtype: torch.dtype | None) -> Iterator[_Block]:
    """Cut a gradient into blocks of rows of its parameter, whole groups where it has several."""
    width = _CHUNK if clients.device.type == "cpu" else len(clients) + 1
    gradient, rounded = piece.gradient, None
    if isinstance(gradient, OuterProducts):
        gradient = without_empty_positions(gradient)
        if dtype is not None and gradient.gradient.shape[2] == 1:
            gradient, rounded = gradient.to(dtype), dtype
    by_application = isinstance(gradient, RowGradients) or (
        isinstance(gradient, OuterProducts) and application_is_cheaper(gradient, len(clients))
    )
    inputs, targets = _leading(gradient)
    held = max(min(len(clients) + 1, width), inputs * targets)
    taps = gradient.taps if isinstance(gradient, OuterProducts) else ()
    for part, rows in _row_parts(gradient, _BLOCK[clients.device.type] // held):
        multiple = 1 if by_application else _MULTIPLE
        yield _Block(piece.parameter, rows, taps, width, multiple, rounded, part, piece.factor, by_application)


def _row_parts(gradient: ParameterGradient, entries: int) -> Iterator[tuple[ParameterGradient, slice | Tensor]]:
    """Yield parts of a gradient, of about ``entries`` parameters each, and the parameter's rows that they cover."""
    if isinstance(gradient, RowGradients):
        for part in _slices(len(gradient.rows), entries // gradient.gradient.shape[2]):
            yield gradient.part(part), gradient.rows[part]
        return
    if isinstance(gradient, Tensor):
        for part in _slices(gradient.shape[2], entries // max(1, gradient[0, 0, 0].numel())):
            yield gradient[:, :, part], part
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
    product = _THIN * -(-num_clients // _MULTIPLE) * _MULTIPLE  # a processor's vectors are filled or wasted
    by_gradient = targets * m * n * (positions + _ENTRY + product)
    times = targets if factors.rows_from_input else 1
    by_application = (
        positions * num_clients * (times * m * n + _ENTRY * targets * (n if factors.rows_from_input else m))
    )
    return by_application < by_gradient


def without_empty_positions(factors: OuterProducts) -> OuterProducts:
    """Leave out positions whose gradient is zero, as many as every input can spare.

    Only on a CPU: finding them on a GPU would mean waiting for it.
    """
    gradient, layer_input = factors.gradient, factors.layer_input
    positions = gradient.shape[3]
    if gradient.device.type != "cpu" or positions < _SPARSE_POSITIONS:
        return factors
    enough = 0.75 * positions
    if gradient[..., 0].any(dim=(1, 2)).sum(dim=1).max() > enough:  # one feature shows it: no need to check all
        return factors
    used = gradient.any(dim=4).any(dim=2).any(dim=1)  # (B, S): some target and group has a gradient there
    kept = int(used.sum(dim=1).max())
    if kept > enough:
        return factors
    places = used.int().argsort(dim=1, descending=True, stable=True)[:, : max(kept, 1)]  # (B, kept)
    index = places.view(len(places), 1, 1, -1, 1)
    return OuterProducts(
        gradient.take_along_dim(index, dim=3),
        layer_input.take_along_dim(index.squeeze(1), dim=2),
        factors.rows_from_input,
        factors.taps,
    )


def _leading(gradient: ParameterGradient) -> tuple[int, int]:
    if isinstance(gradient, RowGradients):
        return gradient.num_inputs, len(gradient.gradient)
    tensor = gradient if isinstance(gradient, Tensor) else gradient.gradient
    return tensor.shape[0], tensor.shape[1]


class _Gradients:
    """One block's gradients, ``(B * C, P)``.

    They reuse the same memory: the system clears new memory each time, which takes longer than using it.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)
        self._formed = torch.empty(0)

    def form(self, gradient: ParameterGradient) -> None:
        """Multiply the factors out."""
        assert not isinstance(gradient, RowGradients)
        if isinstance(gradient, Tensor):
            self._formed = gradient.flatten(2).flatten(0, 1)
            return
        g, z = gradient.gradient, gradient.layer_input.unsqueeze(1)  # (B, C, G, S, m), (B, 1, G, S, n)
        z = z.expand(-1, g.shape[1], -1, -1, -1)
        first, second = (z, g) if gradient.rows_from_input else (g, z)
        left, right = first.transpose(3, 4).flatten(0, 2), second.flatten(0, 2)
        size = len(left) * left.shape[1] * right.shape[2]
        if self._memory.numel() < size or self._memory.dtype != g.dtype or self._memory.device != g.device:
            self._memory = torch.empty(size, dtype=g.dtype, device=g.device)
        product = self._memory[:size].view(len(left), left.shape[1], right.shape[2])
        torch.bmm(left, right, out=product)
        self._formed = product.view(g.shape[0] * g.shape[1], -1)

    def times(self, parameters: Tensor) -> Tensor:
        """Return ``gradients @ parameters.T``, for parameters ``(clients, P)``: few rows and columns, large P."""
        gradients = self._formed
        count = gradients.shape[1]
        whole = count - count % _SEGMENT
        if gradients.device.type != "cpu" or whole < 2 * _SEGMENT:
            return _product(gradients.unsqueeze(0), parameters.T.unsqueeze(0)).squeeze(0)
        left = gradients[:, :whole].view(len(gradients), -1, _SEGMENT).transpose(0, 1)  # (segments, rows, segment)
        right = parameters[:, :whole].view(len(parameters), -1, _SEGMENT).permute(1, 2, 0)
        product = _product(left, right).sum(dim=0)
        if whole < count:
            product += _product(gradients[None, :, whole:], parameters[None, :, whole:].transpose(1, 2)).squeeze(0)
        return product


def _applied(factors: ParameterGradient, parameters: Tensor) -> Tensor:
    """Return ``(B, C, clients)``: each client's parameters applied to the input, contracted with the gradient."""
    if isinstance(factors, RowGradients):
        return _looked_up(factors, parameters)
    assert isinstance(factors, OuterProducts)
    g, z = factors.gradient, factors.layer_input.unsqueeze(1)  # (B, C, G, S, m), (B, 1, G, S, n)
    by_columns, by_rows = (g, z) if factors.rows_from_input else (z, g)
    groups, rows, columns = g.shape[2], by_rows.shape[4], by_columns.shape[4]
    if groups > 1:
        weight = parameters.view(-1, groups, rows, columns)
        return torch.einsum("kgrq,bcgsq,bdgsr->bcdk", weight, by_columns, by_rows).flatten(1, 2)
    by_columns = by_columns.squeeze(2)  # (B, C or 1, S, columns)
    outputs = _product(by_columns.flatten(0, 2).unsqueeze(0), parameters.view(1, -1, columns).transpose(1, 2))
    outputs = outputs.view(*by_columns.shape[:3], -1, rows)  # (B, C or 1, S, K, rows)
    if outputs.shape[1] == g.shape[1]:
        return outputs.mul_(by_rows.squeeze(2).unsqueeze(3)).sum(dim=(2, 4))
    return torch.einsum("bskr,bcsr->bck", outputs.squeeze(1), by_rows.squeeze(2).to(outputs.dtype))


def _looked_up(rows: RowGradients, parameters: Tensor) -> Tensor:
    """Return ``(B, C, clients)`` of parameters ``(clients, rows, columns)``: each row where an input uses it."""
    count, pairs, columns = len(parameters), *rows.gradient.shape[1:]
    found = parameters.new_zeros(rows.num_inputs, len(rows.gradient), count)
    for some in _slices(pairs, _BLOCK["cpu"] // (count * columns)):
        used = parameters[:, rows.places[some]]  # (clients, pairs, columns)
        terms = torch.einsum("knd,cnd->nck", used, rows.gradient[:, some])
        found.index_add_(0, rows.inputs[some], terms)
    return found


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``torch.bmm(left, right)``, with float32 sums for bf16 factors."""
    if left.dtype != torch.bfloat16:
        return torch.bmm(left, right)
    if left.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())  # a CPU would round the sums too
