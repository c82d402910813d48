"""A run as a user sees it: its folder, its log, its lines in the terminal, its table at the end."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from tracefl.common.imports import heavy_imports
from tracefl.common.signals import StopRequest
from tracefl.experiment.settings import Settings
from tracefl.federation.ray_cluster import Resources, check_shared, ray_cluster
from tracefl.questions.suspects import mean_suspects
from tracefl.records.folder import RunFolder
from tracefl.records.log import RunLog
from tracefl.records.observer import Observer
from tracefl.records.status import StatusFile, read_progress
from tracefl.report.terminal import Terminal, TerminalConsole, show_run, terminal_lines
from tracefl.report.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    from tracefl.experiment.experiment import Experiment
    from tracefl.experiment.preparation import Prepared
    from tracefl.federation.server import Federation

log = logging.getLogger(__name__)


def run_settings(
    settings: Settings,
    federation: "Federation | None" = None,
    prepare: "Callable[[Settings], Prepared] | None" = None,
) -> None:
    """Run one configuration and show it; a run that is already complete is shown again, not run again.

    Args:
        settings: The configuration.
        federation: The clients, where Flower has started them and listens to signals; None for a simulation of the
            run's own.
        prepare: Returns what the run starts from, where ``prepare_run`` does not.

    Raises:
        TraceFLError: Bad input, or a run that failed or was stopped; run.log then says the same.
    """
    console = TerminalConsole()
    config = settings.config
    path = settings.folder
    if config["dry_run"]:
        console.print(OmegaConf.to_yaml(OmegaConf.create(dict(config))), highlight=False, markup=False)
        console.print(f"would run in {path}", soft_wrap=True, highlight=False)
        return
    folder = RunFolder(path, config)
    if folder.is_complete and not config["overwrite"]:
        show_run(console, folder.rows(), mean_suspects(folder.suspects()), path)
        console.print("already complete, nothing was run; overwrite=true runs it again")
        return
    folder.refuse_if_claimed()
    stop = StopRequest()
    with (
        stop if federation is None else nullcontext(),
        terminal_lines(console),
        RunLog() as run_log,
        Terminal(console) as terminal,
    ):
        log.info("preparing %s", path.name)
        session = _Session(settings, folder, run_log, terminal, stop)
        if federation is None:
            _simulate(session)
        else:
            with closing(folder):
                session.prepare(prepare)
                session.serve(federation)
    show_run(console, folder.rows(), mean_suspects(folder.suspects()), path)


def _simulate(session: "_Session") -> None:
    """Prepare while Ray and its workers start, then run: whatever can be refused is, before anything is written."""
    settings = session.settings
    config = settings.config
    resources = Resources(
        total_cpus=settings.total_cpus,
        total_gpus=settings.total_gpus,
        client_cpus=config["client_resources"]["cpus"],
        client_gpus=settings.client_gpus,
        address=config["ray"]["address"],
    )
    with (
        ray_cluster(resources) as ray_is_up,
        closing(session.folder),
        ThreadPoolExecutor(1) as background,
    ):
        with heavy_imports():  # before the thread: Flower's modules import each other, and fail if two threads do so
            from tracefl.federation.simulation import simulate
        preparing = background.submit(session.prepare)
        wait([ray_is_up])
        session.stop.listen()
        preparing.result()
        ray_is_up.result()
        simulate(session.serve, config["num_clients"], resources)


class _Session:
    """One session of a run: what is there before its clients are, and what its server does once they are."""

    def __init__(
        self, settings: Settings, folder: RunFolder, run_log: RunLog, terminal: Terminal, stop: StopRequest
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.stop = stop
        self._run_log = run_log
        self._terminal = terminal
        self._experiment: Experiment

    def prepare(self, prepare: "Callable[[Settings], Prepared] | None" = None) -> None:
        """Load the data and build the model; nothing is written."""
        with heavy_imports():
            from tracefl.experiment.experiment import Experiment
            from tracefl.experiment.preparation import prepare_run

        began = time.perf_counter()
        prepared = (prepare or prepare_run)(self.settings)
        self._experiment = Experiment(self.settings, prepared, self.folder)
        seconds = time.perf_counter() - began
        able = self._experiment.num_examples.keys() - self._experiment.participation.excluded
        log.info("%d clients can take part; data prepared in %.1fs", len(able), seconds)
        self.folder.check_space(self._experiment.bytes_needed)

    def serve(self, federation: "Federation") -> None:
        """Run with the clients, and record."""
        from tracefl.report.page import write_at_end

        config, folder = self.settings.config, self.folder
        rounds_done = folder.begin(config["resume"])
        self._run_log.open(folder.path / "run.log")
        if config["ray"]["address"] is not None:
            check_shared(folder.path / "config.yaml")
        progress = read_progress(folder.path, rounds_done, config["num_rounds"])
        status = StatusFile(folder.path)
        with ExitStack() as observers_end:
            observers: list[Observer] = [status, self._terminal]
            if config["wandb"]["mode"] != "disabled":
                observers.append(WandbTracker(config, folder.path))
            for observer in observers:
                observers_end.callback(observer.close)
            try:
                self._experiment.run(federation, progress, tuple(observers), self.stop)
            except BaseException as error:
                log.error("stopped: %s", error, extra={"said_by_main": True})
                if folder.is_ours:
                    progress.round_finished(folder.rounds.last_round)  # not one whose writing failed
                    status.ended(error)
                    if progress.rounds_done:
                        write_at_end(folder.path, self.settings.device)
                raise
            status.ended(None)
            write_at_end(folder.path, self.settings.device)
