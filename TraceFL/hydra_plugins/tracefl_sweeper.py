"""``--multirun``: every combination of the comma-separated values, on the chosen launcher.

Hydra's own sweeper stops at the first failed run and does not report the others; this one names each. Hydra finds
plugins only in this package.
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
        runs = sum(len(batch) for batch in batches)
        common = set.intersection(*(set(run) for batch in batches for run in batch))
        for batch in batches:
            self.validate_batch_is_legal(batch)  # refuses an unknown group or key before any run
        launcher = _launcher_of(self.config)
        if launcher in ("SlurmLauncher", "LocalLauncher") and not self.config.dry_run:
            sys.stdout.write(f"{runs} runs; the log of each is in {self.config.hydra.sweep.dir}/.submitit\n")
            sys.stdout.flush()
        failures: list[Failure] = []
        done = 0
        for batch in batches:
            for number, result in enumerate(self._launch(batch, done), done + 1):
                if isinstance(result, Failure):
                    failures.append(result)
                    swept = " ".join(o for o in batch[number - done - 1] if o not in common)
                    sys.stderr.write(f"tracefl: run {number} of {runs} ({swept}): {result.message}\n")
            done += len(batch)
            if launcher == "JoblibLauncher":
                _end_workers()
        if failures:
            raise SweepError(f"{len(failures)} of {runs} runs failed", failures[0].exit_status)

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
