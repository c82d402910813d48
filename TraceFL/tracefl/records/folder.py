"""What a run leaves in its folder: config.yaml, results.json, rounds.csv and tables of what it found and did."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf
from rich.filesize import decimal

from tracefl.common.text_files import append_atomically, write_atomically
from tracefl.errors import RecordError
from tracefl.provenance import RoundRecord
from tracefl.records.claim import CLAIM, Claim, refuse_if_claimed
from tracefl.records.naming import fingerprint, flatten, is_circumstance
from tracefl.records.result import TABLES, RoundResult, tables_of
from tracefl.records.run import COMMAND
from tracefl.records.settings import Keep, Settings, read_config
from tracefl.records.store import RoundStore
from tracefl.records.tables import csv_parts, to_csv
from tracefl.records.weights import cannot_write

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
        self.rounds = RoundStore(path / "rounds", **vars(settings.store))
        if path.exists() and not path.is_dir():
            raise RecordError(f"{path} is a file; set run_name or exp_key to another")
        self._claim: Claim | None = None
        if path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir()):
            self._refuse_another_run()
        ancestor = self._nearest_folder
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
            raise RecordError(f"cannot write below {ancestor}; set log_dir to a folder that can be written")

    @property
    def is_complete(self) -> bool:
        """A run of this configuration has finished here."""
        return (self.path / "results.json").exists()

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
        """Working files, deleted at the run's end: the clients' prepared examples."""
        return self.path / ".work"

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
        if resume:
            self._warn_if_less_is_kept()
            if self.rounds.drop_unusable_rounds():
                recorded = tuple(self.rounds.results())
        if not recorded:
            self._clear()
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(self.settings.resolved))))
        if self.command is not None:
            write_atomically(self.path / COMMAND, f"{self.command}\n")
        if recorded:
            self._write_tables(recorded)
        return recorded

    def commit(self, result: RoundResult, record: RoundRecord) -> None:
        """Record a round: its folder first, then its rows of the tables.

        Raises:
            RecordError: It cannot be written, or another process took over.
        """
        assert self._claim is not None
        self._claim.check()
        self.rounds.commit(result, record)
        try:
            for name, (columns, rows) in tables_of([result]).items():
                append_atomically(self.path / name, *csv_parts(columns, rows))
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
        write_atomically(self.path / "results.json", json.dumps(results, indent=1) + "\n")
        self.rounds.finish()  # only now: until the run is complete, a kill must leave what it resumes from

    def _write_tables(self, rounds: Sequence[RoundResult]) -> None:
        """Write the tables of the recorded rounds anew."""
        found = tables_of(rounds)
        for name in TABLES:
            if name in found:
                write_atomically(self.path / name, to_csv(*found[name]))
            else:
                (self.path / name).unlink(missing_ok=True)

    def _warn_if_less_is_kept(self) -> None:
        """Warn where weights that the run has stored so far will be deleted."""
        if (self.path / "config.yaml").exists():
            before, keeps = read_config(self.path / "config.yaml").store.keep, get_args(Keep)
            if keeps.index(before) > keeps.index(self.rounds.keep):
                log.warning(
                    "store.keep=%s, and the run has kept %s so far: weights of earlier rounds are deleted",
                    self.rounds.keep,
                    before,
                )

    def _clear(self) -> None:
        """Delete all but the configuration; results.json first, so that a kill leaves the run unfinished."""
        (self.path / "results.json").unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.name in (CLAIM, "config.yaml"):
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _refuse_another_run(self) -> None:
        if not (self.path / "config.yaml").exists():
            raise RecordError(f"{self.path} exists and is no run's folder; set run_name or exp_key to another")
        there, here = read_config(self.path / "config.yaml").resolved, self.settings.resolved
        if fingerprint(there) != fingerprint(here):
            before, now = flatten(there), flatten(here)
            differing = [k for k in now if before.get(k) != now[k] and not is_circumstance(k)]
            raise RecordError(
                f"{self.path} holds a run of another configuration (differs in {', '.join(differing[:5])}); "
                "set run_name or exp_key to another, or delete it"
            )
