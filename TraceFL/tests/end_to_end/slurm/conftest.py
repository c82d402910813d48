"""A real SLURM of one node, started and ended with the tests that submit to it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.helpers.processes import PATIENCE
from tests.helpers.slurm import Slurm

HERE = Path(__file__).parent
PROGRAMS = ("sbatch", "srun", "slurmctld", "slurmd", "munged")


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
