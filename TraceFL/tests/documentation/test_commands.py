"""The commands and the Python of the README and of every page are run, from the pages themselves.

Each page has a folder in which its blocks are run in order, as a reader would run them. The last run there is one on
images, whose rounds are stored, and there is one of texts. ``tests/helpers/command_server.py`` says what is smaller
than it is typed, and ``tests/helpers/documented.py`` how a page marks what is not run.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.command_server import write_programs
from tests.helpers.configuration import REPOSITORY
from tests.helpers.documented import PAGES, blocks, commands_in_lines, unfenced_commands
from tests.helpers.processes import PATIENCE, wait_until

BLOCKS = [block for page in PAGES for block in blocks(page)]
pytestmark = pytest.mark.slow


def ids(page):
    return str(page.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A function that runs a script in a folder, by bash; its ``tracefl``, ``python`` ... answer within a moment."""
    programs = tmp_path_factory.mktemp("programs")
    address = programs / "socket"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "TraceFL"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.helpers.command_server", str(address)]
    write_programs(programs, address)

    def run(script, folder, check="run"):
        its = {**environment, "PATH": f"{programs}:{os.environ['PATH']}", "CHECK": check, "COLUMNS": "120"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=its,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=REPOSITORY / "TraceFL") as server:
        wait_until(lambda: address.exists() or server.poll() is not None)
        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def runs(shell, tmp_path_factory):
    """A folder with a run of the paper's, a text run and, the last one, an image run, with their rounds stored."""
    folder = tmp_path_factory.mktemp("runs")
    shell("tracefl run experiment=exp_1 num_rounds=1", folder)
    shell("tracefl run model=gpt dataset=synthetic_text num_clients=4 store=all", folder)
    shell("tracefl run store=all", folder)
    return folder


@pytest.fixture
def place(runs, tmp_path):
    """A page's folder: the checkout, runs, and a picture."""
    for path in REPOSITORY.iterdir():
        if not path.name.startswith(".") and path.name not in ("logs", "results", "site"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(runs / "logs", tmp_path / "logs", copy_function=os.link)  # files are replaced, never changed
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "digit.png")
    return tmp_path


def reader(place):
    """What a reader has: a model of four classes, three clients' weights, an input, and a run's folder."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    states = [{name: w + 0.3 * torch.randn_like(w) for name, w in model.state_dict().items()} for _ in range(3)]
    average = {name: sum(p * s[name] for p, s in zip((0.6, 0.15, 0.25), states, strict=True)) for name in states[0]}
    names = dict(zip(("state_a", "state_b", "state_c"), states, strict=True))
    (folder,) = (place / "logs" / "default").glob("resnet18-*")
    return {"model": model, "average": average, "x": torch.randn(1, 6), "folder": folder, **names}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=ids)
def test_what_a_page_says_to_type_can_be_typed(page, place, shell, monkeypatch):
    monkeypatch.chdir(place)
    names = reader(place)
    for block in blocks(page):
        if block.language == "python" and block.check == "run":
            exec(compile(block.text, str(block), "exec"), names)
        elif not block.check.startswith("none, "):
            shell(block.text, place, block.check)


@pytest.mark.parametrize("page", [page for page in PAGES if commands_in_lines(page)], ids=ids)
def test_a_command_within_a_line_can_be_typed(page, place, shell):
    for command in commands_in_lines(page):
        is_run = command.text.startswith("tracefl run")
        shell(command.text, place, "compose" if is_run else "run")


@pytest.mark.parametrize(
    ("command", "check"),
    [
        ("tracefl run num_rounds=ten", "run"),
        ("tracefl run client.epochs=0", "run"),
        ("tracefl trace lst", "run"),
        ("tracefl trace last | cat", "run"),
        ("tracefl run num_round=3", "compose"),
        ("tracefl run --multirun num_clients=3,2 clients_per_round=3", "compose"),
        ("python TraceFL/benchmarks/fidelity.py DATA OUT --nothing 3", "compose"),
        ("python TraceFL/benchmarks/nothing.py", "compose"),
        ("sbatch --nodes=2 job_cluster.sh num_client=3", "compose"),
        ("bash job_dp_exps.sh num_client=3", "compose"),
        ("make nothing", "run"),
    ],
)
def test_a_command_that_is_wrong_is_found(command, check, place, shell):
    (place / "logs").rename(place / "no")
    with pytest.raises(AssertionError):
        shell(command, place, check)


def test_every_mark_is_known_and_has_its_reason():
    for block in BLOCKS:
        assert block.check in ("run", "compose") or re.fullmatch("none, .{10,}", block.check), block
        assert block.language == "bash" or block.check != "compose", block


def test_most_is_run():
    count = Counter(block.check.split(",")[0] for block in BLOCKS)
    not_run = "\n".join(f"{block}: {block.check}" for block in BLOCKS if block.check != "run")
    assert count["none"] <= 19, not_run  # whoever adds one looks at what is there, and raises the number
    assert count["compose"] <= 37, not_run
    assert count["run"] >= 34


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_command_escapes_the_checks(page):
    assert unfenced_commands(page) == []
