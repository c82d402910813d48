"""The requested runs: their commands, settings and folders."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracefl.paper.runs import Overrides

if TYPE_CHECKING:
    from tracefl.records.settings import Settings


@dataclass(frozen=True)
class Job:
    """One run of a script.

    Attributes:
        index: Its place in the script's table, from 0: SLURM's array index.
        overrides: What follows ``tracefl run``, without what the user adds.
    """

    index: int
    overrides: Overrides

    @property
    def label(self) -> str:
        """A short name of the run: its choices, then its keys."""
        chosen = [override.partition("=") for override in self.overrides]
        return " ".join(value if key in _CHOICES else f"{_short(key)}={value}" for key, _, value in chosen)

    def all_overrides(self, extra: Sequence[str]) -> list[str]:
        """Return what follows ``tracefl run``, each key once: what the user adds wins, of that the last."""
        words = (*self.overrides, "resume=true", *extra)
        return list({word.partition("=")[0]: word for word in words}.values())

    def arguments(self, extra: Sequence[str]) -> list[str]:
        """Return the whole command's arguments, for the Python that runs this one."""
        return ["-m", "tracefl", "run", *self.all_overrides(extra)]

    def command(self, extra: Sequence[str]) -> str:
        """Return the command as a line for a shell."""
        return shlex.join(["tracefl", "run", *self.all_overrides(extra)])


def _short(key: str) -> str:
    """Return a key without its group, if no other group has it."""
    return key if key.startswith("fault.") else key.split(".")[-1]


_CHOICES = ("experiment", "model", "dataset", "fault")


@dataclass(frozen=True)
class Plan:
    """A job whose configuration is known.

    Attributes:
        job: The run.
        settings: Its configuration; this machine need not be able to run it.
    """

    job: Job
    settings: "Settings"

    @property
    def folder(self) -> Path:
        """Where the run writes its results."""
        return self.settings.folder


def plan_jobs(jobs: Sequence[Job], extra: Sequence[str]) -> list[Plan]:
    """Compose the jobs' configurations.

    Raises:
        ConfigError: An override does not compose, or a value is illegal; one line.
    """
    from tracefl.conf.composing import resolved_config  # --list and --count do not wait for Hydra and torch
    from tracefl.records.settings import read_keys

    return [Plan(job, read_keys(resolved_config(job.all_overrides(extra)))) for job in jobs]
