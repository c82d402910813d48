"""Local training with DP-SGD (Abadi et al. 2016), using Opacus."""

import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn

from tracefl.common.seeds import derive_seed
from tracefl.learning.examples import Examples
from tracefl.learning.privacy.accounting import DpSgd
from tracefl.learning.privacy.per_sample import backward_of_sum, per_sample_gradients
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import make_optimizer


def train_privately(
    model: nn.Module,
    examples: Examples,
    settings: TrainingSettings,
    privacy: DpSgd,
    seed: int,
    device: torch.device | str = "cpu",
    proximal_mu: float = 0.0,
) -> float:
    """Train a model in place with DP-SGD: clip each example's gradient and add noise to each batch's sum.

    The seed makes a run repeatable, but whoever knows it can compute the noise. The returned loss and the
    number of examples are not private.

    Args:
        model: Holds the round's global weights, afterwards the client's. Must not contain BatchNorm.
        examples: The client's examples.
        settings: Optimizer; epochs and batch size are already in ``privacy``.
        privacy: Sampling, clipping and noise.
        seed: Determines the sampling, the noise and dropout.
        device: Where to train; the model stays there.
        proximal_mu: Weight mu of FedProx's term mu/2 * |w - w_global|^2. It reveals nothing about the examples,
            so its gradient is added after the noise.

    Returns:
        Mean loss over all examples drawn, in nats; not finite if training diverged or no example was drawn.
    """
    torch.manual_seed(seed)
    model.to(device).train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchors = [parameter.detach().clone() for parameter in trainable] if proximal_mu else []
    optimizer = DPOptimizer(
        make_optimizer(settings, trainable),
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=len(examples) * privacy.sample_rate,  # the actual size would reveal who was drawn
        generator=torch.Generator(device).manual_seed(derive_seed(seed, "noise")),
    )

    def pull(_: DPOptimizer) -> None:
        for parameter, anchor in zip(trainable, anchors, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - anchor, alpha=proximal_mu)

    if anchors:
        optimizer.attach_step_hook(pull)
    batches = UniformWithReplacementSampler(
        num_samples=len(examples),
        sample_rate=privacy.sample_rate,
        steps=privacy.steps,
        generator=torch.Generator().manual_seed(derive_seed(seed, "sampling")),
    )
    total, drawn = torch.zeros((), device=device), 0
    with per_sample_gradients(model):
        for batch in batches:
            parts = torch.split(torch.tensor(batch, dtype=torch.int64), privacy.max_physical_batch_size)
            for part in parts:
                if len(part):
                    total += backward_of_sum(model, *examples.batch(part, device))
                    drawn += len(part)
                else:  # no example was drawn: still take a step, with noise only
                    for parameter in trainable:
                        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
                optimizer.signal_skip_step(do_skip=part is not parts[-1])
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    for parameter in trainable:
        del parameter.summed_grad  # type: ignore[attr-defined]  # left behind by Opacus
    return float(total) / drawn if drawn else float("nan")
