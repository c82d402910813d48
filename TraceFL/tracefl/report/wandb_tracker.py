"""A run on Weights & Biases, if requested: its configuration, and per round a step with a table of traced inputs.

At the end, it also sends what report.html shows beside the curves: a figure of clients and classes, and one table of
the traced inputs of all rounds, with pictures or texts, class names and ranked clients, suspicious rounds first.

W&B never stops a run or holds it up for long: a separate thread talks to it, and failures become warnings.
"""

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from queue import Full, Queue
from typing import Any

from tracefl.common.inside import read_bytes
from tracefl.common.signals import block_sigusr2
from tracefl.common.text_files import write_atomically
from tracefl.errors import TraceFLError, one_line
from tracefl.records.observer import Observer
from tracefl.records.result import RoundResult
from tracefl.records.settings import Settings
from tracefl.records.store import RoundStore
from tracefl.records.tables import PROVENANCE_COLUMNS, provenance_rows

log = logging.getLogger(__name__)

_INIT_SECONDS = 30.0  # longest wait for the server to take the run
_CLOSE_SECONDS = 60.0  # longest wait at the run's end for unsent data
_WAITING = 50  # rounds kept while W&B is slow; W&B misses further ones, rounds.csv does not


class WandbTracker(Observer):
    """Follows a run on W&B; ``offline`` writes below the run's folder, to be uploaded later with ``wandb sync``.

    A resumed run continues the same W&B run, whose id is kept in the run's folder.

    Args:
        settings: The run's settings; ``wandb`` holds mode, project and entity.
        folder: The run's folder.
        close_seconds: Longest wait in ``close``.
    """

    def __init__(self, settings: Settings, folder: Path, close_seconds: float = _CLOSE_SECONDS) -> None:
        self._settings = settings
        self._folder = folder
        self._close_seconds = close_seconds
        self._wandb: Any = None
        self._run: Any = None
        self._failed = False
        self._given = self._sent = 0
        self._calls: Queue[Callable[[], None] | None] = Queue(_WAITING)
        self._calls.put(self._begin)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        with block_sigusr2():
            self._thread.start()

    def round_finished(self, result: RoundResult) -> None:
        """Send a round's measured values and its traced inputs as one step, when W&B is ready for it."""
        self._given += 1
        try:
            self._calls.put_nowait(lambda: self._send(result))
        except Full:
            log.debug("W&B is behind by %d rounds; round=%d is not sent", _WAITING, result.server_round)

    def close(self) -> None:
        """End the run on W&B, and report what W&B did not get."""
        until = time.monotonic() + self._close_seconds
        try:
            for call in (self._send_report, self._end, None):
                self._calls.put(call, timeout=max(0.0, until - time.monotonic()))
        except Full:
            log.debug("W&B is still busy with what it was given before")
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"it did not end within {self._close_seconds:g}s")
        if self._sent < self._given:
            log.warning("W&B holds %d of %d rounds; rounds.csv and provenance.csv hold all", self._sent, self._given)

    def _work(self) -> None:
        """Make the calls one by one, up to the first that fails."""
        while (call := self._calls.get()) is not None:
            if self._failed:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001 - W&B raises undocumented kinds of error; none may stop a run
                self._warn(f"{type(error).__name__}: {one_line(error)}")

    def _warn(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            log.warning(
                "W&B failed (%s); the run goes on without it. What it has written is sent by: wandb sync %s",
                reason,
                self._folder / "wandb" / "*run-*",
            )

    def _begin(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # telemetry is opt-in here
        os.environ.setdefault("WANDB_SILENT", "true")  # it prints some lines before it reads its settings
        import wandb  # heavy, and not needed by runs without W&B

        options = self._settings.wandb
        self._wandb = wandb
        self._run = wandb.init(
            project=options.project,
            entity=options.entity,
            mode=options.mode,
            group=self._settings.exp_key,
            name=self._folder.name,
            id=_kept_id(self._folder / "wandb" / "run-id"),
            resume="allow",
            allow_val_change=True,
            dir=self._folder,
            config=dict(self._settings.resolved),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=_INIT_SECONDS, finish_timeout=self._close_seconds
            ),
        )

    def _send(self, result: RoundResult) -> None:
        measured = {name: value for name, value in result.row.items() if value is not None and name != "round"}
        rows = provenance_rows(result.server_round, result.traced)
        table = self._wandb.Table(
            columns=list(PROVENANCE_COLUMNS), data=[[row[column] for column in PROVENANCE_COLUMNS] for row in rows]
        )
        suspects = {
            f"suspects/{row['rule']}": row["localization_accuracy"]
            for row in result.suspects
            if row["localization_accuracy"] is not None
        }
        self._run.log({**measured, **suspects, "traced_inputs": table}, step=result.server_round)
        self._sent += 1

    def _send_report(self) -> None:
        """Send what the run's folder holds about all rounds, in the step of the last one."""
        if not RoundStore(self._folder / "rounds").last_round:
            return
        from tracefl.report.page.media import report_media  # brings matplotlib, which most runs need later

        try:
            media = report_media(self._folder, self._wandb)
        except (TraceFLError, OSError) as error:
            log.warning("W&B got no figures of the whole run: %s", one_line(error))
            return
        self._run.log(media)

    def _end(self) -> None:
        self._run.finish()
        self._wandb.teardown()  # waits until W&B's own process has closed its file


def _kept_id(path: Path) -> str:
    """Return the id kept in a file, which is created if missing."""
    if path.exists():
        kept = read_bytes(path.parent, path.name, 100).decode(errors="replace")
        if re.fullmatch("[0-9a-f]{8}", kept):
            return kept
    new = uuid.uuid4().hex[:8]
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, new)
    return new
