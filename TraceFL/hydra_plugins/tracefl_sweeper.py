"""``--multirun``: every combination of the comma-separated values, on the chosen launcher.

Hydra's own sweeper stops at the first failed run and does not report the others; this one names each before it begins,
and ends with a table of all. Hydra finds plugins only in this package.
"""

import shutil
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tracefl.errors import ConfigError, Failure, SweepError, one_line


class Sweeper(BasicSweeper):
    """Launches all runs, even after one has failed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the launcher.

        Raises:
            ConfigError: The launcher cannot be used as configured.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if config.dry_run:  # what would run is printed here, and nothing is submitted
            self.launcher = BasicLauncher()
            self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        elif _launcher_of(config) == "SlurmLauncher":
            _check_slurm(config.hydra.launcher)
        if not isinstance(config.runs_at_once, int) or config.runs_at_once < 1:
            raise ConfigError(f"runs_at_once must be a whole number of at least 1, got {config.runs_at_once!r}")

    def sweep(self, arguments: list[str]) -> None:
        """Run all combinations.

        Raises:
            SweepError: Runs failed; each has been named on stderr.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        runs = [run for batch in batches for run in batch]
        common = set.intersection(*map(set, runs))
        varied = [[override for override in run if override not in common] for run in runs]
        for batch in batches:
            self.validate_batch_is_legal(batch)  # refuses an unknown group or key before any run
        launcher = _launcher_of(self.config)
        if launcher in ("SlurmLauncher", "LocalLauncher") and not self.config.dry_run:
            _say(f"{len(runs)} runs; the log of each is in {self.config.hydra.sweep.dir}/.submitit")
        if isinstance(self.launcher, BasicLauncher):
            batches = [[run] for run in runs]
        outcomes: list[Any] = []
        try:
            for batch in batches:
                first = len(outcomes)
                for number in range(first, first + len(batch)):
                    _say(f"run {number + 1} of {len(runs)}: {' '.join(varied[number]) or 'as configured'}")
                outcomes += self._launch(batch, first)
                for number, outcome in enumerate(outcomes[first:], first):
                    if isinstance(outcome, Failure):
                        which = f"run {number + 1} of {len(runs)} ({' '.join(varied[number]) or 'as configured'})"
                        sys.stderr.write(f"tracefl: {which}: {outcome.message}\n")
                if launcher == "JoblibLauncher":
                    _end_workers()
        finally:
            if outcomes and not self.config.dry_run:
                from tracefl.report.sweep import show_sweep

                show_sweep(varied, outcomes)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if failures:
            raise SweepError(f"{len(failures)} of {len(runs)} runs failed", failures[0].exit_status)

    def _launch(self, batch: list[list[str]], first: int) -> list[Any]:
        """Run a batch and return what its jobs returned."""
        # Imported here, because Hydra imports its plugins at every start.
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        assert self.launcher is not None
        try:
            return [job.return_value for job in self.launcher.launch(batch, initial_job_idx=first)]
        except (UncompletedJobError, FailedSubmissionError, BrokenProcessPool) as error:
            reason = one_line(error)
            raise SweepError(
                f"the launcher failed; the same command runs what is not complete: {reason[:500]}"
            ) from error


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _launcher_of(config: DictConfig) -> str:
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def _check_slurm(options: DictConfig) -> None:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError("launcher=slurm, and this machine has no sbatch; use another launcher, or a login node")
    if options.timeout_min * 60 <= options.signal_delay_s:
        raise ConfigError(
            f"hydra.launcher.timeout_min={options.timeout_min} is within hydra.launcher.signal_delay_s="
            f"{options.signal_delay_s} seconds, so runs would be stopped at once; raise the one or lower the other"
        )


def _end_workers() -> None:
    """End joblib's processes: a further run in one of them would keep the GPUs of the previous run."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
