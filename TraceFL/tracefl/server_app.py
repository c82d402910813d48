"""The Flower server: finds out which node is which client, then runs the strategy over the rounds.

``app`` is what ``flwr run`` starts.
"""

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.superlink.grid import InMemoryGrid
from torch import Tensor

from tracefl.answers import read_identity
from tracefl.errors import RoundFailedError
from tracefl.participation import Participation
from tracefl.privacy import PrivacySettings
from tracefl.selection import Selection
from tracefl.strategy import CentralPrivacy, RoundOutcome, Session, error_cause, make_strategy

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
ROSTER_SECONDS = 0.5  # between two looks at who is there
CONNECT_SECONDS = 600.0  # longest wait for clients to connect and to say who they are
ANSWER_SECONDS = 30.0  # longest wait of a round for a newcomer's answer
_AWAY = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


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
        client_job: What every client is told, as JSON: model, training, privacy, num_rounds, where its data are,
            device, threads, seed.
        num_examples: Client id to training examples, where the server knows them: long jobs then start first.
        privacy: What the server clips and how much noise it adds, where it does.
        trainable: Names of the model's trainable parameters.
        rounds_done: Rounds that earlier sessions have done.
        selection: Draws the clients of ``provenance_selection``, from what ``on_round`` has added to its ledger.
        participation: Who is never sampled, and who weighs less; ``on_round`` may change it.
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
    participation: Participation = field(default_factory=Participation)


@dataclass(frozen=True)
class FederationHooks:
    """Who is told what, while it happens. Each is called in the server's thread.

    Attributes:
        on_sampled: A round begins: its number and its clients.
        on_reply: One more client of the round has answered.
        on_round: The round is aggregated.
        on_joined: Another client can take part from now on, or one came back: its id and its examples of each class.
    """

    on_sampled: Callable[[int, tuple[str, ...]], None]
    on_reply: Callable[[], None]
    on_round: Callable[[RoundOutcome], None]
    on_joined: Callable[[str, Sequence[int]], None]


class Federation:
    """A server and its clients; this one is a simulation's, whose nodes play whichever client they are told to.

    Args:
        grid: Flower's connection to the nodes.
        least_nodes: Nodes that are waited for.
        max_in_flight: Messages sent before replies are waited for, as many as there are workers; None for no limit.
            More would only fill the memory: each carries the whole model.
        over: Set when no client will answer any more.
    """

    def __init__(
        self,
        grid: Grid,
        least_nodes: int = 1,
        max_in_flight: int | None = None,
        over: threading.Event | None = None,
    ) -> None:
        self._over = threading.Event() if over is None else over
        self._grid = grid
        self._least_nodes = least_nodes
        self._max_in_flight = max_in_flight

    def run(self, plan: FederationPlan, hooks: FederationHooks) -> None:
        """Run the rounds that are still to do.

        Raises:
            RoundFailedError: Clients are missing, or too few answered in a round.
        """
        session = Session(
            find_clients=lambda: self._find_clients(plan, hooks),
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
            participation=plan.participation,
        )
        make_strategy(plan.strategy, session, plan.proximal_mu).start(
            grid=_ReportingGrid(self._grid, hooks.on_reply, self._max_in_flight, self._over),
            initial_arrays=ArrayRecord(plan.initial_weights),
            num_rounds=plan.num_rounds - plan.rounds_done,
            timeout=plan.timeout_seconds,
            train_config=ConfigRecord({"job": plan.client_job}),
        )

    def _find_clients(self, plan: FederationPlan, hooks: FederationHooks) -> Mapping[str, int]:
        """Return who can take part in the round that begins: client id to node id."""
        del hooks
        deadline = time.monotonic() + CONNECT_SECONDS
        while len(nodes := sorted(self._grid.get_node_ids())) < self._least_nodes:
            if self._over.is_set() or time.monotonic() > deadline:
                raise RoundFailedError(f"{len(nodes)} of {self._least_nodes} nodes of the simulation are there")
            time.sleep(POLL_SECONDS)
        return {client_id: nodes[number % len(nodes)] for number, client_id in enumerate(plan.client_ids)}


class Deployment(Federation):
    """SuperNodes, each a client with data of its own. One that comes late takes part from the next round on.

    Args:
        grid: Flower's connection to the SuperNodes.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._nodes: dict[str, int] = {}  # client id to node id, also of clients that are gone
        self._settled: set[int] = set()  # nodes that have answered, also those that cannot take part
        self._asked: dict[str, tuple[int, float]] = {}  # a question's message id to the node, and when it was asked
        self._doubles: dict[int, tuple[str, list[int]]] = {}  # answers of those whose id another has
        self._question = ""
        self._num_classes = 0

    def gather(self, num_clients: int, question: str) -> dict[str, Sequence[int]]:
        """Wait for clients and ask each what it holds.

        Args:
            num_clients: Clients to wait for.
            question: How they are to read their data, as JSON, see ``deployment.own_examples``.

        Returns:
            Client id to its examples of each class.

        Raises:
            RoundFailedError: Fewer are there after ``CONNECT_SECONDS``.
        """
        self._question, self._num_classes = question, json.loads(question)["num_classes"]
        log.info("waiting for %d SuperNodes", num_clients)
        return self._wait_for(num_clients)

    def _find_clients(self, plan: FederationPlan, hooks: FederationHooks) -> Mapping[str, int]:
        """Return the clients that are there, after meeting those that are new."""
        for client_id, counts in self._wait_for(plan.min_clients, plan.participation.excluded).items():
            hooks.on_joined(client_id, counts)
        return self._present()

    def _wait_for(self, num_clients: int, besides: Collection[str] = ()) -> dict[str, Sequence[int]]:
        """Wait until so many clients are there; returns those that are new: client id to its examples of each class.

        With enough of them it waits a little for newcomers, once; who answers later takes part later. Those ``besides``
        take no part and do not count.
        """

        def there() -> int:
            return len(self._present().keys() - set(besides))

        deadline = time.monotonic() + CONNECT_SECONDS
        newcomers = self._meet()
        while (few := there() < num_clients) or self._awaited():
            if few and time.monotonic() > deadline:
                raise RoundFailedError(
                    f"{there()} of {num_clients} SuperNodes are there after {CONNECT_SECONDS:.0f} s; "
                    "start more, or lower num_clients or strategy.min_clients"
                )
            time.sleep(ROSTER_SECONDS if few else POLL_SECONDS)
            newcomers |= self._meet()
        return newcomers

    def _present(self) -> dict[str, int]:
        online = set(self._grid.get_node_ids())
        return {client_id: node for client_id, node in self._nodes.items() if node in online}

    def _awaited(self) -> bool:
        """Return whether somebody was asked a short while ago and may still answer."""
        return any(time.monotonic() < asked + ANSWER_SECONDS for _, asked in self._asked.values())

    def _meet(self) -> dict[str, Sequence[int]]:
        """Ask the SuperNodes that are new who they are and what they hold; returns whoever has answered since."""
        arrived = [node for _, node in sorted((each.registered_at, each.node_id) for each in self._grid.get_nodes())]
        online = set(self._grid.get_node_ids())
        self._asked = {each: (node, asked) for each, (node, asked) in self._asked.items() if node in online}
        self._settled &= online  # who was away is asked again: its data may be others, or mended
        answers = self._ask([node for node in arrived if node in online and node not in self._settled])
        candidates = {node: who for node, who in self._doubles.items() if node in online} | answers
        self._doubles = {}
        newcomers: dict[str, Sequence[int]] = {}
        # Who names itself has its name first; the others are numbered in the order in which they connected.
        for node in sorted(candidates, key=lambda n: (not candidates[n][0], arrived.index(n))):
            named, counts = candidates[node]
            client_id = named or self._own_id(node)
            holder = self._nodes.get(client_id, node)
            if holder != node and holder in online:  # or it was, less than two heartbeats ago
                if node in answers:
                    log.warning("a second SuperNode says it is client %s: it waits until the first is gone", client_id)
                self._doubles[node] = candidates[node]
            else:
                self._nodes[client_id] = node
                newcomers[client_id] = counts
                log.info("client %s is here with %d examples", client_id, sum(counts))
        return newcomers

    def _own_id(self, node: int) -> str:
        """Return the id of a client that has none of its own: the one it had, or the first that is free."""
        had = (client_id for client_id, known in self._nodes.items() if known == node)
        return next(had, None) or next(str(n) for n in itertools.count() if str(n) not in self._nodes)

    def _ask(self, nodes: Sequence[int]) -> dict[int, tuple[str, list[int]]]:
        """Ask those that were not asked yet; returns who has answered by now, by node: its id and label counts."""
        waiting = {node for node, _ in self._asked.values()}
        content = RecordDict({"config": ConfigRecord({"job": self._question})})
        new = [node for node in nodes if node not in waiting]
        sent = self._grid.push_messages([Message(content, node, MessageType.QUERY) for node in new])
        self._asked |= {each: (node, time.monotonic()) for each, node in zip(sent, new, strict=True) if each}
        answers: dict[int, tuple[str, list[int]]] = {}
        for answer in self._grid.pull_messages(list(self._asked)) if self._asked else ():
            node, _ = self._asked.pop(answer.metadata.reply_to_message_id)
            if answer.has_error() and answer.error.code in _AWAY:
                continue  # and asked again when it is back
            self._settled.add(node)
            try:
                if answer.has_error():
                    raise ValueError(error_cause(answer.error.reason))
                answers[node] = read_identity(answer.content, self._num_classes)
            except ValueError as error:
                log.warning("a SuperNode cannot take part: %s", error)
        return answers


app = ServerApp()
"""What ``flwr run`` starts."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run configuration says, on the clients of Flower's simulation or of a deployment."""
    from tracefl.flower_run import run_deployed, run_simulated  # they import this module

    if isinstance(grid, InMemoryGrid):
        run_simulated(context.run_config, Federation(grid))
    else:
        run_deployed(context.run_config, Deployment(grid))


def make_server_app(serve: Callable[[Federation], None], federation: Callable[[Grid], Federation]) -> ServerApp:
    """Return a ServerApp that hands the federation that is made of its grid to ``serve``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        serve(federation(grid))

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
            waiting.update(filter(None, self._inner.push_messages(unsent[:room])))  # None: the node is gone
            del unsent[:room]
            arrived = list(self._inner.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            for _ in arrived:
                self._on_reply()
            if waiting and not arrived:
                time.sleep(POLL_SECONDS)
        return replies
