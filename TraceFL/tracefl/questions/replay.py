"""A stored run without some of its clients from some round on: averaged again, or trained again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tracefl.common.words import percent
from tracefl.conf.run_names import replay_name
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.faults.words import describe_fault
from tracefl.learning.measures import Measures, measure, read_measures
from tracefl.questions.reaggregation import CARRY, ReaggregatedRound, reaggregate
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun

Retrain = Callable[[StoredRun, str, int, Sequence[str], Sequence[str]], tuple[Path, str | None]]

_ROUNDING = 1e-3  # fraction of a round's movement of the weights: averages in float32 are off by less


How = Literal["reaggregate", "train"]

HOWS: tuple[How, ...] = ("reaggregate", "train")


@dataclass(frozen=True)
class ReplayedRound:
    """A round's measures with and without some of its clients, averaged or trained again.

    Attributes:
        server_round: The round, from 1.
        clients: The participants that remain.
        removed: The run's participants that are removed from it.
        is_exact: The model without them is the one that the server would have deployed.
        before: Measures of the run's global model.
        after: Measures of the model without them.
    """

    server_round: int
    clients: tuple[str, ...]
    removed: tuple[str, ...]
    is_exact: bool
    before: Measures
    after: Measures


@dataclass(frozen=True)
class Replay:
    """A run with and without some clients, from some round on.

    Attributes:
        name: Name of the run.
        how: Whether its rounds were averaged or trained again.
        without_from: The first round without the clients.
        without: Ids of the clients.
        rounds: One or more, ascending.
        label_names: Name of each class.
        fault: Description of the run's fault, ``none`` without one.
        notes: What a reader needs to know, one line each.
        folder: Folder of the retrained run; None where the rounds were averaged again.
    """

    name: str
    how: How
    without_from: int
    without: tuple[str, ...]
    rounds: tuple[ReplayedRound, ...]
    label_names: Sequence[str]
    fault: str
    notes: tuple[str, ...]
    folder: str | None = None

    @property
    def clients_words(self) -> str:
        """Return the clients as text, such as ``clients 3 and 7``."""
        *others, last = self.without
        return f"clients {', '.join(others)} and {last}" if others else f"client {last}"

    @property
    def how_words(self) -> str:
        """Return ``averaged again`` or ``trained again``."""
        return "averaged again" if self.how == "reaggregate" else "trained again"

    @property
    def has_attack(self) -> bool:
        """Whether attack success was measured."""
        return any(r.before.attack_success is not None or r.after.attack_success is not None for r in self.rounds)


@dataclass(frozen=True)
class ReplayRequest:
    """Which run to replay, without whom, and how.

    Attributes:
        folder: The run's folder.
        without_from: The first round without the clients.
        without: Ids of the clients, ascending, one or more.
        how: None to average again if all the weights are stored, and to train otherwise.
        carry: For averaging again, see ``tracefl.questions.reaggregation``; None for ``CARRY``.
        words: For training again: where, as ``key=value`` of ``naming.HERE`` and ``NAMES_OR_PLACES``.
    """

    folder: Path
    without_from: int
    without: tuple[str, ...]
    how: How | None = None
    carry: float | None = None
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of its files and of the retrained run's folder."""
        return replay_name(self.without, self.without_from)


def replay(request: ReplayRequest, retrain: Retrain) -> Replay:
    """Replay a run from its folder.

    Args:
        request: Which run, without whom, and how.
        retrain: Trains the run again. Takes the run, the suffix of the new folder's name, the first round without the
            clients, their ids, and the words that say where; returns the new run's folder, and a note or None.

    Raises:
        RecordError: The folder holds no run, or a round is missing or damaged.
        ConfigError: The run has no such client or round, or no client is left.
        TraceFLError: The retrained run cannot start, failed or was stopped.
    """
    if request.how == "train" and request.carry is not None:
        raise ConfigError(f"carry={request.carry:g} is for averaging again, and how=train trains; give one of them")
    run = StoredRun(request.folder)
    results = _results(run, request)
    stored = run.store.stored_rounds()
    missing = [number for number in results if number not in stored]
    notes = list(_notes(run, request, results))
    robust = run.settings.strategy.aggregation
    if robust is not None and request.how == "reaggregate":
        raise ConfigError(
            f"how=reaggregate averages updates, and the run's rounds were aggregated by {robust.rule}; give how=train"
        )
    gone = [number for number in missing if run.settings.store.keep == "all" and run.store.has_kept(number)]
    if request.how is None and gone:
        raise RecordError(
            f"{run.folder / f'rounds/{gone[0]:04d}/weights'} is missing: config.yaml says store.keep=all; use another "
            "copy, or give how=train"
        )
    if request.how == "train" or ((missing or robust is not None) and request.how is None):
        if request.how is None:
            why = "its rounds are no averages"
            if robust is None:
                why = f"the weights of round {missing[0]} are not stored (store=all stores them)"
            notes.append(f"trained again, as {why}")
        return _trained(run, request, results, notes, retrain)
    if request.words:
        raise ConfigError(f"{request.words[0]} says where to train, and nothing is trained again; give how=train too")
    if missing:
        raise RecordError(
            f"{request.folder} has no weights of round {missing[0]}, and how=reaggregate needs those of rounds "
            f"{request.without_from} to {max(results)}; run with store=all, or give how=train"
        )
    if _participants(results) <= set(request.without):
        raise ConfigError(
            f"without={','.join(request.without)} names every client that took part from round {request.without_from} "
            "on, and nobody is left; name fewer"
        )
    return _reaggregated(run, request, notes)


def _results(run: StoredRun, request: ReplayRequest) -> dict[int, RoundResult]:
    """Return the results of the rounds to replay, by round; raise if one is missing."""
    last = run.last_round
    if request.without_from > last:
        there = f"rounds 1 to {last}" if last else "no round yet"
        raise ConfigError(f"without_from={request.without_from}, and {request.folder} has {there}; name one of those")
    known = len(run.label_counts)
    unknown = [client_id for client_id in request.without if int(client_id) >= known]
    if unknown:
        raise ConfigError(f"without names client {unknown[0]}, and the run's clients are 0 to {known - 1}")
    return {r.server_round: r for r in run.results(first=request.without_from)}


def _participants(results: Mapping[int, RoundResult]) -> set[str]:
    return {client_id for result in results.values() for client_id in result.client_weights}


def _notes(run: StoredRun, request: ReplayRequest, results: Mapping[int, RoundResult]) -> Iterator[str]:
    """Yield the notes that need no model."""
    absent = [client_id for client_id in request.without if client_id not in _participants(results)]
    if absent:
        yield (
            f"warning: client {', '.join(absent)} took part in no round from {request.without_from} on: without it "
            "alone nothing changes"
        )
    if run.fault is not None and not run.fault.flips and run.fault.target is None:
        yield f"no attack success: {run.fault.name} aims at no class, and what it does shows in the accuracy"


def _reaggregated(run: StoredRun, request: ReplayRequest, notes: list[str]) -> Replay:
    numbers = range(request.without_from, run.last_round + 1)
    model = run.model(numbers[0])
    server, fault, classes = run.server, run.fault, len(run.label_names)
    rounds = []
    own = model.state_dict()
    buffers = {name for name, _ in model.named_buffers()}
    carry = CARRY if request.carry is None else request.carry
    for again in reaggregate((run.store.read(number, own) for number in numbers), request.without, buffers, carry):
        model.load_state_dict(dict(again.record.global_weights))
        before = after = measure(model, server, classes, fault, run.device)
        if not again.is_unchanged:
            model.load_state_dict(again.weights)
            after = measure(model, server, classes, fault, run.device)
        number = again.record.server_round
        rounds.append(ReplayedRound(number, again.kept, again.removed, again.is_exact, before, after))
        notes += _round_notes(again)
    first = next((r.server_round for r in rounds if not r.is_exact), None)
    if first is not None:
        notes.append(
            f"an estimate from round {first} on, carry={carry:g}: the others did not train again; how=train "
            "has them train"
        )
    return _replay_of(run, request, "reaggregate", rounds, notes)


def _round_notes(again: ReaggregatedRound) -> Iterator[str]:
    number = again.record.server_round
    if not again.kept:
        yield f"round {number} has no other client, and changes nothing"
    if again.average_error is not None and again.average_error > _ROUNDING:
        yield (
            f"round {number}: what the server made is not the average of the clients' stored weights, off by "
            f"{percent(again.average_error)} of how far it moved; the replay averages them all the same"
        )
    if again.record.before_noise is not None and again.removed and again.kept:
        yield f"round {number} keeps the noise that was drawn for {len(again.record.client_weights)} clients"


def _trained(
    run: StoredRun, request: ReplayRequest, results: Mapping[int, RoundResult], notes: list[str], retrain: Retrain
) -> Replay:
    folder, note = retrain(run, request.name, request.without_from, request.without, request.words)
    notes += [note] if note else []
    new, rounds = StoredRun(folder), []
    for after in new.results():
        before = results.get(after.server_round)
        if before is not None:
            removed = tuple(client_id for client_id in before.client_weights if client_id in request.without)
            measures = _measured(run, before), _measured(new, after)
            rounds.append(ReplayedRound(after.server_round, tuple(after.client_weights), removed, True, *measures))
    return _replay_of(run, request, "train", rounds, notes, str(folder))


def _measured(run: StoredRun, result: RoundResult) -> Measures:
    """Return the recorded measures of a round's model."""
    try:
        return read_measures(result.row, len(run.label_names))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"round {result.server_round} of {run.folder} is damaged ({error!r})") from error


def _replay_of(
    run: StoredRun,
    request: ReplayRequest,
    how: How,
    rounds: Sequence[ReplayedRound],
    notes: Sequence[str],
    folder: str | None = None,
) -> Replay:
    return Replay(
        name=request.folder.resolve().name,
        how=how,
        without_from=request.without_from,
        without=request.without,
        rounds=tuple(rounds),
        label_names=run.label_names,
        fault=describe_fault(run.settings.fault, run.settings.num_clients),
        notes=tuple(notes),
        folder=folder,
    )
