"""A real SLURM of one node, started and ended with the tests that submit to it."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.processes import PATIENCE, wait_until

HERE = Path(__file__).parent
PROGRAMS = ("sbatch", "srun", "slurmctld", "slurmd", "munged")


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


@pytest.fixture(scope="session")
def slurm():
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        message = f"no {', '.join(missing)} here: install slurm-wlm and munge"
        if os.environ.get("TRACEFL_REQUIRE_SLURM") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="tracefl-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        subprocess.run(["bash", HERE / "up.sh", folder], check=True, timeout=PATIENCE)
        yield Slurm({**os.environ, "PATH": f"{folder / 'bin'}:{path}", "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        subprocess.run(["bash", HERE / "down.sh", folder], timeout=PATIENCE, check=False)
        shutil.rmtree(folder, ignore_errors=True)
