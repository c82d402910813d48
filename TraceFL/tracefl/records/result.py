"""A finished round: what its round.json says, and its rows of the run's tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tracefl.common.words import counted
from tracefl.errors import RecordError
from tracefl.provenance import TracedInput
from tracefl.records.checksums import CheckedFiles
from tracefl.records.reading import read_json
from tracefl.records.tables import (
    MITIGATION_COLUMNS,
    PROVENANCE_COLUMNS,
    ROUND_COLUMNS,
    STAND_OUT_COLUMNS,
    SUSPECT_COLUMNS,
    provenance_rows,
)

_MOST_LEFT_OUT = 5  # that are named
_MOST_BYTES = 1 << 30
_ROUNDING = 1e-6  # by which the sum of the clients' weights may miss 1


@dataclass(frozen=True)
class RoundResult:
    """A round without its weights, after it is traced: what round.json, rounds.csv and provenance.csv hold.

    Attributes:
        row: Column to value, as in rounds.csv; fractions 0 to 1, None where nothing was measured.
        traced: The traced inputs.
        suspects: Rows of suspects.csv, without mispredictions none.
        client_weights: Client id to p_k of the clients that count.
        dropped: Client id to the reason.
        mitigation: Rows of mitigation.csv, with ``mitigate=none`` none.
        refused: Those of ``dropped`` whose reply was refused.
        capped: Client id to what of its reply was brought down to a bound, in words; ``client_weights`` and the stored
            weights are what was averaged.
        class_suspicions: Client id to how far it stands out for each class, as ``provenance.standing_out`` has it; of
            no client where that was not asked or the round does not count.
        stand_outs: Rows of stand_outs.csv: what that adds up to.
        doubt: Why the estimates were not gone by and all clients were left out exactly; empty where that was not so.
    """

    row: Mapping[str, Any]
    traced: tuple[TracedInput, ...]
    suspects: tuple[Mapping[str, Any], ...]
    client_weights: Mapping[str, float]
    dropped: Mapping[str, str]
    mitigation: tuple[Mapping[str, Any], ...] = ()
    refused: tuple[str, ...] = ()
    capped: Mapping[str, str] = field(default_factory=dict)
    class_suspicions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stand_outs: tuple[Mapping[str, Any], ...] = ()
    doubt: str = ""

    @property
    def server_round(self) -> int:
        """The round, from 1."""
        return int(self.row["round"])


def are_exact(traced: Iterable[TracedInput]) -> bool:
    """Return whether all contributions to some traced inputs are the exact effects of leaving the clients out."""
    return all(len(t.verified) == len(t.ranking) for t in traced)


def times_refused(results: Iterable[RoundResult]) -> dict[str, int]:
    """Return the clients whose replies were refused, each with in how many rounds, in the order of their ids."""
    return _by_id(Counter(client for result in results for client in result.refused))


def times_capped(results: Iterable[RoundResult]) -> dict[str, int]:
    """Return the clients that were brought down to a bound, each with in how many rounds, in the order of their ids."""
    return _by_id(Counter(client for result in results for client in result.capped))


def bounds_words(refused: Mapping[str, int], capped: Mapping[str, int]) -> list[str]:
    """Return who was refused, and who was brought down to a bound, a phrase each; none where nobody was.

    Args:
        refused: As ``times_refused`` returns it.
        capped: As ``times_capped`` returns it.
    """
    done = {"refused": refused, "brought down to a bound": capped}
    return [
        f"{what}: " + ", ".join(f"client {client} in {counted(number, 'round')}" for client, number in named.items())
        for what, named in done.items()
        if named
    ]


def left_out_words(results: Iterable[RoundResult]) -> list[str]:
    """Return which rounds went on without a client, and why, a sentence each, at most six."""
    lost = [(result.server_round, *each) for result in results for each in result.dropped.items()]
    said = [f"Round {n} went on without client {client}: {reason}." for n, client, reason in lost[:_MOST_LEFT_OUT]]
    return said + ([f"{len(lost) - len(said)} more went missing: see run.log."] if len(lost) > len(said) else [])


def _by_id(counts: Mapping[str, int]) -> dict[str, int]:
    return {client: counts[client] for client in sorted(counts, key=int)}


TABLES: dict[str, tuple[Sequence[str], Callable[[RoundResult], Iterable[Mapping[str, Any]]]]] = {
    "rounds.csv": (ROUND_COLUMNS, lambda result: [result.row]),
    "provenance.csv": (PROVENANCE_COLUMNS, lambda result: provenance_rows(result.server_round, result.traced)),
    "suspects.csv": (SUSPECT_COLUMNS, lambda result: result.suspects),
    "stand_outs.csv": (STAND_OUT_COLUMNS, lambda result: result.stand_outs),
    "mitigation.csv": (MITIGATION_COLUMNS, lambda result: result.mitigation),
}
"""Columns of each of a run's tables, and its rows of a round."""

_OF_EVERY_RUN = ("rounds.csv", "provenance.csv")  # written without rows too


def tables_of(results: Sequence[RoundResult]) -> dict[str, tuple[Sequence[str], list[Mapping[str, Any]]]]:
    """Return the columns and rows of the tables that a run with these rounds has."""
    found = {
        name: (columns, [row for result in results for row in rows_of(result)])
        for name, (columns, rows_of) in TABLES.items()
    }
    return {name: (columns, rows) for name, (columns, rows) in found.items() if rows or name in _OF_EVERY_RUN}


def as_json(result: RoundResult, weights: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what round.json says: the result, and of each traced input who carries it, null for nobody.

    Args:
        result: The result.
        weights: File of weights, by its path in the round's folder, to its SHA-256: whose weights it is about.
    """
    content = asdict(result) | {"weights": dict(weights or {})}
    for fields, traced in zip(content["traced"], result.traced, strict=True):
        fields["responsible"] = traced.responsible
    return content


def read_result(files: CheckedFiles, server_round: int) -> RoundResult:
    """Read a round.json, and see that it is about the weights that have checksums beside it.

    Args:
        files: The files of the round's folder.
        server_round: The round.

    Raises:
        RecordError: It is missing or damaged, or says what cannot be.
    """
    from tracefl.records.schema import RoundFile

    content = read_json(files, "round.json", RoundFile, _MOST_BYTES)
    result = RoundResult(
        row=content["row"],
        traced=tuple(_traced(dict(fields)) for fields in content["traced"]),
        suspects=tuple(content["suspects"]),
        client_weights=content["client_weights"],
        dropped=content["dropped"],
        mitigation=tuple(content["mitigation"]),
        refused=tuple(content["refused"]),
        capped=content["capped"],
        class_suspicions={client: tuple(each) for client, each in content["class_suspicions"].items()},
        stand_outs=tuple(content["stand_outs"]),
        doubt=content["doubt"],
    )
    problem = _contradiction(result, server_round) or _other_weights(files, content["weights"])
    if problem is not None:
        raise RecordError(f"{files.folder / 'round.json'} is damaged: {problem}; use another round")
    return result


def _other_weights(files: CheckedFiles, weights: Mapping[str, str]) -> str | None:
    """Return which weights are not those that the round was recorded with; None where all are.

    Two clients of equal shares could else be exchanged: the average stays the same, and who is blamed does not.
    """
    for name, digests in files.checksums.items():
        if name.endswith(".safetensors") and digests != (weights.get(name),):
            return f"it was recorded with other weights than {name}, whose checksum was made again"
    return None


def _traced(fields: dict[str, Any]) -> TracedInput:
    """Return a traced input; JSON's lists were tuples, and ``responsible`` follows from the effects."""
    del fields["responsible"]
    lists = ("expected_clients", "ranking", "contributions", "verified", "effects", "suspicions")
    return TracedInput(**fields | {name: tuple(fields[name]) for name in lists})


def _contradiction(result: RoundResult, server_round: int) -> str | None:
    """Return in which way a result cannot be that of a round; None where it can."""
    participants = set(result.client_weights)
    tables = (*result.suspects, *result.stand_outs, *result.mitigation)
    speaks_of = {result.server_round, *(row["round"] for row in tables)}
    if speaks_of != {server_round}:
        return f"it speaks of round {min(speaks_of - {server_round})}, in the place of round {server_round}"
    if participants and abs(sum(result.client_weights.values()) - 1) > _ROUNDING:
        return f"the clients' weights sum to {sum(result.client_weights.values()):g}"
    if not (set(result.refused) <= result.dropped.keys() and result.capped.keys() <= participants):
        return "it refused clients that it did not drop, or capped clients that took no part"
    standing = {row["client"] for row in result.stand_outs}
    if standing != result.class_suspicions.keys() or standing - participants:
        return "other clients stand out than took part"
    if participants & result.dropped.keys():
        return "it dropped clients that took part"
    for traced in result.traced:
        ranked = {client for client, _ in traced.ranking}
        named = {traced.traced_client, *traced.verified, traced.counterfactual_client or traced.traced_client}
        if not ranked or (ranked | named) - participants or named - ranked:
            return f"input {traced.input_index} is traced to clients that are not the round's"
        for pairs in (traced.ranking, traced.contributions, traced.effects, traced.suspicions):
            if pairs and (len(pairs) != len(ranked) or {client for client, _ in pairs} != ranked):
                return f"input {traced.input_index} has numbers of other clients than it ranks"
    return None
