"""FedDebug: differential testing of the clients' models on random inputs (Gill, Anwar and Gulzar, ICSE 2023).

For each of several random inputs, it looks for the client whose removal leaves the others with the most activated
neurons in common (arXiv 2301.03553). No data and no labels are needed.

A neuron is one number of the output of a convolution or a linear layer, the last one included, after ReLU, whether or
not the model has a ReLU or a normalization there. It is activated if its value, scaled to 0..1 over the layer's neurons
for that client and input, is above the threshold; in a layer of equal values no neuron is.

The leave-one-out counts need no subsets. The neurons that all clients but k activate are those that everybody
activates, the same for every k, and those that k alone leaves inactive. So the client to find is the one that alone
leaves the most neurons inactive. That takes two integers per neuron, however many clients there are: how many leave it
inactive, and the last of them.

Where the paper leaves a choice open, this is what is done:

- Inputs are Kaiming-uniform draws (He et al. 2015) with a channel's height times width as fan-in, passed to the model
  as they are: between -0.077 and 0.077 for 32 x 32 pixels, about the mean image of normalized data.
- The threshold applies to scaled values.
- Clients can tie, for example where no neuron tells them apart. They share the vote; taking the first of them would
  favour client 0, which is the faulty one in the paper's Table I.
- Inputs are drawn once, whether or not the clients' predictions differ on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracefl.common.seeds import derive_seed
from tracefl.provenance.capture import frozen_eval
from tracefl.provenance.reading import aligned
from tracefl.questions.baselines.evidence import Evidence, NotApplicableError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def feddebug(evidence: Evidence, num_inputs: int = 10, threshold: float = 0.003) -> Tensor:
    """Suspect the client whose removal leaves the others with the most activated neurons in common.

    With f faults (``evidence.num_faults``), the client found for an input is taken out and the search repeated among
    the rest, until f are found. Each gets the input's vote, because the paper judges the clients found, not their
    order. Votes of later searches count a little less, by less than half a vote in all, so that the first client found
    still ranks before the others. Clients that tie are found together, or share the votes if fewer are still to be
    found.

    Cost: per search, a forward pass of ``num_inputs`` inputs for each client; six bytes per neuron and input.

    Args:
        evidence: Only the shape of its inputs matters.
        num_inputs: How many random inputs, at least 1.
        threshold: What a neuron's scaled value must exceed, 0 to 1.

    Returns:
        ``(K,)`` votes, 0 to ``num_inputs``.

    Raises:
        NotApplicableError: The model has no convolution, or the round has no more clients than faults.
    """
    num_clients, faults = len(evidence.record.clients), evidence.num_faults
    layers = [module for module in evidence.model.modules() if isinstance(module, (*_CONVOLUTIONS, nn.Linear))]
    if isinstance(evidence.inputs, Mapping) or not any(isinstance(layer, _CONVOLUTIONS) for layer in layers):
        raise NotApplicableError(
            "feddebug reads the ReLU activations of convolutional nets; this model has no convolution"
        )
    if num_clients <= faults:
        raise NotApplicableError(
            f"feddebug compares the clients that are left; {faults} faulty of {num_clients} clients leave none"
        )
    seed = derive_seed(evidence.seed, "feddebug", evidence.record.server_round)
    inputs = random_inputs(evidence.inputs.shape[1:], num_inputs, seed).to(evidence.inputs.dtype)
    votes = torch.zeros(num_clients, dtype=torch.float64)
    remaining = torch.ones(num_inputs, num_clients, dtype=torch.bool)
    wanted = torch.full((num_inputs,), faults)  # clients that are still to be found
    search = 0
    with frozen_eval(evidence.model, evidence.device) as place:
        while wanted.any():
            alone = _alone_inactive(evidence, layers, inputs.to(place), remaining, threshold)  # (N, K)
            alone.masked_fill_(~remaining, -1)
            found = alone == alone.max(dim=1, keepdim=True).values  # (N, K)
            num_found = found.sum(dim=1)
            share = (wanted / num_found).clamp(max=1)
            # Together, later searches lose less than half a vote.
            votes += (1 - search / (2 * faults * num_inputs)) * (found * share.unsqueeze(1)).double().sum(dim=0)
            wanted = (wanted - num_found).clamp(min=0)
            remaining &= ~found
            search += 1
    return votes


def random_inputs(shape: Sequence[int], num_inputs: int, seed: int) -> Tensor:
    """Return ``(N, *shape)`` float32 Kaiming-uniform draws, the fan-in being the size of one channel."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.empty(num_inputs, *shape)
    for one in inputs:
        nn.init.kaiming_uniform_(one.view(len(one), -1), generator=generator)
    return inputs


def _alone_inactive(
    evidence: Evidence, layers: Sequence[nn.Module], inputs: Tensor, remaining: Tensor, threshold: float
) -> Tensor:
    """Count the neurons that a client leaves inactive and all other remaining ones activate, ``(N, K)`` int64.

    Args:
        evidence: Its model must be on the inputs' device and in evaluation mode.
        layers: The layers whose outputs are neurons.
        inputs: ``(N, ...)``.
        remaining: ``(N, K)`` bool, the clients still in the search for each input.
        threshold: As in ``feddebug``.
    """
    model, place = evidence.model, inputs.device
    num_inputs, num_clients = remaining.shape
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]  # tied weights once
    how_many: list[Tensor] = []  # a call of a layer: (N, neurons) int16, clients that leave the neuron inactive
    last: list[Tensor] = []  # the last of them, int32
    with _inactive_neurons(layers, threshold) as calls:
        for k, weights in enumerate(evidence.record.clients.values()):
            calls.clear()
            state = {name: aligned(weights[name].to(place)) for name in names if name in weights}
            functional_call(model, state, (inputs,))
            if not how_many:
                how_many = [torch.zeros_like(inactive, dtype=torch.int16) for inactive in calls]
                last = [torch.zeros_like(inactive, dtype=torch.int32) for inactive in calls]
            still_in = remaining[:, k : k + 1].to(place)
            for inactive, count, client in zip(calls, how_many, last, strict=True):
                inactive &= still_in
                count += inactive
                client.masked_fill_(inactive, k)
    alone = torch.zeros(num_inputs * num_clients, dtype=torch.int64)
    first = num_clients * torch.arange(num_inputs, device=place).unsqueeze(1)  # of an input's clients in ``alone``
    for count, client in zip(how_many, last, strict=True):
        alone += torch.bincount((first + client)[count == 1], minlength=len(alone)).cpu()
    return alone.view(num_inputs, num_clients)


@contextmanager
def _inactive_neurons(layers: Sequence[nn.Module], threshold: float) -> Iterator[list[Tensor]]:
    """List, for every call of the layers within the context, which neurons are not activated, ``(N, neurons)`` bool.

    A value that is not a number is not activated.
    """
    calls: list[Tensor] = []

    def hook(_layer: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        values = output.flatten(1).relu()
        low, high = values.aminmax(dim=1, keepdim=True)
        calls.append(~(values - low > threshold * (high - low)))

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield calls
