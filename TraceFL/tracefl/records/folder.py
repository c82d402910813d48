"""What a run leaves in its folder: config.yaml, results.json, rounds.csv and tables of what it found and did."""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.filesize import decimal

from tracefl.common.inside import is_there
from tracefl.common.paths import remove
from tracefl.common.text_files import append_atomically, encoded, write_atomically
from tracefl.errors import RecordError, one_line
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import CHECKSUMS, ChangingChecksums, CheckedFiles, round_checksums, sha256_of_file
from tracefl.records.claim import CLAIM, WORK, Claim, drop_abandoned_work, refuse_if_claimed
from tracefl.records.naming import fingerprint, flatten, is_circumstance
from tracefl.records.reading import RESULTS, check_rounds, read_results
from tracefl.records.result import TABLES, RoundResult, tables_of
from tracefl.records.run import COMMAND
from tracefl.records.settings import Keep, Settings, read_config
from tracefl.records.store import RoundStore
from tracefl.records.tables import csv_parts, to_csv
from tracefl.records.weights import cannot_write, sync

log = logging.getLogger(__name__)


class RunFolder:
    """A run's folder, ``log_dir/exp_key/run_name``.

    Args:
        path: The folder.
        settings: The run's configuration.
        command: What was typed to make the run; None for a run made from Python.

    Raises:
        RecordError: The folder holds a run of another configuration, is being written, or cannot be written.
    """

    def __init__(self, path: Path, settings: Settings, command: str | None = None) -> None:
        self.path = path
        self.settings = settings
        self.command = command
        self.files = CheckedFiles(path)
        self.rounds = RoundStore(path / "rounds", **vars(settings.store), run=self.files)
        if path.exists() and not path.is_dir():
            raise RecordError(f"{path} is a file; set run_name or exp_key to another")
        self._claim: Claim | None = None
        self._checksums = ChangingChecksums(path, {})
        self._tables: dict[str, Any] = {}  # each table's SHA-256 so far
        self._writing = threading.Lock()  # a round is recorded in a thread of its own, while a client may join
        if path.exists():
            drop_abandoned_work(path)
            self._refuse_strangers()
            if any(not entry.name.startswith(".") and entry.name != CHECKSUMS for entry in path.iterdir()):
                self._refuse_another_run()
        ancestor = self._nearest_folder
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
            raise RecordError(f"cannot write below {ancestor}; set log_dir to a folder that can be written")

    @property
    def is_complete(self) -> bool:
        """A run of this configuration has finished here.

        Raises:
            RecordError: It says so, and its results are damaged or a round is missing; unless it is to be made again.
        """
        if not is_there(self.path, RESULTS):
            return False
        try:
            read_results(self.path, self.settings.num_rounds)
            check_rounds(self.files, self.settings.num_rounds)
        except RecordError as error:
            if self.settings.overwrite or self.settings.resume:
                return self.settings.overwrite
            raise RecordError(
                f"{one_line(error).partition(';')[0]}; resume=true goes on from the rounds that are whole, and "
                "overwrite=true begins again"
            ) from error
        return True

    @property
    def _nearest_folder(self) -> Path:
        """The run's folder, or where it is not there yet the nearest that is."""
        return next(parent for parent in (self.path, *self.path.absolute().parents) if parent.exists())

    @property
    def is_ours(self) -> bool:
        """This process holds the folder."""
        return self._claim is not None and self._claim.is_ours

    @property
    def work(self) -> Path:
        """Working files, deleted at the run's end: see ``claim.WORK``."""
        return self.path / WORK

    def refuse_if_claimed(self) -> None:
        """Raise a RecordError where another process is writing this run."""
        refuse_if_claimed(self.path)

    def check_space(self, needed: int) -> None:
        """Log how much disk the run needs at most, and refuse to run with less.

        Args:
            needed: Bytes of all that the run keeps at once.

        Raises:
            RecordError: The disk has less.
        """
        there = self._nearest_folder
        kept = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        free, missing = shutil.disk_usage(there).free, needed - kept
        log.info("disk: the run needs %s at most, %s are free", decimal(needed), decimal(free))
        if missing > free:
            raise RecordError(
                f"the run needs {decimal(missing)} of disk and {there} has {decimal(free)}; free some space, set "
                "log_dir to another disk, or keep less: store=last, store=none, store.dtype=bfloat16"
            )

    def begin(self, resume: bool) -> tuple[RoundResult, ...]:
        """Claim the folder and write the configuration.

        Args:
            resume: Continue the run that is there; otherwise clear what an unfinished or overwritten run left.

        Returns:
            The rounds that are recorded whole, from the first on.

        Raises:
            RecordError: Another process is writing there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._claim = Claim(self.path)
        if self.is_complete and not self.settings.overwrite:
            raise RecordError(f"{self.path} was completed by another process meanwhile; nothing was run", 1)
        recorded: tuple[RoundResult, ...] = ()
        kept_so_far = self._keep_of_the_last_session() if resume else self.rounds.keep
        if resume and self.rounds.drop_unusable_rounds():
            recorded = tuple(self.rounds.results())
        if not recorded:
            self._clear()
        self._checksums = ChangingChecksums(self.path, self._kept(recorded))
        if kept_so_far != "all":
            self._let_go_of_deleted(recorded)
        remove(self.path / RESULTS)  # of a run that was not complete after all
        self.write("config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(self.settings.resolved))))
        if self.command is not None:
            self.write(COMMAND, f"{self.command}\n")
        if recorded:
            self._write_tables(recorded)
        return recorded

    def write(self, name: str, text: str) -> None:
        """Write one of the files that decide an answer.

        Raises:
            OSError: It cannot be written; the old file is unchanged.
        """
        with self._writing:
            self._checksums.announce({name: hashlib.sha256(encoded(text)).hexdigest()})
            write_atomically(self.path / name, text)

    def put(self, draft: Path) -> None:
        """Move all files below a folder into the run's, under the same names.

        Raises:
            OSError: One cannot be written.
        """
        names = [path.relative_to(draft).as_posix() for path in sorted(draft.rglob("*")) if path.is_file()]
        sync(draft)
        with self._writing:
            self._checksums.announce({name: sha256_of_file(draft, name) for name in names})
            for name in names:
                place = self.path / name
                if place.parent != self.path:  # which is there, or was removed and is not to be made again
                    place.parent.mkdir(exist_ok=True)
                (draft / name).replace(place)
        shutil.rmtree(draft)

    def commit(self, result: RoundResult, record: RoundRecord) -> None:
        """Record a round: its folder first, then its rows of the tables.

        Raises:
            RecordError: It cannot be written, or another process took over.
        """
        assert self._claim is not None
        self._claim.check()
        lines = {name: csv_parts(*table) for name, table in tables_of([result]).items()}
        with ExitStack() as stack:

            def announce(checksum: str) -> None:
                stack.enter_context(self._writing)
                tables = {name: self._grown(name, *parts) for name, parts in lines.items()}
                self._checksums.announce({round_checksums(result.server_round): checksum, **tables})

            try:
                self.rounds.commit(result, record, announce)
                for name, parts in lines.items():
                    append_atomically(self.path / name, *parts)
            except OSError as error:
                raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Delete the working files and release the folder."""
        if self._claim is not None:
            if self.is_ours:
                shutil.rmtree(self.work, ignore_errors=True)
            self._claim.release()
            self._claim = None

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write results.json, which marks the run complete."""
        self.write(RESULTS, json.dumps(results, indent=1) + "\n")
        self.rounds.finish()  # only now: until the run is complete, a kill must leave what it resumes from
        self._checksums.announce({})  # nothing is replaced any more

    def _write_tables(self, rounds: Sequence[RoundResult]) -> None:
        """Write the tables of the recorded rounds anew."""
        found = tables_of(rounds)
        for name in TABLES:
            if name in found:
                text = to_csv(*found[name])
                self._tables[name] = hashlib.sha256(encoded(text))
                self.write(name, text)
            else:
                self._checksums.announce({name: None})
                remove(self.path / name)

    def _grown(self, name: str, heading: str, text: str) -> str:
        """Return the SHA-256 of a table once a round's lines are in it."""
        table = self._tables.get(name)
        self._tables[name] = table = hashlib.sha256(encoded(heading)) if table is None else table.copy()
        table.update(encoded(text))
        return table.hexdigest()

    def _kept(self, rounds: Sequence[RoundResult]) -> dict[str, str]:
        """Return the checksums of what an earlier session left and this one goes on from."""
        try:
            known = self.files.checksums
        except RecordError:  # there is none yet
            known = {}
        found = {
            name: sha256_of_file(self.path, name)
            for name in known
            if name != RESULTS and not name.startswith("rounds/") and is_there(self.path, name)
        }
        of_rounds = [round_checksums(result.server_round) for result in rounds]
        return {name: digest for name, digest in found.items() if digest in known[name]} | {
            name: sha256_of_file(self.path, name) for name in of_rounds
        }

    def _keep_of_the_last_session(self) -> Keep:
        """Return which weights the run has kept so far; warn where some of them will be deleted: by ``last`` alone."""
        if not is_there(self.path, "config.yaml"):
            return self.rounds.keep
        before = read_config(self.path / "config.yaml").store.keep
        if before == "all" and self.rounds.keep == "last":
            log.warning("store.keep=last, and the run has kept all so far: weights of earlier rounds are deleted")
        return before

    def _let_go_of_deleted(self, rounds: Sequence[RoundResult]) -> None:
        """Take the weights that earlier sessions deleted, as their store.keep said, out of their rounds' checksums.

        Otherwise a session that keeps more would leave a run of which weights are missing.
        """
        for number in (result.server_round for result in rounds):
            text = self.rounds.checksums_without_deleted(number)
            if text is not None:
                self.write(round_checksums(number), text)

    def _clear(self) -> None:
        """Delete all but the configuration; results.json first, so that a kill leaves the run unfinished."""
        remove(self.path / RESULTS)
        stays = [CLAIM]
        if is_there(self.path, "config.yaml"):
            stays += ["config.yaml", CHECKSUMS]
            config = sha256_of_file(self.path, "config.yaml")
            ChangingChecksums(self.path, {"config.yaml": config}).announce({})
        for entry in self.path.iterdir():
            if entry.name not in stays:
                remove(entry)

    def _refuse_strangers(self) -> None:
        """Refuse a folder with what no run leaves: a link would lead what is written and deleted here elsewhere."""
        for folder in (self.path, self.path / "rounds"):
            for entry in os.scandir(folder) if folder.is_dir() else ():
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise RecordError(
                        f"{entry.path} is a link, a pipe or the like, and a run leaves none; delete it, or set "
                        "run_name to another"
                    )

    def _refuse_another_run(self) -> None:
        if not is_there(self.path, "config.yaml"):
            raise RecordError(f"{self.path} exists and is no run's folder; set run_name or exp_key to another")
        there, here = read_config(self.path / "config.yaml").resolved, self.settings.resolved
        if fingerprint(there) != fingerprint(here):
            before, now = flatten(there), flatten(here)
            differing = [k for k in now if before.get(k) != now[k] and not is_circumstance(k)]
            raise RecordError(
                f"{self.path} holds a run of another configuration (differs in {', '.join(differing[:5])}); "
                "set run_name or exp_key to another, or delete it"
            )
