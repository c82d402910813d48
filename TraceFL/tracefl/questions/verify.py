"""Whether a run's folder is whole: every checksum, what its files say of one another, and each stored round's average.

A checksum tells damage, and not who made the file: whoever may write into the folder can make it again. What cannot be
made again by others is a signature of the checksums, see ``records/signature.py``.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracefl.common.inside import is_there
from tracefl.errors import RecordError, TraceFLError, one_line, plain
from tracefl.provenance import RoundRecord
from tracefl.provenance.comparison import compare_whole
from tracefl.provenance.reading import read_round
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.stand_outs import rows_again, summarize_stand_outs
from tracefl.questions.suspects import mean_suspects
from tracefl.records.checksums import CHECKSUMS, CheckedFiles, is_covered, listed_rounds, names_below
from tracefl.records.claim import is_claimed
from tracefl.records.result import TABLES, RoundResult, tables_of, times_capped, times_refused
from tracefl.records.run import StoredRun
from tracefl.records.signature import SIGNATURE, check_signature, read_private_key, read_public_key, sign
from tracefl.records.tables import to_csv
from tracefl.records.weights import check_file

_MOST_TABLE_BYTES = 1 << 30


@dataclass(frozen=True)
class CheckedAverage:
    """A stored round's model beside the average of its clients, made again.

    Attributes:
        server_round: The round, from 1.
        clients: How many were averaged.
        numbers: How many numbers were compared: all floating-point numbers of the model.
        apart: By how much the two differ at most; more than rounding is a problem of the run.
        before_noise: What was compared is the average before privacy's noise. The noise cannot be made again.
    """

    server_round: int
    clients: int
    numbers: int
    apart: float
    before_noise: bool = False


@dataclass
class Verification:
    """What was found in a run's folder.

    Attributes:
        folder: The run's folder.
        checked: How many files have the checksum that they should.
        rounds: How many rounds are recorded.
        is_complete: The run is over.
        averages: The rounds whose clients' weights are stored.
        not_covered: Files without a checksum: they decide no answer.
        signature: ``good``, ``bad`` or ``none``; ``unchecked`` where there is one and no key was given; ``made`` where
            it was signed just now.
        problems: What is wrong, one line each; empty where the folder is whole.
    """

    folder: Path
    checked: int = 0
    rounds: int = 0
    is_complete: bool = False
    averages: list[CheckedAverage] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
    signature: str = "none"
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is wrong, once, and go on after the block."""
        try:
            yield
        except (TraceFLError, OSError) as error:
            problem = one_line(error)
            if problem not in self.problems:
                self.problems.append(problem)


def verify(folder: Path, key: Path | None = None, signing_key: Path | None = None) -> Verification:
    """Check a run's folder, and sign its checksums where nothing is wrong.

    Args:
        folder: The run's folder.
        key: A public Ed25519 key by which its checksums must be signed; None to check no signature.
        signing_key: A private Ed25519 key, to sign them with; None to sign nothing. Not together with ``key``.

    Raises:
        ConfigError: A file holds no such key.
        RecordError: The run is being made.
        OSError: The signature cannot be written.
    """
    if is_claimed(folder):
        raise RecordError(f"{folder} is being written; verify it when the run is over")
    public = None if key is None else read_public_key(key)  # before all that takes long
    private = None if signing_key is None else read_private_key(signing_key)
    found = Verification(folder)
    files = CheckedFiles(folder)
    with found.noting():
        covered = _check_checksums(found, files)
        found.not_covered = [plain(name) for name in names_below(folder) if name not in covered]
        found.problems += [
            f"{plain(str(folder / name))} has no line in {CHECKSUMS}, and a run's answers would depend on it"
            for name in names_below(folder)
            if name not in covered and (is_covered(name) or name.startswith("rounds/"))
        ]
        _check_content(found)
    if public is not None:
        found.signature = "bad"
        with found.noting():
            check_signature(folder, public)
            found.signature = "good"
    elif private is not None and found.is_whole:
        sign(folder, private)
        found.signature = "made"
    elif is_there(folder, SIGNATURE):
        found.signature = "unchecked"
    return found


def _check_checksums(found: Verification, files: CheckedFiles) -> set[str]:
    """Compare every file with its checksum; return all that have one."""
    covered = {CHECKSUMS, SIGNATURE}
    for name in files.checksums:
        covered.add(name)
        with found.noting():
            check_file(files, name)
            found.checked += 1
    for number in listed_rounds(files):
        place = f"rounds/{number:04d}"
        of_round = CheckedFiles(files.folder / place, "round", files)
        with found.noting():
            for name in of_round.checksums:
                covered.add(f"{place}/{name}")
                if name != "round.json" and not is_there(files.folder, f"{place}/{name}"):
                    continue  # not kept any more, or missing: where the round is read
                with found.noting():
                    check_file(of_round, name)
                    found.checked += 1
    return covered


def _check_content(found: Verification) -> None:
    """Read every file, and compare what they say of one another."""
    with found.noting():
        run = StoredRun(found.folder)
        found.is_complete = run.is_complete
        parts: list[Callable[[], object]] = [
            lambda: run.spec,
            lambda: run.server,
            lambda: run.fault,
            lambda: run.command,
        ]
        if run.is_deployed:
            parts.append(lambda: run.keys)
        if run.settings.dataset.kind == "text":
            parts.append(lambda: run.encoder)
        for part in parts:
            with found.noting():
                part()
        with found.noting():
            results = list(run.results())
            found.rounds = len(results)
            _check_tables(found, run, results)
            with found.noting():
                _check_results(run, results)
            with found.noting():
                _check_stand_outs(run, results)
        with found.noting():
            _check_averages(found, run)


def _check_tables(found: Verification, run: StoredRun, results: list[RoundResult]) -> None:
    """Compare each table with the rounds' results."""
    made = tables_of(results)
    for name in TABLES:
        with found.noting():
            if name in made and not run.files.has(name) and not is_there(run.folder, name):
                raise RecordError(f"{run.folder / name} is missing, and the rounds' round.json have what it says")
            expected = to_csv(*made[name]) if name in made else ""
            kept = run.files.read(name, _MOST_TABLE_BYTES) if run.files.has(name) else b""
            if kept != expected.encode() and not _say_the_same(kept, expected):
                raise RecordError(f"{run.folder / name} does not say what the rounds' round.json say")


def _say_the_same(table: bytes, expected: str) -> bool:
    """Return whether a table has the same cells; a number may be written as 1 and as 1.0."""
    try:
        kept = table.decode()
        most = csv.field_size_limit(max(len(kept), len(expected), 1))  # a cell names every client of a round
        try:
            cells, others = (list(csv.reader(io.StringIO(text, newline=""))) for text in (kept, expected))
        finally:
            csv.field_size_limit(most)
    except (UnicodeDecodeError, csv.Error):
        return False
    return len(cells) == len(others) and all(map(_are_same, cells, others))


def _are_same(cells: list[str], others: list[str]) -> bool:
    """Return whether two rows say the same; a number may be written as 1 and as 1.0."""
    pairs = zip(cells, others, strict=False)
    return len(cells) == len(others) and all(a == b or _number(a) == _number(b) is not None for a, b in pairs)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _check_results(run: StoredRun, results: list[RoundResult]) -> None:
    """Compare the summary with the rounds' results."""
    summary = run.environment
    if summary is None:
        return
    rows = [result.row for result in results]
    again: dict[str, Any] = {
        "final": rows[-1],
        "mean": {
            name: mean_measured([row[name] for row in rows]) for name in summary.get("mean", {}) if name in rows[0]
        },
        "suspects": mean_suspects(row for result in results for row in result.suspects),
        "stand_outs": summarize_stand_outs(results),
        "clients_dropped": sum(row["clients_dropped"] or 0 for row in rows),
        "clients_refused": times_refused(results),
        "clients_capped": times_capped(results),
        "classes": list(run.label_names),
        "seed": run.settings.seed,
    }
    differing = [name for name, value in again.items() if json.dumps(value) != json.dumps(summary.get(name))]
    if differing:
        raise RecordError(f"{run.folder / 'results.json'} does not say what the rounds say, of {', '.join(differing)}")


def _check_stand_outs(run: StoredRun, results: list[RoundResult]) -> None:
    """Add up the rounds' suspicions again, and compare the sums with those recorded."""
    settings = run.settings.provenance
    recorded = [dict(row) for result in results for row in result.stand_outs]
    if recorded and (settings is None or rows_again(results, settings.false_alarms) != recorded):
        raise RecordError(f"{run.folder / 'stand_outs.csv'} does not say what the rounds' suspicions add up to")


def _check_averages(found: Verification, run: StoredRun) -> None:
    """Average the stored clients of each round again, and compare all of the model; check that rounds follow."""
    kept = [number for number in run.store.stored_rounds() if number <= run.last_round]
    missing = sorted(_wanted(run) - set(kept))
    before: RoundRecord | None = None
    for number in kept:
        with found.noting():
            model, record = run.round(number)
            compared = compare_whole(read_round(model, record))
            with_noise = record.before_noise is not None
            found.averages.append(
                CheckedAverage(number, len(record.clients), compared.compared, compared.apart, with_noise)
            )
            if compared.refusal is not None:
                raise RecordError(f"{run.folder / f'rounds/{number:04d}'}: {compared.refusal}")
            if before is not None and before.server_round == number - 1:
                _check_follows(run, before, record)
            before = record
    if missing:
        raise RecordError(
            f"{run.folder / f'rounds/{missing[0]:04d}/weights'} is missing, and config.yaml says store.keep="
            f"{run.settings.store.keep}"
        )


def _wanted(run: StoredRun) -> set[int]:
    """Return the rounds whose clients' weights must be there.

    A run that a replay trained has copied the rounds before ``without_from``, without weights. A round whose checksums
    have no weights is of a session that kept none.
    """
    first = run.settings.without_from if run.settings.without else 1
    of_all = range(first, run.last_round + 1)
    wanted = {"all": of_all, "last": of_all[-1:], "none": of_all[:0]}[run.settings.store.keep]
    return {number for number in wanted if run.store.has_kept(number)}


def _check_follows(run: StoredRun, before: RoundRecord, record: RoundRecord) -> None:
    """Check that a round started from the model of the one before."""
    for name, tensor in before.global_weights.items():
        if not record.previous_global[name].equal(tensor):
            raise RecordError(
                f"{run.folder / f'rounds/{record.server_round:04d}'} started from other weights than round "
                f"{before.server_round} ended with: {name!r} differs"
            )
