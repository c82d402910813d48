"""A SLURM that runs on this machine, and its commands."""

import subprocess
from dataclasses import dataclass

from tests.helpers.processes import PATIENCE, wait_until


@dataclass
class Slurm:
    """A running SLURM: the environment that its commands need."""

    env: dict[str, str]

    def ask(self, *command, cwd=None):
        """Run one of SLURM's commands and return what it printed."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments, cwd):
        """Submit a job and return its id."""
        return self.ask("sbatch", "--parsable", *map(str, arguments), cwd=cwd)

    def states(self, job):
        """Return the states of a job's tasks, by task number; of a plain job by None."""
        found = {}
        for line in self.ask("scontrol", "-o", "show", "job", job).splitlines():
            fields = dict(field.split("=", 1) for field in line.split() if "=" in field)
            found[fields.get("ArrayTaskId")] = fields["JobState"]
        return found

    def wait(self, job):
        """Wait until no task of a job waits or runs; returns its states."""
        unfinished = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}
        wait_until(lambda: not unfinished & set(self.states(job).values()), lambda: f"job {job}: {self.states(job)}")
        return self.states(job)
