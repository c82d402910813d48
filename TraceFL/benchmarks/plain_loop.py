"""The training of a run as a plain PyTorch loop: what the harness is compared with.

    python benchmarks/plain_loop.py RUN_FOLDER

It takes the configuration of a run that is there and each round's clients, prepares the same data with the same
function, and then only trains: each client's steps from the global weights, one client after another; the average
weighted by examples; an evaluation on the server's examples. No Flower, no Ray, no message, no provenance, and nothing
is kept. It draws the same batches and dropout, and so prints the run's own accuracy.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracefl.common.seeds import derive_seed
from tracefl.experiment.preparation import Prepared, prepare_run
from tracefl.learning.examples import Examples
from tracefl.learning.models import initial_model
from tracefl.provenance.inputs import forward
from tracefl.records.settings import Settings, read_config

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def main() -> None:
    """Train what the folder's run has trained, and print the last accuracy."""
    folder = Path(sys.argv[1])
    settings = read_config(folder / "config.yaml")
    torch.set_num_threads(settings.client_resources.cpus)
    accuracy = train_rounds(settings, prepare_run(settings), rounds_of(folder))
    sys.stdout.write(f"accuracy {accuracy:.4f}\n")


def rounds_of(folder: Path) -> list[list[str]]:
    """Return the clients that each round of a run has averaged."""
    files = sorted(folder.glob("rounds/*/round.json"))
    return [list(json.loads(file.read_text())["client_weights"]) for file in files]


def train_rounds(settings: Settings, prepared: Prepared, rounds: list[list[str]]) -> float:
    """Train every round's clients one after another, average and evaluate them; returns the last accuracy."""
    average = initial_model(settings.model, prepared.spec, derive_seed(settings.seed, "model"))
    client, accuracy = copy.deepcopy(average), 0.0
    for server_round, clients in enumerate(rounds, start=1):
        total: dict[str, Tensor] = {}
        num_examples = sum(len(prepared.data.clients[k]) for k in clients)
        for client_id in clients:
            examples = prepared.data.clients[client_id]
            client.load_state_dict(average.state_dict())
            torch.manual_seed(derive_seed(settings.seed, "train", server_round, client_id))
            _train(client, examples, settings)
            for name, tensor in client.state_dict().items():
                part = tensor * (len(examples) / num_examples)
                total[name] = total[name].add_(part) if name in total else part
        average.load_state_dict(total)
        accuracy = _evaluate(average, prepared.data.server)
    return accuracy


def _train(model: nn.Module, examples: Examples, settings: Settings) -> None:
    model.train()
    training = settings.training
    optimizer = OPTIMIZERS[training.optimizer](model.parameters(), lr=training.lr, weight_decay=0.0, fused=True)
    for _ in range(training.epochs):
        for index in torch.randperm(len(examples)).split(training.batch_size):
            if len(index) > 1:
                inputs, labels = examples.batch(index)
                optimizer.zero_grad()
                F.cross_entropy(forward(model, inputs), labels).backward()
                optimizer.step()


@torch.no_grad()
def _evaluate(model: nn.Module, examples: Examples) -> float:
    model.eval()
    batches = torch.arange(len(examples)).split(256)
    right = sum(
        (forward(model, inputs).argmax(dim=1) == labels).sum() for inputs, labels in map(examples.batch, batches)
    )
    return float(right) / len(examples)


if __name__ == "__main__":
    main()
