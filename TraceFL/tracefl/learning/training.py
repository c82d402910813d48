"""Local training and evaluation of a classifier. Needs torch alone."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracefl.errors import one_line
from tracefl.learning.examples import Examples
from tracefl.learning.settings import OptimizerName, TrainingSettings
from tracefl.provenance.inputs import forward

OPTIMIZERS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True)
class Evaluation:
    """A model's result on N examples.

    Attributes:
        loss: Mean cross-entropy per example, in nats.
        accuracy: Fraction of examples predicted correctly, 0 to 1.
        predicted: ``(N,)`` int64 classes, on the CPU.
        probabilities: ``(N,)`` float32 probabilities of these classes, 0 to 1, on the CPU.
        largest_logit: Largest absolute logit, NaN or infinite where one is.
    """

    loss: float
    accuracy: float
    predicted: Tensor
    probabilities: Tensor
    largest_logit: float = 0.0


def train(
    model: nn.Module,
    examples: Examples,
    settings: TrainingSettings,
    seed: int,
    device: torch.device | str = "cpu",
    proximal_mu: float = 0.0,
) -> float:
    """Train a model in place on a client's examples, with one forward pass per step.

    Args:
        model: Holds the round's global weights, afterwards the client's.
        examples: The client's examples, at least one full batch.
        settings: Epochs, batch size, optimizer.
        seed: Determines the shuffling and dropout.
        device: Where to train; the model stays there.
        proximal_mu: Weight mu of FedProx's term mu/2 * |w - w_global|^2 (Li et al. 2020, Eq. 2), at least 0.

    Returns:
        Mean loss over the last epoch's steps, in nats; not finite if training diverged.
    """
    torch.manual_seed(seed)
    model.to(device).train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchors = [parameter.detach().clone() for parameter in trainable] if proximal_mu else []
    optimizer = make_optimizer(settings, trainable)
    bf16 = settings.precision == "bf16"
    total, steps = torch.zeros((), device=device), 0
    for _ in range(settings.epochs):
        total, steps = torch.zeros((), device=device), 0
        for index in _shuffled_batches(len(examples), settings.batch_size):
            inputs, labels = examples.batch(index, device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(forward(model, inputs).float(), labels)
            if anchors:
                pairs = zip(trainable, anchors, strict=True)
                loss = loss + proximal_mu / 2 * torch.stack([(w - w0).square().sum() for w, w0 in pairs]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
            steps += 1
    return float(total) / steps


def why_untrainable(model: nn.Module, examples: Examples, batch_size: int) -> str | None:
    """Return why no client can train a model on such examples, None if one batch of them can be trained on.

    A batch of two tells what a larger one would: of one example alone, BatchNorm has no variance.

    Args:
        model: It and its mode are left as they are.
        examples: Some, of the kind that the clients hold.
        batch_size: Examples per step.
    """
    trial = copy.deepcopy(model).cpu().train()
    inputs, labels = examples.batch(torch.arange(min(batch_size, len(examples), 2)), "cpu")
    with torch.random.fork_rng(devices=()):
        try:
            F.cross_entropy(forward(trial, inputs).float(), labels).backward()  # type: ignore[no-untyped-call]
        except (ValueError, RuntimeError) as error:
            return one_line(error)
    return None


def make_optimizer(settings: TrainingSettings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, for these parameters and without weight decay."""
    return OPTIMIZERS[settings.optimizer](parameters, lr=settings.lr, weight_decay=0.0, fused=True)


@torch.no_grad()
def evaluate(
    model: nn.Module, examples: Examples, batch_size: int = 256, device: torch.device | str = "cpu"
) -> Evaluation:
    """Evaluate a model on all examples; the model is left on ``device``, in evaluation mode.

    Args:
        model: Returns logits ``(B, C)``.
        examples: N examples, at least one.
        batch_size: Examples per forward pass.
        device: Where to compute.
    """
    model.to(device).eval()
    loss, predicted, probabilities = torch.zeros((), dtype=torch.float64, device=device), [], []
    largest = torch.zeros((), device=device)
    for index in torch.split(torch.arange(len(examples)), batch_size):
        inputs, labels = examples.batch(index, device)
        logits = forward(model, inputs).float()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        largest = torch.maximum(largest, logits.abs().max())  # NaN stays
        predicted.append(logits.argmax(dim=1).cpu())
        probabilities.append(logits.softmax(dim=1).amax(dim=1).cpu())
    classes = torch.cat(predicted)
    accuracy = float((classes == examples.labels).double().mean())
    return Evaluation(float(loss) / len(examples), accuracy, classes, torch.cat(probabilities), float(largest))


def _shuffled_batches(num_examples: int, batch_size: int) -> Iterator[Tensor]:
    """Yield shuffled batches of indices, dropping a last batch of one, which BatchNorm cannot normalise."""
    for index in torch.split(torch.randperm(num_examples), batch_size):
        if len(index) > 1 or num_examples == 1 or batch_size == 1:
            yield index
