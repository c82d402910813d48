"""The Flower server: finds out which node is which client, then runs the strategy over the rounds."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from torch import Tensor

from tracefl.errors import RoundFailedError
from tracefl.strategy import RoundOutcome, Session, make_strategy

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_QUERY_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class FederationPlan:
    """A whole federation, as the server runs it.

    Attributes:
        client_ids: Clients that can take part.
        num_clients: Clients that connect, those that cannot take part included.
        num_rounds: Rounds to run.
        clients_per_round: Clients sampled a round.
        min_clients: Replies that a round needs.
        timeout_seconds: Longest wait for a round's replies.
        strategy: A name of ``strategy.STRATEGIES``.
        proximal_mu: FedProx's mu.
        seed: Root seed.
        initial_weights: State dict that round 1 starts from.
        client_job: What every client is told, as JSON: model, training, data_path, device, threads, seed.
    """

    client_ids: Sequence[str]
    num_clients: int
    num_rounds: int
    clients_per_round: int
    min_clients: int
    timeout_seconds: float
    strategy: str
    proximal_mu: float
    seed: int
    initial_weights: dict[str, Tensor]
    client_job: str


@dataclass(frozen=True)
class FederationHooks:
    """Who is told what, while it happens. Each is called in the server's thread.

    Attributes:
        on_sampled: A round begins: its number and its clients.
        on_reply: One more client of the round has answered.
        on_round: The round is aggregated.
    """

    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_reply: Callable[[], None]
    on_round: Callable[[RoundOutcome], None]


def make_server_app(plan: FederationPlan, hooks: FederationHooks) -> ServerApp:
    """Return a ServerApp that runs ``plan``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        run_federation(grid, plan, hooks)

    return app


def run_federation(grid: Grid, plan: FederationPlan, hooks: FederationHooks) -> None:
    """Run a federation over any grid: a simulation's or a deployment's.

    Raises:
        RoundFailedError: Clients are missing at the start, or too few answered in a round.
    """
    nodes = identify_clients(grid, plan.num_clients)
    missing = [k for k in plan.client_ids if k not in nodes]
    if missing:
        raise RoundFailedError(
            f"clients {', '.join(missing)} did not connect: {len(nodes)} of {plan.num_clients} are here"
        )
    session = Session(
        nodes={k: nodes[k] for k in plan.client_ids},
        clients_per_round=plan.clients_per_round,
        min_clients=plan.min_clients,
        seed=plan.seed,
        on_sampled=hooks.on_sampled,
        on_round=hooks.on_round,
    )
    make_strategy(plan.strategy, session, plan.proximal_mu).start(
        grid=_ReportingGrid(grid, hooks.on_reply),
        initial_arrays=ArrayRecord(plan.initial_weights),
        num_rounds=plan.num_rounds,
        timeout=plan.timeout_seconds,
        train_config=ConfigRecord({"job": plan.client_job}),
    )


def identify_clients(grid: Grid, num_clients: int) -> dict[str, int]:
    """Wait for all nodes and ask each for its client id; Flower's own node ids are random.

    Returns:
        Client id to node id, ascending by client id.
    """
    deadline = time.monotonic() + _QUERY_TIMEOUT_SECONDS
    while len(node_ids := sorted(grid.get_node_ids())) < num_clients and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    questions = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in node_ids]
    answers = grid.send_and_receive(questions, timeout=_QUERY_TIMEOUT_SECONDS)
    nodes = {}
    for answer in answers:
        if answer.has_error():
            log.warning("node %d did not say which client it is: %s", answer.metadata.src_node_id, answer.error.reason)
        else:
            nodes[str(answer.content.config_records["client"]["client-id"])] = answer.metadata.src_node_id
    return dict(sorted(nodes.items(), key=lambda item: int(item[0])))


class _ReportingGrid(Grid):
    """A grid that says when a reply comes in; everything else is the inner grid's."""

    def __init__(self, inner: Grid, on_reply: Callable[[], None]) -> None:
        self._inner = inner
        self._on_reply = on_reply

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        return self._inner.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send the messages and wait for their replies, at most ``timeout`` seconds."""
        waiting = set(self._inner.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self._inner.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            for _ in arrived:
                self._on_reply()
            if waiting and not arrived:
                time.sleep(_POLL_SECONDS)
        return replies
