"""Where the first-order estimate of a removal is off: in single layers, or in what they do together.

    tracefl run store=all ...
    python TraceFL/benchmarks/fidelity_layers.py RUN_FOLDER [RUN_FOLDER ...]

Of 50 inputs of a run's last stored round, leaves each client out of some tensors only, exactly: those of the
normalisations, of the embeddings, of the first and of the second half of all other layers, and of the last one. Prints
for each group the size of its exact effects, the error of the first order through it, and, for all groups, what the
exact effects of the groups leave unexplained of the whole removal's: what layers do together. Root mean squares over
inputs and clients, as fractions of that of the whole removal's effects.
"""

import sys
import warnings
from pathlib import Path

import torch
from fidelity import choose
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tracefl.learning.training import evaluate
from tracefl.provenance import Method, RoundRecord, attribute_round, weights_without
from tracefl.provenance.inputs import Inputs, read_batch
from tracefl.provenance.removal import centered_logit, float64_average, logits_under
from tracefl.provenance.traced import trace
from tracefl.records.run import StoredRun

ALSO = ("batch_norm", "embedding")
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def main() -> None:
    """Print the table for the run folders on the command line."""
    warnings.simplefilter("ignore")
    sys.stdout.write("| run | layers | exact effect | error of the first order |\n| --- | --- | ---: | ---: |\n")
    for folder in map(Path, sys.argv[1:]):
        run = StoredRun(folder)
        model, record = run.round()
        predicted = evaluate(model, run.server).predicted
        chosen = choose(run.server, predicted)
        inputs, labels = run.server.batch(chosen)
        parts = groups(model)
        exact = effects(model, record, inputs, predicted[chosen], [*parts.values(), None])  # (groups + 1, B, K)
        whole = _size(exact[-1])
        for name, found in zip([*parts, "all"], exact, strict=True):
            layers = None if name == "all" else tuple(parts[name])
            estimate = attribute_round(
                model, record, inputs, labels, Method(layers=layers, also=ALSO, verify=0)
            ).contributions
            error = _size(estimate.double() - found)
            sys.stdout.write(f"| {folder.name} | {name} | {_size(found) / whole:.2f} | {error / whole:.2f} |\n")
        together = _size(exact[-1] - exact[:-1].sum(dim=0))
        sys.stdout.write(f"| {folder.name} | together, beyond the groups' sum | {together / whole:.2f} | |\n")


def groups(model: nn.Module) -> dict[str, list[str]]:
    """Return the traced layers' names by group, groups without layers left out."""
    layers = trace(model, None, ALSO).layers
    norms = [name for name, layer in layers.items() if isinstance(layer, _NORMS)]
    embeddings = [name for name, layer in layers.items() if isinstance(layer, nn.Embedding)]
    *others, last = [name for name in layers if name not in {*norms, *embeddings}]
    half = len(others) // 2
    found = {"normalisations": norms, "embeddings": embeddings, "first half": others[:half]}
    found |= {"second half": others[half:], "last layer": [last]}
    return {name: names for name, names in found.items() if names}


@torch.no_grad()
def effects(
    model: nn.Module, record: RoundRecord, inputs: Inputs, classes: Tensor, parts: list[list[str] | None]
) -> Tensor:
    """Return ``(parts, B, K)`` effects of each client's removal from the layers of each part alone; None: from all."""
    cpu, average = torch.device("cpu"), float64_average(record)
    batch = read_batch(model, inputs, cpu)

    def centered(weights: dict[str, Tensor]) -> Tensor:
        return centered_logit(logits_under(model, weights, batch, 100, cpu), classes)

    with_all = centered(dict(record.global_weights))
    columns = []
    for client_id in record.clients:
        without = weights_without(record, client_id, average)
        rows = []
        for part in parts:
            ours = {n for n in without if part is None or n.rpartition(".")[0] in part}
            weights = {n: without[n] if n in ours else old for n, old in record.global_weights.items()}
            rows.append(with_all - centered(weights))
        columns.append(torch.stack(rows))
    return torch.stack(columns, dim=2)


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


if __name__ == "__main__":
    main()
