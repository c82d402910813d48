"""Flower's simulation of a federation, with clients on Ray: on this machine or on a cluster."""

import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from flwr.clientapp import ClientApp
from flwr.simulation import run_simulation

from tracefl.common.signals import on_interrupt
from tracefl.errors import RoundFailedError, TraceFLError
from tracefl.federation import client
from tracefl.federation.grid import Ending
from tracefl.federation.ray_cluster import clients_at_once
from tracefl.federation.resources import Resources
from tracefl.federation.server import Federation, keep_flower_quiet, make_server_app

Served = TypeVar("Served")


def simulate(
    serve: Callable[[Federation], Served], num_clients: int, resources: Resources, app: ClientApp = client.app
) -> Served:
    """Run a federation with simulated clients, as many at a time as the resources allow.

    Args:
        serve: What the server does with its federation; called in a separate thread.
        num_clients: Clients of the federation.
        resources: CPUs and GPUs; they never change a result.
        app: The clients' app.

    Returns:
        What ``serve`` returned.

    Raises:
        Exception: Whatever ``serve`` raised.
        KeyboardInterrupt: SIGINT came. ``serve`` gets one too, in place of replies, and is waited for; where it raises
            another error of TraceFL's in turn, that one.
        RoundFailedError: The simulation ended before ``serve`` did.
    """
    client_resources: dict[str, Any] = {
        "num_cpus": resources.client_cpus,
        "num_gpus": resources.client_gpus,
        # Ray restarts dead workers: Flower keeps them in its pool, and every later round would lose their clients.
        "max_restarts": -1,
        "max_task_retries": 1,
    }
    keep_flower_quiet()
    ending = Ending()
    served: list[Served] = []
    raised: list[BaseException] = []
    is_over = threading.Event()
    is_over.set()

    def keep_result(federation: Federation) -> None:
        is_over.clear()
        try:
            served.append(serve(federation))
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            is_over.set()

    def interrupt() -> None:  # before Flower ends the clients, whose errors the server would take for their own
        ending.error = KeyboardInterrupt()

    with warnings.catch_warnings(), on_interrupt(interrupt):
        warnings.filterwarnings("ignore", module="ray|flwr")  # meant for developers of Ray and Flower
        try:
            run_simulation(
                server_app=make_server_app(
                    keep_result, lambda grid: Federation(grid, num_clients, clients_at_once(resources), ending)
                ),
                client_app=app,
                num_supernodes=num_clients,
                backend_config={"client_resources": client_resources},  # Ray is already running, see ray_cluster.py
            )
        except KeyboardInterrupt:
            is_over.wait()  # until the server's thread has recorded how the run ended; again SIGINT: no longer
            if raised and isinstance(raised[0], TraceFLError):
                raise raised[0] from None
            raise
        finally:  # Flower's server thread must not wait for clients that are gone
            ending.error = ending.error or RoundFailedError("the simulation ended before the round did; see run.log")
    if not served:  # Flower's thread swallows what does not derive from Exception, such as SystemExit
        raise RoundFailedError("the simulation ended before the run did; see run.log")
    return served[0]
