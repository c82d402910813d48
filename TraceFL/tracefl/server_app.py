"""The Flower server: finds out which node is which client, then runs the strategy over the rounds."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from torch import Tensor

from tracefl.errors import RoundFailedError
from tracefl.privacy import PrivacySettings
from tracefl.selection import Selection
from tracefl.strategy import CentralPrivacy, RoundOutcome, Session, make_strategy

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 600.0  # longest wait for all clients to connect and to say who they are


@dataclass(frozen=True)
class FederationPlan:
    """What a federation does.

    Attributes:
        client_ids: Clients that can take part.
        num_rounds: Rounds of the whole run.
        clients_per_round: Clients sampled a round.
        min_clients: Replies that a round needs.
        timeout_seconds: Longest wait for a round's replies.
        strategy: A name of ``strategy.STRATEGIES``.
        proximal_mu: FedProx's mu.
        seed: Root seed.
        initial_weights: State dict that the first round to run starts from.
        client_job: What every client is told, as JSON: model, training, privacy, num_rounds, data_path, device,
            threads, seed.
        num_examples: Client id to training examples, where the server knows them: long jobs then start first.
        privacy: What the server clips and how much noise it adds, where it does.
        trainable: Names of the model's trainable parameters.
        rounds_done: Rounds that earlier sessions have done.
        selection: Draws the clients of ``provenance_selection``, from what ``on_round`` has added to its ledger.
    """

    client_ids: Sequence[str]
    num_rounds: int
    clients_per_round: int
    min_clients: int
    timeout_seconds: float
    strategy: str
    proximal_mu: float
    seed: int
    initial_weights: dict[str, Tensor]
    client_job: str
    num_examples: Mapping[str, int] = field(default_factory=dict)
    rounds_done: int = 0
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    trainable: Sequence[str] = ()
    selection: Selection | None = None


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


class Federation:
    """A server and its clients, of a simulation or of a deployment.

    Args:
        grid: Flower's connection to the clients.
        num_clients: Clients that will connect.
        max_in_flight: Messages sent before replies are waited for, as many as there are workers; None for no limit.
            More would only fill the memory: each carries the whole model.
        over: Set when no client will answer any more.
        in_order: Clients connect in the order of their ids, as a simulation's do. Then they need not be asked who they
            are, which for a thousand takes most of the start; each of their replies says it all the same.
    """

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        max_in_flight: int | None = None,
        over: threading.Event | None = None,
        in_order: bool = False,
    ) -> None:
        self._in_order = in_order
        self._over = threading.Event() if over is None else over
        self._grid = grid
        self._num_clients = num_clients
        self._max_in_flight = max_in_flight

    def run(self, plan: FederationPlan, hooks: FederationHooks) -> None:
        """Run the rounds that are still to do.

        Raises:
            RoundFailedError: Clients are missing at the start, or too few answered in a round.
        """
        nodes = self._identify()
        missing = [client_id for client_id in plan.client_ids if client_id not in nodes]
        if missing:
            raise RoundFailedError(
                f"clients {', '.join(missing)} did not connect: {len(nodes)} of {self._num_clients} are here"
            )
        session = Session(
            nodes={client_id: nodes[client_id] for client_id in plan.client_ids},
            clients_per_round=plan.clients_per_round,
            min_clients=plan.min_clients,
            seed=plan.seed,
            on_sampled=hooks.on_sampled,
            on_round=hooks.on_round,
            num_examples=plan.num_examples,
            rounds_done=plan.rounds_done,
            central=CentralPrivacy(plan.privacy, plan.clients_per_round, plan.trainable, plan.seed)
            if plan.privacy.is_central
            else None,
            selection=plan.selection,
        )
        make_strategy(plan.strategy, session, plan.proximal_mu).start(
            grid=_ReportingGrid(self._grid, hooks.on_reply, self._max_in_flight, self._over),
            initial_arrays=ArrayRecord(plan.initial_weights),
            num_rounds=plan.num_rounds - plan.rounds_done,
            timeout=plan.timeout_seconds,
            train_config=ConfigRecord({"job": plan.client_job}),
        )

    def _identify(self) -> dict[str, int]:
        """Find out who every client is; returns client id to node id: Flower's node ids are random in each run."""
        deadline = time.monotonic() + _CONNECT_SECONDS
        while len(there := sorted(self._grid.get_node_ids())) < self._num_clients and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self._in_order:
            registered = {node.registered_at: node.node_id for node in self._grid.get_nodes()}  # ISO 8601, microseconds
            if len(registered) == len(there):  # else two in one microsecond, which cannot be told apart so
                return {str(number): registered[moment] for number, moment in enumerate(sorted(registered))}
        questions = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in there]
        waiting = set(self._grid.push_messages(questions))
        nodes: dict[str, int] = {}
        while waiting and not self._over.is_set() and time.monotonic() < deadline:
            for answer in self._grid.pull_messages(waiting):
                waiting.discard(answer.metadata.reply_to_message_id)
                node = answer.metadata.src_node_id
                if answer.has_error():
                    log.warning("node %d did not say which client it is: %s", node, answer.error.reason)
                else:
                    nodes[str(answer.content.config_records["client"]["client-id"])] = node
            time.sleep(_POLL_SECONDS)
        return nodes


def make_server_app(
    serve: Callable[[Federation], None],
    num_clients: int,
    max_in_flight: int | None = None,
    over: threading.Event | None = None,
    in_order: bool = False,
) -> ServerApp:
    """Return a ServerApp that hands its federation, made with the other arguments, to ``serve``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        serve(Federation(grid, num_clients, max_in_flight, over, in_order))

    return app


class _ReportingGrid(Grid):
    """A grid that says when a reply comes in and sends no more than can be worked on; the rest is the inner grid's."""

    def __init__(
        self, inner: Grid, on_reply: Callable[[], None], max_in_flight: int | None, over: threading.Event
    ) -> None:
        self._over = over
        self._inner = inner
        self._on_reply = on_reply
        self._max_in_flight = max_in_flight

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
        unsent = list(messages)
        waiting: set[str] = set()
        replies: list[Message] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while (unsent or waiting) and not self._over.is_set() and (deadline is None or time.monotonic() < deadline):
            room = len(unsent) if self._max_in_flight is None else self._max_in_flight - len(waiting)
            waiting.update(self._inner.push_messages(unsent[:room]))
            del unsent[:room]
            arrived = list(self._inner.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            for _ in arrived:
                self._on_reply()
            if waiting and not arrived:
                time.sleep(_POLL_SECONDS)
        return replies
