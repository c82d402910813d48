"""What each client was and did in a run, for the page's table of clients and for a client's own section."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from tracefl.common.bootstrap import FEWEST, Bootstrap, Interval
from tracefl.common.words import counted
from tracefl.provenance import TracedInput
from tracefl.questions.ledger import ContributionLedger
from tracefl.records.result import are_exact, times_capped, times_refused
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
        contributions: Its contributions, each with its input, in logits.
        effects: Of the predictions of which all exact effects are known, its own, in logits.
        own: The same less what all removals of the prediction have in common, each with its input.
        interval: Of the mean contribution; None for fewer than two inputs, or where none was computed.
        own_interval: Of the mean of ``own``, likewise.
    """

    traced: int = 0
    carried: int = 0
    by_chance: float = 0.0
    contributions: list[tuple[int, float]] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)
    own: list[tuple[int, float]] = field(default_factory=list)
    interval: Interval | None = None
    own_interval: Interval | None = None

    def add(self, client: str, t: TracedInput, contribution: float, effect: float | None, common: float) -> None:
        """Add a traced input of a round that the client took part in.

        Args:
            client: The client.
            t: The input.
            contribution: The client's, in logits.
            effect: Its exact effect; None where not all are known.
            common: The mean of all clients' exact effects on the input.
        """
        self.traced += 1
        self.carried += t.responsible == client
        self.by_chance += (t.responsible is not None) / len(t.ranking)
        self.contributions.append((t.input_index, contribution))
        if effect is not None:
            self.effects.append(effect)
            self.own.append((t.input_index, effect - common))

    @property
    def inputs(self) -> int:
        """How many different inputs were traced."""
        return len({number for number, _ in self.contributions})

    @property
    def is_few(self) -> bool:
        """Whether these are too few to place the client among the others."""
        return self.inputs < FEWEST

    @property
    def mean(self) -> Number:
        """Mean contribution, in logits; None without a traced prediction or where it is not finite."""
        return _mean([value for _, value in self.contributions])

    @property
    def mean_effect(self) -> Number:
        """Mean exact effect, in logits; None where none is known."""
        return _mean(self.effects)

    @property
    def mean_own(self) -> Number:
        """Mean of ``own``, in logits; None where no exact effect is known."""
        return _mean([value for _, value in self.own])

    def as_json(self) -> list[Any]:
        """Return traced, carried, by chance, means of contribution, effect and own effect, inputs, both intervals."""
        return [
            self.traced,
            self.carried,
            short(self.by_chance),
            short(self.mean),
            short(self.mean_effect),
            short(self.mean_own),
            self.inputs,
            _ends(self.interval),
            _ends(self.own_interval),
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
        note: What is special about it: faulty, what ``mitigate`` decided, how often it was refused or capped.
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
        common: What all removals of correct, and of wrong, predictions have in common: the mean in logits and its
            interval; the mean is None where no exact effects are known.
        is_exact: All contributions are the exact effects themselves.
    """

    rows: tuple[ClientRow, ...]
    sections: Mapping[str, Mapping[str, Any]]
    not_shown: tuple[str, ...]
    common: tuple[tuple[Number, Interval | None], ...] = ()
    is_exact: bool = False


def page_clients(record: RunRecord) -> PageClients:
    """Return a run's clients; of too many, the faulty ones, then those with the largest contributions."""
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    commons: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    for server_round, t in record.traced:
        # Exact effects of some clients are left out: they are of the first ones, and their mean would be too high.
        kind, effects = WRONG if t.predicted != t.label else CORRECT, t.exact_effects if t.is_settled else {}
        common = sum(effects.values()) / len(effects) if effects else 0.0
        if effects:
            commons[kind].append((t.input_index, common))
        for client, contribution in t.contributions:
            tally = tallies[client]
            for parts in (tally.whole, tally.by_round[server_round], tally.by_class[t.predicted]):
                parts[kind].add(client, t, contribution, effects.get(client), common)
    ledger, decided, bounded = ContributionLedger(record.rounds), mitigation_words(record), _bounded(record)
    counts, trained = record.run.label_counts.tolist(), changed_labels(record.run.changes)
    clients = shown_clients(record, mean_contributions([t for _, t in record.traced]), MOST_CLIENTS)
    in_common = _set_intervals(record, [tallies[client] for client in clients], commons)
    with_rounds = sum(len(ledger.rounds_of.get(client, ())) for client in clients) <= MOST_ROWS
    rows, sections = [], {}
    for client in clients:
        tally, rounds = tallies[client], ledger.rounds_of.get(client, [])
        faulty = "faulty" if client in record.faulty_clients else ""
        note = "; ".join(filter(None, (faulty, decided.get(client, ""), bounded.get(client, ""))))
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
            "capped": [[r.server_round, r.capped[client]] for r in record.rounds if client in r.capped],
        }
    not_shown = []
    if len(clients) < len(counts):
        not_shown.append(
            f"{len(clients)} of {len(counts)} clients are listed: the faulty ones, then those with the largest "
            "contributions; label_counts.json and provenance.csv have all"
        )
    if not with_rounds:
        not_shown.append("a client's rounds one by one; provenance.csv has them")
    return PageClients(tuple(rows), sections, tuple(not_shown), in_common, are_exact(t for _, t in record.traced))


def _set_intervals(
    record: RunRecord, tallies: Sequence[_Tally], commons: Sequence[Sequence[tuple[int, float]]]
) -> tuple[tuple[Number, Interval | None], ...]:
    """Give each client's parts their intervals, but those by round; return the means in common with theirs."""
    if not record.traced:
        return tuple((None, None) for _ in commons)
    bootstrap = Bootstrap((t.input_index for _, t in record.traced), record.settings.seed)
    wholes = dict(enumerate(part for tally in tallies for part in tally.whole))
    parts = {**wholes, **dict(enumerate((p for t in tallies for ps in t.by_class.values() for p in ps), len(wholes)))}
    for number, found in bootstrap.by_key({n: part.contributions for n, part in parts.items()}).items():
        parts[number].interval = found
    for number, found in bootstrap.by_key({n: part.own for n, part in wholes.items()}).items():
        parts[number].own_interval = found
    ends = bootstrap.by_key(dict(enumerate(commons)))
    return tuple((_mean([value for _, value in values]), ends[n]) for n, values in enumerate(commons))


def mitigation_words(record: RunRecord) -> dict[str, str]:
    """Return, for each client that ``mitigate`` or ``without`` has decided about, where it stands at the end."""
    rows = [row for result in record.rounds for row in result.mitigation if row["decision"]]
    settings = record.settings
    excluded = f"excluded by without, from round {settings.without_from} on"
    return {row["client"]: _decided(row) for row in rows} | dict.fromkeys(map(str, settings.without), excluded)


def _bounded(record: RunRecord) -> dict[str, str]:
    """Return, for each client that was refused or brought down to a bound, how often."""
    times = {"refused": times_refused(record.rounds), "capped": times_capped(record.rounds)}
    words: defaultdict[str, list[str]] = defaultdict(list)
    for what, clients in times.items():
        for client, number in clients.items():
            words[client].append(f"{what} in {counted(number, 'round')}")
    return {client: ", ".join(said) for client, said in words.items()}


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


def _mean(values: Sequence[float]) -> Number:
    total = sum(values)
    return total / len(values) if values and isfinite(total) else None


def _ends(found: Interval | None) -> list[Number] | None:
    return None if found is None else [short(found.low), short(found.high)]
