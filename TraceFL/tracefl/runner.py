"""A run as a user sees it: its folder, its log, its lines in the terminal, its table at the end."""

import logging
import shutil
import time
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from tracefl.config import Settings
from tracefl.errors import TraceFLError
from tracefl.experiment import Experiment, prepare_run
from tracefl.observer import Observer
from tracefl.report.terminal import Terminal, show_run
from tracefl.tracking import RunFolder, RunLog, terminal_lines
from tracefl.wandb_tracking import WandbTracker

log = logging.getLogger(__name__)


def run_settings(settings: Settings) -> None:
    """Run one configuration and show it; a run that is already complete is shown again, not run again.

    Raises:
        TraceFLError: Bad input, or a run that failed; run.log then says the same.
    """
    console = Console()
    config = settings.config
    path = Path(config["log_dir"]).expanduser() / config["exp_key"] / settings.run_name
    if config["dry_run"]:
        console.print(OmegaConf.to_yaml(OmegaConf.create(dict(config))), highlight=False, markup=False)
        console.print(f"would run in {path}", soft_wrap=True, highlight=False)
        return
    folder = RunFolder(path, settings)
    if folder.is_complete and not config["overwrite"]:
        show_run(console, [result.row for result in folder.results()], path)
        console.print("already complete, nothing was run; overwrite=true runs it again")
        return
    with terminal_lines(console), RunLog() as run_log, Terminal(console) as terminal:
        log.info("preparing %s", settings.run_name)
        began = time.perf_counter()
        prepared = prepare_run(settings)
        folder.begin()
        run_log.open(path / "run.log")
        log.info("%d clients can take part; prepared in %.1fs", len(prepared.data.clients), time.perf_counter() - began)
        observers: list[Observer] = [terminal]
        try:
            if config["wandb"]["mode"] != "disabled":
                observers.append(WandbTracker(config, path))
            Experiment(settings, prepared, folder, tuple(observers)).run()
        except TraceFLError as error:
            log.error("stopped: %s", error, extra={"said_by_main": True})
            raise
        finally:
            for observer in observers:
                observer.close()
            shutil.rmtree(folder.work, ignore_errors=True)
    show_run(console, [result.row for result in folder.results()], path)
