"""A run again without some of its clients: ``python -m tracefl.replay RUN_FOLDER from=N without=3,7``.

From round N on, as if clients 3 and 7 had not been there. With ``how=reaggregate`` the stored updates of the others are
averaged again, at once: exact in the first round that the clients are missing from, an estimate from then on, as the
others did not train again from the weights that they would have been given. With ``how=train`` the run is made again,
in a folder beside it. Without ``how``, the former where the run kept the weights of rounds N to the last (store=all),
else the latter.

Prints global accuracy, attack success (where the run has a fault that aims at a class) and the accuracy of each class,
with and without the clients, or all of it round by round as JSON; writes a CSV, and a figure as PNG and PDF, by default
into RUN_FOLDER.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefl.cli import run_tool
from tracefl.errors import ConfigError, RecordError
from tracefl.measures import measure
from tracefl.models import ModelSpec, build_model
from tracefl.reaggregation import ReaggregatedRound, reaggregate
from tracefl.report.faults import describe_fault
from tracefl.report.replay import REPLAY_COLUMNS, How, Replay, ReplayedRound, as_json, replay_rows, show
from tracefl.report.terminal import TerminalConsole, percent
from tracefl.rounds import RoundStore
from tracefl.stored import StoredRun, read_round
from tracefl.text_files import write_atomically
from tracefl.tracking import to_csv

HOWS: tuple[How, ...] = ("reaggregate", "train")
USAGE = "python -m tracefl.replay RUN_FOLDER from=N without=3,7 [how=reaggregate|train] [csv=FILE] [png=FILE] [--json]"
_JSON = "--json"
_NAMED = 8  # clients in a file's name
_ROUNDING = 1e-3  # of how far a round moved the weights: averages in float32 are off by less


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        folder: The run's.
        from_round: The first round without the clients.
        without: Their ids, ascending.
        how: None for whichever can be had.
    """

    folder: Path
    from_round: int
    without: tuple[str, ...]
    how: How | None = None

    @property
    def name(self) -> str:
        """Return what files and folders of it are called."""
        named = "-".join(self.without)
        if len(self.without) > _NAMED:
            named = f"{len(self.without)}-clients-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
        return f"without-{named}-from-{self.from_round}"


def main() -> None:
    """Replay a run; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, _main)


def replay(request: Request) -> Replay:
    """Replay a run from its folder.

    Raises:
        RecordError: The folder is no run's, or a round is missing or damaged.
        ConfigError: There is no such client or round, or nobody is left.
    """
    run = StoredRun(request.folder)
    store = RoundStore(request.folder / "rounds")
    clients = _participants(run, store, request)
    stored = set(store.stored_rounds())
    missing = [n for n in clients if n not in stored]
    how = request.how or ("train" if missing else "reaggregate")
    if how == "train":
        raise ConfigError("how=train is not there yet")
    if missing:
        raise RecordError(
            f"{request.folder} has no weights of round {missing[0]}, and how=reaggregate needs those of rounds "
            f"{request.from_round} to {max(clients)}; run with store=all, or give how=train"
        )
    return _reaggregated(run, store, request, clients)


def _participants(run: StoredRun, store: RoundStore, request: Request) -> dict[int, tuple[str, ...]]:
    """Return who took part in the rounds to replay, by round; refuses what cannot be replayed."""
    last = store.last_round
    if request.from_round > last:
        there = f"rounds 1 to {last}" if last else "no round yet"
        raise ConfigError(f"from={request.from_round}, and {request.folder} has {there}; name one of those")
    known = len(run.label_counts)
    for client_id in request.without:
        if int(client_id) >= known:
            raise ConfigError(f"without names client {client_id}, and the run's clients are 0 to {known - 1}")
    rounds = {r.server_round: tuple(r.client_weights) for r in store.results(check=True)}
    gone = [n for n in range(request.from_round, last + 1) if n not in rounds]
    if gone:
        raise RecordError(f"round {gone[0]} is missing in {request.folder}; give a later round as from")
    rounds = {n: clients for n, clients in rounds.items() if n >= request.from_round}
    everyone = {client_id for clients in rounds.values() for client_id in clients}
    if everyone <= set(request.without):
        raise ConfigError(
            f"without={','.join(request.without)} names every client that took part from round {request.from_round} "
            "on: nobody is left; leave out fewer"
        )
    return rounds


def _reaggregated(run: StoredRun, store: RoundStore, request: Request, clients: Mapping[int, Sequence[str]]) -> Replay:
    model = build_model(ModelSpec.from_json(run.read_text("model.json")))
    server, fault, names = run.server, run.fault, run.label_names
    rounds, notes = [], list(_notes(run, request, clients))
    for again in reaggregate((store.read(n) for n in sorted(clients)), request.without):
        model.load_state_dict(dict(again.record.global_weights))
        before = after = measure(model, server, len(names), fault, run.device)
        if again.weights is not again.record.global_weights:
            model.load_state_dict(dict(again.weights))
            after = measure(model, server, len(names), fault, run.device)
        number = again.record.server_round
        rounds.append(ReplayedRound(number, again.kept, again.left_out, again.is_exact, before, after))
        notes += _round_notes(again)
    first = next((r.server_round for r in rounds if not r.is_exact), None)
    if first is not None:
        notes.append(
            f"an estimate from round {first} on: the others' updates are those of the run, and they did not train "
            "again; how=train has them train"
        )
    return Replay(
        name=request.folder.resolve().name,
        how="reaggregate",
        from_round=request.from_round,
        without=request.without,
        rounds=tuple(rounds),
        label_names=names,
        fault=describe_fault(run.config),
        notes=tuple(notes),
    )


def _notes(run: StoredRun, request: Request, clients: Mapping[int, Sequence[str]]) -> Iterator[str]:
    """Yield what there is to know before any model is looked at."""
    everyone = {client_id for ids in clients.values() for client_id in ids}
    absent = [k for k in request.without if k not in everyone]
    if absent:
        yield (
            f"warning: client {', '.join(absent)} took part in no round from {request.from_round} on: leaving it out "
            "changes nothing"
        )
    if run.fault is not None and not run.fault.flips and run.fault.target is None:
        yield f"no attack success: {run.fault.name} aims at no class, and what it does shows in the accuracy"


def _round_notes(again: ReaggregatedRound) -> Iterator[str]:
    number = again.record.server_round
    if not again.kept:
        yield f"round {number} has no other client: it changes nothing"
    if again.average_error is not None and again.average_error > _ROUNDING:
        yield (
            f"round {number}: what the server made is not the clients' weighted average, off by "
            f"{percent(again.average_error)} of how far it moved; without the clients it is that average"
        )
    if again.record.before_noise is not None and again.left_out and again.kept:
        yield f"round {number} keeps the noise that was drawn for {len(again.record.client_weights)} clients"


def _main(arguments: Sequence[str]) -> None:
    from tracefl.report.explanation_figure import check_figure_path  # matplotlib, only where it is needed
    from tracefl.report.replay_figure import draw_replay

    request, files = _read_arguments(arguments)
    check_figure_path(files["png"])
    found = replay(request)
    written = [files["csv"], *draw_replay(found, files["png"].with_suffix(""))]
    write_atomically(files["csv"], to_csv(REPLAY_COLUMNS, replay_rows(found)))
    if _JSON in arguments:
        said = {"run": str(request.folder), **as_json(found), "files": list(map(str, written))}
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        show(TerminalConsole(), found, list(map(str, written)))


def _read_arguments(arguments: Sequence[str]) -> tuple[Request, dict[str, Path]]:
    """Return what is asked for and the files to write."""
    given = {key: value for a in arguments if a != _JSON for key, equals, value in [a.partition("=")] if equals}
    folders = [a for a in arguments if a != _JSON and "=" not in a]
    unknown = [key for key in given if key not in ("from", "without", "how", "csv", "png")]
    if unknown or len(folders) > 1:
        raise ConfigError(f"unknown argument {(unknown or folders[1:])[0]!r}; usage: {USAGE}")
    lacking = [key for key in ("from", "without") if not given.get(key)]
    if not folders or lacking:
        raise ConfigError(f"{f'{lacking[0]}= is not' if folders else 'no run is'} given; usage: {USAGE}")
    root = Path(folders[0]).expanduser()
    if not root.is_dir():
        raise RecordError(f"{folders[0]!r} is no run's folder; give one below log_dir, such as logs/default/RUN")
    if "how" in given and given["how"] not in HOWS:
        raise ConfigError(f"how must be one of {', '.join(HOWS)}, got {given['how']!r}")
    how = next((how for how in HOWS if how == given.get("how")), None)
    request = Request(root, read_round(given["from"]), _read_clients(given["without"]), how)
    files = {kind: Path(given.get(kind) or root / f"replay-{request.name}.{kind}").expanduser() for kind in _FILES}
    return request, files


_FILES = ("csv", "png")


def _read_clients(given: str) -> tuple[str, ...]:
    """Return clients' ids, ascending, each once."""
    numbers = given.strip("[]").split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError(f"without must be the clients' numbers such as 3 or 3,7, got {given!r}")
    return tuple(map(str, sorted({int(number) for number in numbers})))


if __name__ == "__main__":
    main()
