"""What the clients of a simulation may use of this machine, or where the Ray cluster is that has it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What a simulation may use.

    Attributes:
        total_cpus: CPUs for all clients together; not used with ``address``.
        total_gpus: GPUs for all clients together; not used with ``address``.
        client_cpus: CPUs of one client, at least 1; also its number of threads.
        client_gpus: Fraction of a GPU for one client.
        address: HOST:PORT of a running Ray cluster; None for this machine.
    """

    total_cpus: int
    total_gpus: int
    client_cpus: int
    client_gpus: float
    address: str | None = None

    def clients_in(self, cpus: float, gpus: float) -> int:
        """Return how many clients a machine with these CPUs and GPUs runs at once."""
        by_cpu = int(cpus / self.client_cpus)
        return min(by_cpu, int(gpus / self.client_gpus)) if self.client_gpus else by_cpu

    @property
    def clients_here(self) -> int:
        """How many clients this machine runs at once."""
        return self.clients_in(self.total_cpus, self.total_gpus)
