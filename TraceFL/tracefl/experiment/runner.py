"""A run from its settings: its folder, log and observers, Ray, and the table in the terminal at the end."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, TypeAlias

from tracefl.common.imports import heavy_imports
from tracefl.common.signals import StopRequest
from tracefl.errors import ClusterLostError, RecordError, RunStopped
from tracefl.experiment.backend import Work, backend_for, backend_of, estimate_work, read_resources
from tracefl.federation.resources import Resources
from tracefl.records.folder import RunFolder
from tracefl.records.log import RunLog
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress
from tracefl.records.reading import lacking_words
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings
from tracefl.records.status import StatusFile, read_progress
from tracefl.report.console import TerminalConsole
from tracefl.report.forecast import Forecast, show_forecast
from tracefl.report.terminal import Terminal, show_run, terminal_lines
from tracefl.report.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    from tracefl.experiment.experiment import Experiment
    from tracefl.experiment.preparation import Prepared
    from tracefl.federation.server import Federation

    Serve = Callable[[Experiment, Federation], None]

Show: TypeAlias = Callable[[TerminalConsole, Sequence[RoundResult], Path], None]
"""Prints a finished run: given where to print, the results of its rounds, and its folder."""

log = logging.getLogger(__name__)


def run_settings(
    settings: Settings,
    federation: "Federation | None" = None,
    prepare: "Callable[[Settings], Prepared] | None" = None,
    command: str | None = None,
    show: Show = show_run,
) -> Forecast | None:
    """Run one configuration and show the result; a complete run is only shown again.

    Args:
        settings: The configuration.
        federation: The clients, if Flower has started them and handles signals; None to simulate them here.
        prepare: Returns what the run starts from; None for ``prepare_run``.
        command: The command typed to start the run, kept in its folder; None for a run started from Python.
        show: Shows the result.

    Returns:
        With ``dry_run``, which runs nothing, what a run would do; else None.

    Raises:
        TraceFLError: Bad input, or a run that failed or was stopped; run.log has the same message.
    """
    console = TerminalConsole()
    path = settings.folder
    if settings.dry_run:
        from tracefl.experiment.forecast import forecast_run

        forecast = forecast_run(settings, started_by_flower=federation is not None)
        show_forecast(console, forecast)
        return forecast
    folder = RunFolder(path, settings, command)
    if folder.is_complete and not settings.overwrite:
        _show_again(console, folder, show)
        return None
    folder.refuse_if_claimed()
    stop = StopRequest()
    rounds: tuple[RoundResult, ...] = ()
    try:
        with (
            stop if federation is None else nullcontext(),
            terminal_lines(console),
            RunLog() as run_log,
            Terminal(console) as terminal,
        ):
            log.info("preparing %s", path.name)

            def serve(experiment: "Experiment", federation: "Federation") -> None:
                nonlocal rounds
                rounds = _serve(experiment, federation, run_log, terminal, stop)

            if federation is None:
                _simulate(settings, folder, stop, serve)
            else:
                with closing(folder):
                    serve(_prepare(settings, folder, prepare), federation)
        show(console, rounds, path)
    except KeyboardInterrupt:
        if not rounds:
            raise
        console.print(f"interrupted after the last round: the run is complete, in {path}", soft_wrap=True)
    return None


def _show_again(console: TerminalConsole, folder: RunFolder, show: Show) -> None:
    """Show a complete run, of whose rounds those that can be read.

    Raises:
        RecordError: Some of them cannot be read.
    """
    rounds, lacking = StoredRun(folder.path).readable(folder.settings.num_rounds)
    if rounds:
        show(console, rounds, folder.path)
    if lacking:
        raise RecordError(
            f"already complete, nothing was run; {folder.path} lacks {lacking_words(lacking)}; "
            "overwrite=true runs it again"
        )
    console.print("already complete, nothing was run; overwrite=true runs it again")


def _simulate(settings: Settings, folder: RunFolder, stop: StopRequest, serve: "Serve") -> None:
    """Run with clients of this process or on Ray; bad input is refused before anything is written."""
    resources = read_resources(settings)
    backend = backend_of(settings, resources)
    with closing(folder):
        if backend is not None and not backend.in_process:
            log.info("%s", backend)
            _simulate_on_ray(resources, partial(_prepare, settings, folder), stop, serve)
            return
        experiment = _prepare(settings, folder)
        if backend is None:
            at_once = min(resources.clients_here, settings.clients_per_round)
            backend = backend_for(_work_of(experiment), at_once)
        log.info("%s", backend)
        if not backend.in_process:
            _simulate_on_ray(resources, lambda: experiment, stop, serve)
            return
        from tracefl.federation.in_process import federation_here

        serve(experiment, federation_here())


def _simulate_on_ray(
    resources: Resources, prepare: "Callable[[], Experiment]", stop: StopRequest, serve: "Serve"
) -> None:
    """Prepare while Ray and its workers start, then run."""
    with heavy_imports():
        from tracefl.federation.ray_cluster import ray_cluster

    with ray_cluster(resources, lambda: stop.signal is not None) as ray_is_up, ThreadPoolExecutor(1) as background:
        with heavy_imports():  # before the thread: Flower's modules import each other, and fail if two threads do so
            from tracefl.federation.ray_grid import federation_on_ray
        preparing = background.submit(prepare)
        wait([ray_is_up])
        experiment = preparing.result()
        try:
            ray_is_up.result()
        except ClusterLostError as error:
            if stop.signal is None:
                raise
            raise RunStopped(
                f"stopped by {stop.signal} before a round was made; the same command begins again"
            ) from error
        serve(experiment, federation_on_ray(resources))


def _work_of(experiment: "Experiment") -> Work:
    examples = next(iter(experiment.prepared.data.clients.values()))
    excluded = experiment.participation.excluded
    able = [count for client, count in experiment.num_examples.items() if client not in excluded]
    return estimate_work(experiment.settings, experiment.model, examples, mean(able or [0]))


def _prepare(
    settings: Settings, folder: RunFolder, prepare: "Callable[[Settings], Prepared] | None" = None
) -> "Experiment":
    """Load the data and build the model; nothing is written."""
    with heavy_imports():
        from tracefl.experiment.experiment import Experiment
        from tracefl.experiment.preparation import prepare_run

    began = time.perf_counter()
    experiment = Experiment(settings, (prepare or prepare_run)(settings), folder)
    seconds = time.perf_counter() - began
    able = experiment.num_examples.keys() - experiment.participation.excluded
    log.info("%d clients can take part; data prepared in %.1fs", len(able), seconds)
    folder.check_space(experiment.bytes_needed)
    return experiment


def _serve(
    experiment: "Experiment", federation: "Federation", run_log: RunLog, terminal: Terminal, stop: StopRequest
) -> tuple[RoundResult, ...]:
    """Run one session with the clients, record it, and return all rounds of the run."""
    from tracefl.experiment.session import run_session
    from tracefl.report.page import write_at_end

    settings, folder = experiment.settings, experiment.folder
    recorded = folder.begin(settings.resume)
    run_log.open(folder.path / "run.log")
    if settings.ray.address is not None:
        from tracefl.federation.ray_cluster import check_shared

        check_shared(folder.path / "config.yaml")
    progress = read_progress(folder.path, len(recorded), settings.num_rounds)
    status = StatusFile(folder.path)
    with ExitStack() as observers_end:
        observers: list[Observer] = [status, terminal]
        if settings.wandb.mode != "disabled":
            observers.append(WandbTracker(settings, folder.path))
        for observer in observers:
            observers_end.callback(observer.close)
        try:
            rounds = run_session(experiment, federation, recorded, progress, observers, stop)
        except BaseException as error:
            is_ours = folder.is_ours
            if is_ours:
                progress.round_finished(folder.rounds.last_round)  # not one whose writing failed
            stopped = _as_stopped(error, progress, stop, folder.path)
            log.error("stopped: %s", str(stopped) or type(stopped).__name__, extra={"said_by_main": True})
            if is_ours:
                status.ended(stopped)
                if progress.rounds_done:
                    write_at_end(folder.path, settings.device)
            if stopped is error:
                raise
            raise stopped from error
        status.ended(None)
        write_at_end(folder.path, settings.device, rounds)
    return rounds


def _as_stopped(error: BaseException, progress: Progress, stop: StopRequest, folder: Path) -> BaseException:
    """Return what stopped a run as it is recorded: a signal, to this process or to all of its job, or the error."""
    if isinstance(error, KeyboardInterrupt):
        return _interrupted(progress)
    if not folder.is_dir():  # then clients find no examples, and nothing can be written: no client is to blame
        return RecordError(f"{folder} was removed while the run wrote there; the same command begins again", 1)
    if isinstance(error, ClusterLostError) and stop.signal:
        return RunStopped(
            f"stopped by {stop.signal}, which ended Ray as well, after round {progress.rounds_done} of "
            f"{progress.num_rounds}; the same command with resume=true goes on"
        )
    return error


def _interrupted(progress: Progress) -> RunStopped:
    """Return what SIGINT came to, with the exit status of a program that it ends."""
    done, of = progress.rounds_done, progress.num_rounds
    if done:
        said = f"interrupted after round {done} of {of}; the same command with resume=true goes on"
    else:
        said = f"interrupted before the first of {of} rounds was recorded; the same command begins again"
    return RunStopped(said, 130)
