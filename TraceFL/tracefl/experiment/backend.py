"""Where the clients of a simulation are called: one after another in this process, or several at once on Ray."""

from dataclasses import dataclass

from tracefl.experiment.settings import client_gpus, total_cpus, total_gpus
from tracefl.federation.resources import Resources
from tracefl.records.settings import Settings


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


def read_resources(settings: Settings) -> Resources:
    """Return what the clients may use."""
    return Resources(
        total_cpus=total_cpus(settings),
        total_gpus=total_gpus(settings),
        client_cpus=settings.client_resources.cpus,
        client_gpus=client_gpus(settings),
        address=settings.ray.address,
    )


def choose_backend(settings: Settings, resources: Resources) -> Backend:
    """Return where the clients are called."""
    if settings.backend != "auto":
        return Backend(settings.backend == "in_process", "as configured")
    if resources.address is not None:
        return Backend(False, "ray.address names a cluster")
    if settings.strategy.isolate:
        return Backend(False, "strategy.isolate=true keeps the clients in processes of their own")
    if resources.clients_here == 1:
        return Backend(True, "this machine has room for one client at a time")
    if settings.clients_per_round == 1:
        return Backend(True, "a round has one client")
    return Backend(False, f"{min(resources.clients_here, settings.clients_per_round)} clients train at once")
