"""What each client was and did in a run, for the page's table of clients and for a client's own section."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from tracefl.provenance import TracedInput
from tracefl.questions.ledger import ContributionLedger
from tracefl.report.page.heat import changed_labels, mean_contributions, shown_clients
from tracefl.report.page.inputs import short
from tracefl.report.page.record import RunRecord

MOST_CLIENTS = 500
MOST_ROWS = 20_000  # rounds of all clients together that are listed one by one
CORRECT, WRONG = 0, 1

Number = float | None


@dataclass
class Part:
    """A client's part in some predictions, correct or wrong ones, of rounds that it took part in.

    Attributes:
        traced: How many were traced.
        carried: How many of them it carries.
        by_chance: How many a client drawn at random from the rounds' participants would carry.
        contributions: Sum of its contributions, in logits.
        checked: How many were checked by the exact removal of every client of the round.
        effects: Sum of the exact effects of its removal, in logits.
        depend: How many of those depend most on it: no other client's exact removal costs more.
    """

    traced: int = 0
    carried: int = 0
    by_chance: float = 0.0
    contributions: float = 0.0
    checked: int = 0
    effects: float = 0.0
    depend: int = 0

    def add(self, client: str, t: TracedInput, contribution: float, effect: float | None) -> None:
        """Add a traced input of a round that the client took part in; ``effect``: None where it was not checked."""
        self.traced += 1
        self.carried += t.responsible == client
        self.by_chance += (t.responsible is not None) / len(t.ranking)
        self.contributions += contribution
        if effect is not None:
            self.checked += 1
            self.effects += effect
            self.depend += t.counterfactual_client == client

    @property
    def mean(self) -> Number:
        """Mean contribution, in logits; None without a traced prediction or where it is not finite."""
        return _mean(self.contributions, self.traced)

    @property
    def mean_effect(self) -> Number:
        """Mean exact effect, in logits; None where nothing was checked."""
        return _mean(self.effects, self.checked)

    def as_json(self) -> list[Number]:
        """Return traced, carried, by chance, mean contribution, mean exact effect, depend, and checked."""
        return [
            self.traced,
            self.carried,
            short(self.by_chance),
            short(self.mean),
            short(self.mean_effect),
            self.depend,
            self.checked,
        ]


@dataclass
class _Tally:
    whole: tuple[Part, Part] = field(default_factory=lambda: (Part(), Part()))
    by_round: defaultdict[int, tuple[Part, Part]] = field(default_factory=lambda: defaultdict(lambda: (Part(), Part())))
    by_class: defaultdict[int, tuple[Part, Part]] = field(default_factory=lambda: defaultdict(lambda: (Part(), Part())))


@dataclass(frozen=True)
class ClientRow:
    """One client in the table.

    Attributes:
        client: The client.
        note: What is special about it: faulty, or what ``mitigate`` decided.
        rounds: How many rounds it took part in.
        examples: How many training examples it holds.
        correct: Its part in the correct predictions.
        wrong: Its part in the wrong ones.
    """

    client: str
    note: str
    rounds: int
    examples: int
    correct: Part
    wrong: Part


@dataclass(frozen=True)
class PageClients:
    """A run's clients.

    Attributes:
        rows: Those in the table, ascending.
        sections: Client to what its own section shows, as JSON types, see ``_section``.
        not_shown: What is not on the page, in words.
    """

    rows: tuple[ClientRow, ...]
    sections: Mapping[str, Mapping[str, Any]]
    not_shown: tuple[str, ...]


def page_clients(record: RunRecord) -> PageClients:
    """Return a run's clients; of too many, the faulty ones, then those with the largest contributions."""
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    for server_round, t in record.traced:
        # Verified contributions are left out: they are of the first clients alone, and their mean would be too high.
        kind, effects = WRONG if t.predicted != t.label else CORRECT, dict(t.effects)
        for client, contribution in t.contributions:
            tally = tallies[client]
            for parts in (tally.whole, tally.by_round[server_round], tally.by_class[t.predicted]):
                parts[kind].add(client, t, contribution, effects.get(client))
    ledger, decided = ContributionLedger(record.rounds), mitigation_words(record)
    counts, trained = record.run.label_counts.tolist(), changed_labels(record.run.changes)
    clients = shown_clients(record, mean_contributions([t for _, t in record.traced]), MOST_CLIENTS)
    with_rounds = sum(len(ledger.rounds_of.get(client, ())) for client in clients) <= MOST_ROWS
    rows, sections = [], {}
    for client in clients:
        tally, rounds = tallies[client], ledger.rounds_of.get(client, [])
        faulty = "faulty" if client in record.faulty_clients else ""
        note = "; ".join(filter(None, (faulty, decided.get(client, ""))))
        held = counts[int(client)]
        rows.append(ClientRow(client, note, len(rounds), sum(held), *tally.whole))
        sections[client] = {
            "note": note,
            "held": held,
            "trained": trained.get(client),
            "rounds": len(rounds),
            "useful": short(ledger.usefulness(client)),
            "whole": [part.as_json() for part in tally.whole],
            "each": list(_rounds(record, client, tally)) if with_rounds else None,
            "classes": [[c, *(part.as_json() for part in parts)] for c, parts in sorted(tally.by_class.items())],
            "left": [[r.server_round, r.dropped[client]] for r in record.rounds if client in r.dropped],
        }
    not_shown = []
    if len(clients) < len(counts):
        not_shown.append(
            f"{len(clients)} of {len(counts)} clients are listed: the faulty ones, then those with the largest "
            "contributions; label_counts.json and provenance.csv have all"
        )
    if not with_rounds:
        not_shown.append("a client's rounds one by one; provenance.csv has them")
    return PageClients(tuple(rows), sections, tuple(not_shown))


def mitigation_words(record: RunRecord) -> dict[str, str]:
    """Return, for each client that ``mitigate`` or ``without`` has decided about, where it stands at the end."""
    rows = [row for result in record.rounds for row in result.mitigation if row["decision"]]
    settings = record.settings
    excluded = f"excluded by without, from round {settings.without_from} on"
    return {row["client"]: _decided(row) for row in rows} | dict.fromkeys(map(str, settings.without), excluded)


def _decided(row: Mapping[str, Any]) -> str:
    """Return a decision of mitigation.csv in words."""
    decision, since = row["decision"], f"from round {row['from_round']} on"
    if decision == "exclude":
        return f"excluded {since}"
    if decision == "downweight":
        return f"weight times {row['factor']:g} {since}"
    if decision == "restore":
        return f"weight restored {since}"
    return f"suspected in round {row['round']}: {decision} to exclude it"


def _rounds(record: RunRecord, client: str, tally: _Tally) -> Iterator[list[Any]]:
    """Yield round, p_k, and its part in the round's correct and wrong predictions, for each round it took part in."""
    for result in record.rounds:
        if client in result.client_weights:
            parts: Sequence[Part] = tally.by_round.get(result.server_round, ())
            weight = short(result.client_weights[client])
            yield [result.server_round, weight, *(part.as_json() for part in parts)]


def _mean(total: float, count: int) -> Number:
    return total / count if count and isfinite(total) else None
