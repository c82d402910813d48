"""The page's short texts and small tables: what ran, on what, how long it took."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from tracefl.common.paths import expand
from tracefl.common.words import counted, duration
from tracefl.conf.run_names import below_roots
from tracefl.learning.faults.words import describe_fault
from tracefl.learning.privacy.settings import Privacy
from tracefl.records.settings import Settings
from tracefl.records.strategies import Strategy
from tracefl.report.page.record import RunRecord

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Timing:
    """How long one part of the rounds took.

    Attributes:
        what: The part.
        seconds: Its time in all recorded rounds.
        a_round: Mean time in a round.
        share: Share of the run's wall time, 0 to 1; None where that is unknown.
    """

    what: str
    seconds: float
    a_round: float
    share: float | None


_PARTS = (
    ("train_seconds", "training on the clients, and averaging"),
    ("evaluate_seconds", "evaluation on the server"),
    ("provenance_seconds", "provenance"),
    ("counterfactual_seconds", "check by exact removals"),
)


def run_word(record: RunRecord) -> str:
    """Return what names the run in a command.

    Its path below logs/ or results/, where ``tracefl`` looks; of a run elsewhere its path as it was given to the run,
    or in full where that does not lead to it from the current folder.
    """
    folder, settings = record.run.folder.resolve(), record.settings
    given = Path(settings.log_dir) / settings.exp_key / folder.name
    return below_roots(folder) or str(given if expand(given).resolve() == folder else folder)


def setting(settings: Settings, is_deployed: bool = False) -> Pairs:
    """Return a run's configuration in short.

    Args:
        settings: The run's settings.
        is_deployed: The clients had data of their own.
    """
    pairs = dict(_setting(settings))
    if is_deployed:
        data = settings.dataset
        pairs["data"] = f"{data.name} ({data.kind}s), each client's own; the test set is the server's"
    return [(name, text) for name, text in pairs.items() if text]


def environment(found: Mapping[str, Any] | None) -> Pairs:
    """Return versions and hardware, or that they were not recorded."""
    if found is None:
        return [("versions, hardware", "not recorded: they are written when a run is complete")]
    hardware = found["hardware"]
    machine = f"CPUs: {hardware['cpus']} ({hardware['processor']}), torch's threads: {hardware['torch_threads']}"
    pairs = [
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        ("hardware", f"{hardware['gpu']}, {machine}" if hardware["gpu"] else machine),
        ("system", str(hardware["system"])),
    ]
    if "server_peak_memory_bytes" in found:
        pairs.append(("memory of the server's process, at most", decimal(found["server_peak_memory_bytes"])))
    return pairs


def timings(record: RunRecord) -> list[Timing]:
    """Return how long each part of the recorded rounds took; last, the time that no part was measured for."""
    whole = record.state.seconds
    rounds = len(record.rounds)
    found = []
    for column, what in _PARTS:
        measured = [result.row[column] for result in record.rounds if result.row[column] is not None]
        if measured:
            seconds = sum(measured)
            found.append(Timing(what, seconds, seconds / len(measured), seconds / whole if whole else None))
    rest = 0.0 if whole is None else whole - sum(timing.seconds for timing in found)
    if whole and rest > 0:
        found.append(
            Timing("the rest: starting workers, writing, unfinished rounds", rest, rest / rounds, rest / whole)
        )
    return found


def seconds_an_input(record: RunRecord) -> float | None:
    """Return seconds of provenance per input; None where none was traced."""
    inputs = len(record.traced)
    seconds = [result.row["provenance_seconds"] for result in record.rounds]
    return None if not inputs or None in seconds else sum(seconds) / inputs


def state_words(record: RunRecord) -> str:
    """Return how far the run is."""
    state = record.state
    done = f"{len(record.rounds) + len(record.lacking)} of {state.num_rounds} rounds"
    words = {
        "done": f"complete, {done}",
        "running": f"still running, {done}",
        "stopped": f"stopped after {done}; the same command with resume=true goes on",
        "failed": f"failed after {done}: {state.error or 'no reason is recorded'}",
    }.get(state.state, f"{state.state}, {done}")
    return words if state.seconds is None else f"{words}; {duration(state.seconds)}"


def _setting(settings: Settings) -> Iterator[tuple[str, str]]:
    model, data, client = settings.model, settings.dataset, settings.client
    pretrained = model.pretrained
    weights = f"weights of {pretrained}"
    if isinstance(pretrained, bool):
        weights = "published weights" if pretrained else "random weights"
    sizes = " ".join(f"{key}={value}" for key, value in model.config.items())
    yield "model", ", ".join(filter(None, (model.name, weights, sizes)))
    spread = f"Dirichlet, alpha {settings.dirichlet_alpha}" if data.partition == "dirichlet" else data.partition
    yield "data", f"{data.name} ({data.kind}s), partition {spread}"
    yield (
        "clients",
        f"{settings.num_clients}, of which {settings.clients_per_round} take part in a round; "
        f"{counted(settings.num_rounds, 'round')}",
    )
    yield "strategy", _keys(settings.strategy, {"timeout_seconds", "isolate"})
    optimizer = f"{client.optimizer}, learning rate {client.lr:g}"
    yield "client's training", f"{client.epochs} epochs, batches of {settings.batch_size}, {optimizer}"
    yield "privacy", "" if settings.privacy is None else _keys(settings.privacy, set())
    yield "fault", "" if settings.fault is None else describe_fault(settings.fault, settings.num_clients)
    method = ("target", "weighting", "reference", "layer_decay", "also")
    yield (
        "provenance",
        "off"
        if settings.provenance is None
        else " ".join(f"{key}={_plain(getattr(settings.provenance, key))}" for key in method),
    )
    yield "device, seed", f"{settings.device}, seed {settings.seed}"


def _keys(group: Strategy | Privacy, without: set[str]) -> str:
    """Return a group's choice with the keys that it sets, without zeros."""
    keys = (f"{k}={_plain(value)}" for k, value in vars(group).items() if k not in without and value not in (None, 0.0))
    return f"{group.name} ({', '.join(keys)})"


def _plain(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else "null" if value is None else str(value)
