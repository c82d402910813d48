"""A deployed federation: SuperNodes, each a client with data of its own."""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from tracefl.common.words import repeated
from tracefl.errors import RoundFailedError
from tracefl.federation.grid import POLL_SECONDS, arrived
from tracefl.federation.identities import Identities, fingerprint, is_client_id
from tracefl.federation.plan import FederationHooks, FederationPlan, Joined
from tracefl.federation.replies import error_cause, read_identity
from tracefl.federation.server import CONNECT_SECONDS, Federation

log = logging.getLogger(__name__)

ROSTER_SECONDS = 0.5  # between two checks of which nodes are connected

ANSWER_SECONDS = 30.0  # longest time that a round waits for a new client's answer

_AWAY = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


class Deployment(Federation):
    """SuperNodes, each a client with data of its own. One that connects late takes part from the next round on.

    Args:
        grid: Flower's connection to the SuperNodes.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._nodes: dict[str, int] = {}  # client id to node id, including clients that have gone
        self._settled: set[int] = set()  # nodes that have answered, including those that cannot take part
        self._asked: dict[str, tuple[Message, float]] = {}  # a question by its id, and when it was asked
        self._identities = Identities({})
        self._question = ""
        self._num_classes = 0

    def gather(self, num_clients: int, question: str, owners: Mapping[str, str]) -> dict[str, Joined]:
        """Wait for clients and ask each for its examples.

        Args:
            num_clients: Clients to wait for.
            question: Instructions to read their data, as JSON; see ``own_data.client_job``.
            owners: Client id to the fingerprint of the key that owns it, from earlier sessions of the run.

        Returns:
            The clients, by id.

        Raises:
            RoundFailedError: Fewer are connected after ``CONNECT_SECONDS``.
        """
        self._question, self._num_classes = question, json.loads(question)["num_classes"]
        self._identities = Identities(owners)
        log.info("waiting for %d SuperNodes", num_clients)
        return self._wait_for(num_clients)

    def _find_clients(self, plan: FederationPlan, hooks: FederationHooks) -> Mapping[str, int]:
        """Return the connected clients, after admitting new ones."""
        for client_id, joined in self._wait_for(plan.min_clients, plan.participation.excluded).items():
            hooks.on_joined(client_id, joined)
        return self._present()

    def _wait_for(self, num_clients: int, excluded: Collection[str] = ()) -> dict[str, Joined]:
        """Wait until ``num_clients`` clients are connected, not counting the excluded ones.

        A new client that has not answered yet is waited for once, for at most ``ANSWER_SECONDS``; if it answers later,
        it takes part from a later round on.

        Returns:
            The new clients, by id.
        """

        def connected() -> int:
            return len(self._present().keys() - set(excluded))

        deadline = time.monotonic() + CONNECT_SECONDS
        newcomers = self._meet()
        while (few := connected() < num_clients) or self._awaited():
            if few and time.monotonic() > deadline:
                raise RoundFailedError(
                    f"{connected()} of {num_clients} SuperNodes are there after {CONNECT_SECONDS:.0f} s; "
                    "start more, or lower num_clients or strategy.min_clients"
                )
            time.sleep(ROSTER_SECONDS if few else POLL_SECONDS)
            newcomers |= self._meet()
        return newcomers

    def _present(self) -> dict[str, int]:
        online = set(self._grid.get_node_ids())
        return {client_id: node for client_id, node in self._nodes.items() if node in online}

    def _awaited(self) -> bool:
        """Return whether a node was asked less than ``ANSWER_SECONDS`` ago and may still answer."""
        return any(time.monotonic() < asked + ANSWER_SECONDS for _, asked in self._asked.values())

    def _meet(self) -> dict[str, Joined]:
        """Ask new SuperNodes for their id and examples; return the clients whose answers have arrived since."""
        nodes = {each.node_id: each for each in self._grid.get_nodes()}
        self._asked = {
            each: (question, asked)
            for each, (question, asked) in self._asked.items()
            if question.metadata.dst_node_id in nodes
        }
        self._settled &= nodes.keys()  # a node that was away is asked again: its data may have changed
        in_order = sorted(nodes, key=lambda node: (nodes[node].registered_at, node))
        answers = self._ask([node for node in in_order if node not in self._settled])
        newcomers: dict[str, Joined] = {}
        registered = {node: nodes[node].name if is_client_id(nodes[node].name) else "" for node in answers}
        # Those that were registered with an id come first, then those that say one; the others are numbered in the
        # order in which they connected.
        for node in sorted(answers, key=lambda n: (not registered[n], not answers[n][0], in_order.index(n))):
            said, counts = answers[node]
            try:
                key = fingerprint(nodes[node].public_key)
                client_id = self._identities.claim(key, registered[node], said)
            except ValueError as error:
                log.warning("a SuperNode cannot take part: %s", repeated(error))
                continue
            self._nodes[client_id] = node
            newcomers[client_id] = Joined(counts, key)
            log.info("client %s is here with %d examples, key %s", client_id, sum(counts), key)
        return newcomers

    def _ask(self, nodes: Sequence[int]) -> dict[int, tuple[str, list[int]]]:
        """Ask the nodes not asked yet; return the answers that have arrived, by node: id and label counts."""
        waiting = {question.metadata.dst_node_id for question, _ in self._asked.values()}
        content = RecordDict({"config": ConfigRecord({"job": self._question})})
        new = [Message(content, node, MessageType.QUERY) for node in nodes if node not in waiting]
        sent = self._grid.push_messages(new)
        self._asked |= {each: (question, time.monotonic()) for each, question in zip(sent, new, strict=True) if each}
        answers: dict[int, tuple[str, list[int]]] = {}
        for each, answer in list(arrived(self._grid, {each: question for each, (question, _) in self._asked.items()})):
            node = self._asked.pop(each)[0].metadata.dst_node_id
            if answer.has_error() and answer.error.code in _AWAY:
                continue  # asked again when it is back
            self._settled.add(node)
            try:
                if answer.has_error():
                    raise ValueError(error_cause(answer.error.reason))
                answers[node] = read_identity(answer.content, self._num_classes)
            except Exception as error:  # noqa: BLE001 - whatever an answer brings about keeps out its SuperNode alone
                words = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                log.warning("a SuperNode cannot take part: %s", repeated(words))
        return answers
