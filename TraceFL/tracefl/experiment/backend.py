"""Where the clients of a simulation are called: one after another in this process, or several at once on Ray.

With ``backend=auto`` it is where the run ends sooner; no number depends on it. That several clients train at once pays
only once it has saved the seconds that Ray takes to start and to pass messages on.
"""

import time
from dataclasses import dataclass

import torch
from torch import nn

from tracefl.experiment.settings import client_gpus, total_cpus, total_gpus
from tracefl.federation.resources import Resources
from tracefl.learning.examples import Examples
from tracefl.provenance.inputs import forward
from tracefl.records.settings import Settings

# What Ray costs beyond this process, on 2 cores of an AMD EPYC, by ``measure`` in benchmarks/backends.py. In a run of
# one round its processes took 12 to 15 CPU seconds more: two workers, each of which imports torch, most of it while
# this process waits. In more rounds, a client's call took 0.04 CPU seconds more with 2.6 MB of weights, 0.15 with 45.
RAY_SECONDS = 10.0
MESSAGE_SECONDS = 0.035
MESSAGE_SECONDS_A_BYTE = 2.5e-9

TIMED_EXAMPLES = 8
_FORWARDS = 3  # a training step in forward passes: the backward pass takes twice the time of the forward


@dataclass(frozen=True)
class Backend:
    """Where the clients are called, and why.

    Attributes:
        in_process: In this process; otherwise on Ray.
        reason: Why, in words that follow the backend's name.
    """

    in_process: bool
    reason: str

    def __str__(self) -> str:
        return f"backend={'in_process' if self.in_process else 'ray'}: {self.reason}"


@dataclass(frozen=True)
class Work:
    """What the clients of a whole run have to do.

    Attributes:
        calls: Times that a client trains.
        seconds: Of training, one client after another.
        model_bytes: Bytes of the weights that each call is sent, and sends back.
    """

    calls: int
    seconds: float
    model_bytes: int


def read_resources(settings: Settings) -> Resources:
    """Return what the clients may use."""
    return Resources(
        total_cpus=total_cpus(settings),
        total_gpus=total_gpus(settings),
        client_cpus=settings.client_resources.cpus,
        client_gpus=client_gpus(settings),
        address=settings.ray.address,
    )


def backend_of(settings: Settings, resources: Resources) -> Backend | None:
    """Return where the clients are called; None where that depends on the work they have."""
    if settings.backend != "auto":
        return Backend(settings.backend == "in_process", "as configured")
    if resources.address is not None:
        return Backend(False, "ray.address names a cluster")
    if settings.strategy.isolate:
        return Backend(False, "strategy.isolate=true keeps each client in a process of its own")
    if resources.clients_here == 1:
        return Backend(True, "there is room for one client at a time")
    if settings.clients_per_round == 1:
        return Backend(True, "a round has one client")
    return None


def backend_for(work: Work, at_once: int) -> Backend:
    """Return where that work is done sooner.

    Args:
        work: The clients' work.
        at_once: Clients that Ray would train at once.
    """
    messages = work.calls * (MESSAGE_SECONDS + MESSAGE_SECONDS_A_BYTE * work.model_bytes)
    on_ray = RAY_SECONDS + messages + work.seconds / at_once
    return Backend(
        work.seconds <= on_ray,
        f"about {work.seconds:.0f} s for the clients one after another, {on_ray:.0f} s for {at_once} at once on Ray",
    )


def estimate_work(settings: Settings, model: nn.Module, examples: Examples, mean_examples: float) -> Work:
    """Return the clients' work, from the time of a forward pass with as many threads as a client has.

    Args:
        settings: The configuration.
        model: The model; it is left on the settings' device, in evaluation mode.
        examples: Some that are like the clients'; the first few are timed.
        mean_examples: Training examples of a client.
    """
    inputs, labels = examples.batch(torch.arange(min(len(examples), TIMED_EXAMPLES)), settings.device)
    model, threads = model.to(settings.device).eval(), torch.get_num_threads()
    torch.set_num_threads(settings.client_resources.cpus)
    try:
        with torch.no_grad():
            forward(model, inputs)  # the first pass also loads what later ones find
            began = time.perf_counter()
            float(forward(model, inputs).sum())  # waits for a GPU
            an_example = (time.perf_counter() - began) / len(labels)
    finally:
        torch.set_num_threads(threads)
    calls = settings.num_rounds * settings.clients_per_round
    a_call = mean_examples * settings.training.epochs * _FORWARDS * an_example
    return Work(calls, calls * a_call, sum(tensor.nbytes for tensor in model.state_dict().values()))
