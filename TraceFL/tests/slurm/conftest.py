"""A real SLURM of one node, started and ended with the tests that submit to it."""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("sbatch", "srun", "slurmctld", "slurmd", "munged")


@dataclass
class Slurm:
    """A running SLURM: the environment that its commands need."""

    env: dict[str, str]

    def ask(self, *command, cwd=None):
        """Run one of SLURM's commands and return what it printed."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60)
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

    def wait(self, job, seconds=300):
        """Wait until no task of a job waits or runs; returns its states."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            states = self.states(job)
            if not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"} & set(states.values()):
                return states
            time.sleep(0.5)
        self.ask("scancel", job)
        raise AssertionError(f"job {job} did not end within {seconds} s: {states}")


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
        subprocess.run(["bash", HERE / "up.sh", folder], check=True, timeout=60)
        yield Slurm({**os.environ, "PATH": f"{folder / 'bin'}:{path}", "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        subprocess.run(["bash", HERE / "down.sh", folder], timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)
