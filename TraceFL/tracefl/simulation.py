"""Runs a federation on this machine, or on a Ray cluster: Flower's simulation with Ray-backed clients."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import ray
from flwr.clientapp import ClientApp
from flwr.simulation import run_simulation

from tracefl import client_app
from tracefl.server_app import FederationHooks, FederationPlan, make_server_app

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What the simulation may use.

    Attributes:
        total_cpus: CPUs for all clients together; None for all of the machine.
        total_gpus: GPUs for all clients together.
        client_cpus: CPUs of one client, at least 1; also its number of threads.
        client_gpus: Fraction of a GPU of one client.
    """

    total_cpus: int | None
    total_gpus: int
    client_cpus: int
    client_gpus: float


def simulate(
    plan: FederationPlan, hooks: FederationHooks, resources: Resources, app: ClientApp = client_app.app
) -> None:
    """Run a federation with simulated clients, as many at once as the resources hold.

    Args:
        plan: The federation.
        hooks: Who is told what.
        resources: CPUs and GPUs; they never change a result.
        app: The clients' app.

    Raises:
        RoundFailedError: As ``run_federation``.
    """
    init_args: dict[str, Any] = {
        "num_gpus": resources.total_gpus,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if resources.total_cpus is not None:
        init_args["num_cpus"] = resources.total_cpus
    client_resources: dict[str, Any] = {
        "num_cpus": resources.client_cpus,
        "num_gpus": resources.client_gpus,
        # Flower keeps a dead worker in its pool, and every later round would lose its clients: so Ray restarts it.
        "max_restarts": -1,
        "max_task_retries": 1,
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="ray|flwr")  # notes to their own developers
            run_simulation(
                server_app=make_server_app(plan, hooks),
                client_app=app,
                num_supernodes=plan.num_clients,
                backend_config={"client_resources": client_resources, "init_args": init_args},
            )
    finally:
        ray.shutdown()
