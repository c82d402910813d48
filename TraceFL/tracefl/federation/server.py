"""The server: finds the node of each client, then runs the strategy over the rounds."""

import logging
import time
from collections.abc import Callable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from tracefl.errors import RoundFailedError
from tracefl.federation.grid import POLL_SECONDS, ReportingGrid
from tracefl.federation.patience import MOST_SECONDS
from tracefl.federation.plan import FederationHooks, FederationPlan
from tracefl.federation.strategy import STRATEGIES

CONNECT_SECONDS = 600.0  # longest wait for clients to connect and identify themselves


class Federation:
    """A server and its clients; here a simulation's, whose nodes play whichever client a message names.

    Args:
        grid: Flower's connection to the nodes.
        max_in_flight: Most messages awaiting a reply, usually the number of workers; None for no limit. More would only
            fill the memory, since each message carries the whole model.
    """

    def __init__(self, grid: Grid, max_in_flight: int | None = None) -> None:
        self._grid, self._max_in_flight = grid, max_in_flight

    def run(self, plan: FederationPlan, hooks: FederationHooks) -> None:
        """Run the remaining rounds of a plan.

        Raises:
            RoundFailedError: Clients are missing, or too few replied in a round.
        """
        strategy = STRATEGIES[plan.strategy](plan, hooks, lambda: self._find_clients(plan, hooks))
        strategy.start(
            grid=ReportingGrid(self._grid, hooks.on_reply, self._max_in_flight, strategy.patience),
            initial_arrays=ArrayRecord(plan.initial_weights),
            num_rounds=plan.num_rounds - plan.rounds_done,
            timeout=MOST_SECONDS,  # what ReportingGrid waits for is up to its patience
            train_config=ConfigRecord({"job": plan.client_job}),
        )

    def _find_clients(self, plan: FederationPlan, hooks: FederationHooks) -> Mapping[str, int]:
        """Return the clients that can take part in the next round: client id to node id."""
        del hooks
        deadline = time.monotonic() + CONNECT_SECONDS
        while not (nodes := sorted(self._grid.get_node_ids())):
            if time.monotonic() > deadline:
                raise RoundFailedError(f"the simulation has no node after {CONNECT_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        return {client_id: nodes[number % len(nodes)] for number, client_id in enumerate(plan.client_ids)}


def keep_flower_quiet() -> None:
    """Keep Flower's own lines out of the terminal; they still reach the root logger, and with it run.log."""
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    flower.propagate = True
    flower.setLevel(logging.INFO)


def make_server_app(serve: Callable[[Federation], None], federation: Callable[[Grid], Federation]) -> ServerApp:
    """Return a ServerApp that makes a federation from its grid and passes it to ``serve``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        serve(federation(grid))

    return app
