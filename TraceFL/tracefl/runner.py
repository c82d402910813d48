"""A run as a user sees it: its folder, its log, its lines in the terminal, its table at the end."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tracefl.config import Settings
from tracefl.imports import heavy_imports
from tracefl.observer import Observer
from tracefl.ray_cluster import Resources, check_shared, ray_cluster
from tracefl.report.terminal import Terminal, TerminalConsole, show_run
from tracefl.run_log import RunLog, terminal_lines
from tracefl.run_state import StatusFile, read_progress
from tracefl.stopping import StopRequest
from tracefl.suspects import mean_suspects
from tracefl.tracking import RunFolder
from tracefl.wandb_tracking import WandbTracker

if TYPE_CHECKING:
    from tracefl.experiment import Experiment

log = logging.getLogger(__name__)


def run_settings(settings: Settings) -> None:
    """Run one configuration and show it; a run that is already complete is shown again, not run again.

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
    folder = RunFolder(path, settings)
    if folder.is_complete and not config["overwrite"]:
        show_run(console, folder.rows(), mean_suspects(folder.suspects()), path)
        console.print("already complete, nothing was run; overwrite=true runs it again")
        return
    folder.refuse_if_claimed()
    resources = Resources(
        total_cpus=settings.total_cpus,
        total_gpus=settings.total_gpus,
        client_cpus=config["client_resources"]["cpus"],
        client_gpus=settings.client_gpus,
        address=config["ray"]["address"],
    )
    with (
        StopRequest() as stop,
        terminal_lines(console),
        RunLog() as run_log,
        Terminal(console) as terminal,
        ray_cluster(resources) as ray_is_up,
    ):
        log.info("preparing %s", path.name)
        try:
            _run_on(ray_is_up, resources, settings, folder, run_log, terminal, stop)
        finally:
            folder.close()
    show_run(console, folder.rows(), mean_suspects(folder.suspects()), path)


def _run_on(
    ray_is_up: "Future[Any]",
    resources: Resources,
    settings: Settings,
    folder: RunFolder,
    run_log: RunLog,
    terminal: Terminal,
    stop: StopRequest,
) -> None:
    """Prepare while Ray and its workers start, then run: whatever can be refused is, before anything is written."""
    with ThreadPoolExecutor(1) as background:
        preparing = background.submit(_prepare, settings, folder)
        from tracefl.report.page import write_at_end
        from tracefl.server_app import Federation
        from tracefl.simulation import simulate

        config = settings.config

        def serve(federation: Federation) -> None:
            rounds_done = folder.begin(config["resume"])
            run_log.open(folder.path / "run.log")
            if resources.address is not None:
                check_shared(folder.path / "config.yaml")
            progress = read_progress(folder.path, rounds_done, config["num_rounds"])
            status = StatusFile(folder.path)
            with ExitStack() as observers_end:
                observers: list[Observer] = [status, terminal]
                if config["wandb"]["mode"] != "disabled":
                    observers.append(WandbTracker(config, folder.path))
                for observer in observers:
                    observers_end.callback(observer.close)
                try:
                    experiment.run(federation, progress, tuple(observers), stop)
                except BaseException as error:
                    log.error("stopped: %s", error, extra={"said_by_main": True})
                    if folder.is_ours:
                        progress.round_finished(folder.rounds.last_round)  # not one whose writing failed
                        status.ended(error)
                        if progress.rounds_done:
                            write_at_end(folder.path, settings.device)
                    raise
                status.ended(None)
                write_at_end(folder.path, settings.device)

        wait([ray_is_up])
        stop.listen()
        experiment = preparing.result()
        folder.check_space(experiment.bytes_needed)
        ray_is_up.result()
        simulate(serve, config["num_clients"], resources)


def _prepare(settings: Settings, folder: RunFolder) -> "Experiment":
    """Load the data and build the model."""
    with heavy_imports():
        from tracefl.experiment import Experiment
        from tracefl.preparation import prepare_run

    began = time.perf_counter()
    prepared = prepare_run(settings)
    experiment = Experiment(settings, prepared, folder)
    seconds = time.perf_counter() - began
    log.info("%d clients can take part; data prepared in %.1fs", len(prepared.data.clients), seconds)
    return experiment
