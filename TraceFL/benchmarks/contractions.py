"""Does the engine choose the cheaper order of multiplication? Every layer of the four models, both ways, in turn.

On one thread, as each of the engine's workers has it.

    python TraceFL/benchmarks/contractions.py [--clients 10 100] [--verbose]
"""

import argparse
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from provenance import MODELS, model_and_inputs

from tracefl.provenance import contraction
from tracefl.provenance.backward import gradients, pieces
from tracefl.provenance.capture import frozen_eval, run_forward
from tracefl.provenance.contraction import Piece, contract
from tracefl.provenance.layers import OuterProducts
from tracefl.provenance.sources import Clients
from tracefl.provenance.traced import trace

CLOSE = 1.2  # times the better one's time


def main() -> None:
    """Print, for each model and number of clients, how often and how far the choice is off the better order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--clients", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--verbose", action="store_true", help="print every layer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="not traced")
    sys.stdout.write(
        "| model | clients | layers | within 20 % | worst | all layers chosen / best |\n|---|---|---|---|---|---|\n"
    )
    for name in options.models:
        for num_clients in options.clients:
            rows = layer_times(name, num_clients, options)
            ratios = [chosen / min(both) for _, chosen, both in rows]
            close = sum(ratio <= CLOSE for ratio in ratios)
            total = sum(chosen for _, chosen, _ in rows) / sum(min(both) for _, _, both in rows)
            sys.stdout.write(f"| {name} | {num_clients} | {len(rows)} | {close} | {max(ratios):.2f} | {total:.2f} |\n")
            if options.verbose:
                for (layer, _, (gradient, application)), ratio in zip(rows, ratios, strict=True):
                    times = f"{1e3 * gradient:.2f} ms by gradient, {1e3 * application:.2f} by application"
                    sys.stdout.write(f"    {ratio:.2f} {layer}: {times}\n")
            sys.stdout.flush()


def layer_times(
    name: str, num_clients: int, options: argparse.Namespace
) -> list[tuple[str, float, tuple[float, float]]]:
    """Return each weight's name, the chosen order's seconds, and both orders' seconds: by gradient, by application."""
    model, inputs = model_and_inputs(name, options.inputs)
    layers = trace(model, None).layers
    weights = {
        k: {n: t + 0.01 * torch.randn_like(t) for n, t in model.state_dict().items() if t.is_floating_point()}
        for k in map(str, range(num_clients))
    }
    rows = []
    with frozen_eval(model, None) as device:
        center = {full: t for tensors in trace(model, None).tensors().values() for full, t in tensors.items()}
        clients = Clients(weights, center, None, None, {}, device)
        clients.check({name: tuple(tensor.shape) for name, tensor in center.items()})
        logits, calls = run_forward(model, inputs, options.inputs, layers)
        found = gradients(logits.max(dim=1, keepdim=True).values, calls, keep=False)
        by_layer = pieces(found, calls, layers, dict.fromkeys(calls, 1.0), single=False)
        for piece in (piece for calls_of in by_layer.values() for of_call in calls_of for piece in of_call()):
            if isinstance(piece.gradient, OuterProducts):
                dense = contraction.without_empty_positions(piece.gradient)
                both = _both(Piece(piece.parameter, dense, 1.0), clients, options.repeats)
                rows.append((piece.parameter, both[contraction.application_is_cheaper(dense, num_clients)], both))
    return rows


def _both(piece: Piece, clients: Clients, repeats: int) -> tuple[float, float]:
    seconds: dict[bool, list[float]] = {False: [], True: []}
    chooses = contraction.application_is_cheaper
    for turn in range(repeats + 1):
        for way, values in seconds.items():
            contraction.application_is_cheaper = _always(way)
            begin = time.perf_counter()
            contract([lambda: [piece]], clients)
            if turn:
                values.append(time.perf_counter() - begin)
    contraction.application_is_cheaper = chooses
    return statistics.median(seconds[False]), statistics.median(seconds[True])


def _always(way: bool) -> Any:
    return lambda *_: way


if __name__ == "__main__":
    sys.exit(main())
