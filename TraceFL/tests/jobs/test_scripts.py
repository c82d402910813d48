"""The job scripts: what becomes of indices, of runs that fail or are stopped, and the scripts themselves."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.configuration import REPOSITORY
from tests.helpers.finished import finish
from tests.helpers.job_scripts import COUNTS, listed
from tests.helpers.tables import read_csv
from tracefl.conf.composing import resolved_config
from tracefl.errors import ConfigError
from tracefl.jobs.__main__ import read_request
from tracefl.jobs.execute import run_jobs
from tracefl.jobs.miniature import miniature
from tracefl.jobs.plan import Job, plan_jobs
from tracefl.jobs.status import seconds_left, summary
from tracefl.paper.runs import JOBS
from tracefl.records.settings import read_keys
from tracefl.records.status import RunState

SCRIPTS = {
    "training": "job_training_all_exps.sh",
    "dp": "job_dp_exps.sh",
    "scalability": "job_scalability_exps.sh",
    "dirichlet": "job_dirichlet_exps.sh",
    "faulty": "job_faulty_exps.sh",
}


def test_local_data_is_used_where_there_is_some(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-0.parquet").write_bytes(b"")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "pathmnist.npz").write_bytes(b"")
    names = ("mnist", "cifar10", "pathmnist", "organamnist")
    mnist, cifar10, pathmnist, organamnist = (read_keys(resolved_config([f"dataset={name}"])) for name in names)
    assert f'dataset.path="{tmp_path / "mnist"}"' in miniature(mnist, tmp_path)[0]
    assert "dataset=digits" in miniature(cifar10, tmp_path)[0]
    assert f'dataset.root="{tmp_path}"' in miniature(pathmnist, tmp_path)[0]
    assert "dataset=digits" in miniature(organamnist, tmp_path)[0]


def test_what_the_user_adds_comes_last_and_survives_the_shell(jobs):
    command = listed(jobs, "training", "0", "device=cuda", "dataset.path=/my data/${dataset.name}")[0]
    assert command[-3:] == ["resume=true", "device=cuda", "dataset.path=/my data/${dataset.name}"]


def test_what_the_user_adds_wins_and_each_key_is_given_once(jobs):
    (own,) = listed(jobs, "training", "0")
    (command,) = listed(jobs, "training", "0", "resume=false", "dirichlet_alpha=7")
    keys = [word.partition("=")[0] for word in command[2:]]
    assert len(keys) == len(set(keys)) == len(own[2:])
    assert {"resume=false", "dirichlet_alpha=7"} == set(command) - set(own)


def test_json_of_what_is_listed(jobs):
    lines = listed(jobs, "training", "2-3", "device=cuda")
    status, out, err = jobs("training", "2-3", "device=cuda", "--list", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == [{"index": 2 + i, "command": shlex.join(line)} for i, line in enumerate(lines)]
    assert json.loads(jobs("training", "--count", "--json")[1]) == 36


@pytest.mark.parametrize(
    ("index", "indices"), [("3", [3]), ("0-2", [0, 1, 2]), ("9,0,2-3", [0, 2, 3, 9]), (None, list(range(10)))]
)
def test_an_index_chooses(index, indices):
    arguments = ["scalability", *([index] if index else [])]
    assert [job.index for job in read_request(arguments).jobs] == indices


def test_slurm_s_array_index_chooses_what_runs_but_not_what_is_listed():
    assert [job.index for job in read_request(["dp"], "37").jobs] == [37]
    assert [job.index for job in read_request(["dp", "4"], "37").jobs] == [4]
    assert len(read_request(["dp", "--list"], "37").jobs) == 38
    with pytest.raises(ConfigError, match="index '38' is not among the runs 0 to 37"):
        read_request(["dp"], "38")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainings"], "unknown job 'trainings'; choose one of training, dp"),
        (["training", "--json"], "--json goes with --list, --count, --status; give one of them, or leave it out"),
        (["training", "36"], "index '36' is not among the runs 0 to 35"),
        (["training", "5-3"], "index '5-3'"),
        (["training", "1-"], "index '1-'"),
        (["training", "--all"], "unknown argument '--all'"),
        (["training", "--list", "--count"], "--list and --count are given; give one of them"),
        (["training", "1", "2"], "unknown argument '2'"),
        (["training", "--extended"], "--extended: job 'training' has no more runs; only faulty has"),
        (["faulty", "18"], "index '18' is not among the runs 0 to 17"),
        (["faulty", "66", "--extended"], "index '66' is not among the runs 0 to 65"),
        (["training", "fast"], "index 'fast' is not among the runs 0 to 35"),
        (["training", "0", "num_client=3"], "did you mean 'num_clients'"),
        (["training", "--num-rounds", "3"], "keys are given as key=value: num_rounds=3"),
        (["training", "num_rounds", "3"], "keys are given as key=value: num_rounds=3"),
        (["training", "fault.flip={1:", "0}"], "put quotes around it: 'fault.flip={1: 0}'"),
        (["training", "--status", "dataset=minst"], "did you mean 'mnist'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(jobs, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = jobs(*arguments)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("tracefl: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_data_root_must_be_a_folder(jobs, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", "/no/such/folder")
    status, _, err = jobs("training", "0", "--smoke")
    assert status == 2
    assert err.startswith("tracefl: DATA_ROOT='/no/such/folder' is not a folder; give one")


def status_of(plan, state, rounds_done, seconds, a_round=None, error=None):
    """Write what a run of this state leaves."""
    plan.folder.mkdir(parents=True)
    (plan.folder / "config.yaml").write_text("")
    content = {
        "state": state,
        "rounds_done": rounds_done,
        "num_rounds": plan.settings.num_rounds,
        "seconds": seconds,
        "seconds_a_round": a_round,
        "updated": time.time(),
        "error": error,
    }
    (plan.folder / "status.json").write_text(json.dumps(content))
    if state == "done":
        finish(plan.folder, plan.settings.num_rounds, seconds=seconds)


def test_status_of_made_folders(jobs, tmp_path):
    first = [Job(number, overrides) for number, overrides in enumerate(JOBS["training"][:4])]
    plans = plan_jobs(first, [f"log_dir={tmp_path}"])
    status_of(plans[0], "done", 50, 1000.0)
    status_of(plans[1], "done", 50, 1400.0)
    status_of(plans[2], "stopped", 10, 300.0, a_round=30.0)
    status_of(plans[3], "failed", 1, 30.0, error="the disk is full")
    status, out, _ = jobs("training", "--status", f"log_dir={tmp_path}")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "done" in lines["0"]
    assert "50/50" in lines["0"]
    assert "stopped" in lines["2"]
    assert "10/50" in lines["2"]
    assert "20m" in lines["2"]  # 40 rounds of 30 s
    assert "the disk is full" in lines["3"]
    assert "20m" in lines["4"]  # to do, as the mean of 1000 and 1400 s of done ones of its model and rounds
    assert lines["6"].split()[-2:] == ["-", "-"]  # nothing is known of densenet121 yet
    # left: runs 2, 3, 4 and 5 take 1200 s each
    assert "36 runs: 2 done, 0 running, 1 failed, 1 stopped, 32 to do; left, one after the other: 1h20m" in out
    assert "and 30 runs that nothing is known of" in out
    told = json.loads(jobs("training", "0-6", "--status", "--json", f"log_dir={tmp_path}")[1])
    assert [(each["index"], each["state"], each["rounds_done"], each["seconds_left"]) for each in told] == [
        *[(0, "done", 50, 0.0), (1, "done", 50, 0.0), (2, "stopped", 10, 1200.0), (3, "failed", 1, 1200.0)],
        *[(4, "to do", 0, 1200.0), (5, "to do", 0, 1200.0), (6, "to do", 0, None)],
    ]
    assert (told[3]["error"], told[0]["run"]) == ("the disk is full", str(plans[0].folder))


def test_time_left_by_hand():
    commands = (["num_rounds=5", f"model={name}"] for name in ("resnet18", "resnet34"))
    a, b = (read_keys(resolved_config(command)) for command in commands)
    states = [
        RunState("done", 5, 5, 100.0, 0.0),
        RunState("running", 2, 5, 50.0, 70.0),
        RunState("to do", 0, 5),
        RunState("to do", 0, 5),
    ]
    left = seconds_left([a, a, a, b], states)
    assert left == [0.0, 70.0, 100.0, None]
    assert summary(states, left).endswith("one after the other: 3m, and 1 run that nothing is known of")
    assert summary(states[2:], [None, None]).endswith("one after the other: -")
    assert summary(states[:1], [0.0]).endswith("one after the other: 0s")


def plans_of(tmp_path, *overrides):
    """Plan one run of the real table for each group of overrides."""
    return [
        plan_jobs([Job(index, ("experiment=smoke", f"run_name=run-{index}", f"log_dir={tmp_path}", *each))], [])[0]
        for index, each in enumerate(overrides)
    ]


@pytest.mark.slow
@pytest.mark.simulation
def test_a_failed_run_does_not_stop_the_rest_and_complete_ones_are_skipped(tmp_path, capfd):
    small = ("model.config.layers=[1,1,1,1]", "total_cpus=1", "dataset.max_examples_per_client=32")
    plans = plans_of(tmp_path, (), ("clients_per_round=99",), small)
    status_of(plans[0], "done", 1, 5.0)
    assert run_jobs(plans, [], Console(width=150)) == 1
    out, err = capfd.readouterr()
    assert "[1/3] run 0: complete already: skipped" in out
    assert "[2/3] run 1: FAILED" in out
    assert "exit status 2" in out
    assert "clients_per_round=99 is above num_clients=3" in err
    assert "[3/3] run 2: done" in out
    assert out.strip().endswith("3 runs: 1 done, 1 skipped, 1 failed (runs 1)")
    assert (plans[2].folder / "results.json").exists()
    assert run_jobs(plans[2:], [], Console(width=150)) == 0
    assert "1 run: 0 done, 1 skipped, 0 failed" in capfd.readouterr().out


PLAN = """
import sys
from rich.console import Console
from tracefl.jobs import execute
from tracefl.conf.composing import resolved_config
from tracefl.jobs.plan import Job, Plan
from tracefl.records.settings import read_keys

class Stub(Job):
    def arguments(self, extra):
        return ["-c", *self.overrides]

commands = [[f"exp_key=run{i}", "log_dir=none"] for i in range(len(sys.argv) - 1)]
settings = (read_keys(resolved_config(command)) for command in commands)
plans = [Plan(Stub(i, (code,)), each) for i, (code, each) in enumerate(zip(sys.argv[1:], settings))]
sys.exit(execute.run_jobs(plans, [], Console(width=150)))
"""
WAIT = """
import signal, sys, time
def hear(number, frame):
    heard.append(number)
heard = []
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, hear)
print("ready", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.3)  # a second delivery would be heard too
print("heard", *heard, flush=True)
sys.exit({status})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_stops_the_script(number):
    codes = [WAIT.format(status=75), "print('never')"]
    with subprocess.Popen(
        [sys.executable, "-c", PLAN, *codes], stdout=subprocess.PIPE, text=True, process_group=0
    ) as script:
        lines = iter(script.stdout)
        assert any(line.strip() == "ready" for line in lines)
        os.killpg(script.pid, number)  # to the whole group, as a terminal or `timeout` sends it
        rest = [line.strip() for line in lines]
    assert f"heard {int(number)}" in rest
    assert "never" not in rest
    assert script.returncode == (130 if number == signal.SIGINT else 75)


def test_a_run_that_says_stopped_stops_the_script():
    script = subprocess.run(
        [sys.executable, "-c", PLAN, "import sys; sys.exit(75)", "print('never')"], capture_output=True, text=True
    )
    assert script.returncode == 75
    assert "stopped at run 0; the same command goes on" in script.stdout
    assert "never" not in script.stdout.splitlines()


def test_the_exit_status_counts_the_failed_to_100():
    codes = ["raise SystemExit(1)"] * 3 + ["import os; os.kill(os.getpid(), 9)"]
    script = subprocess.run([sys.executable, "-c", PLAN, *codes, "pass"], capture_output=True, text=True)
    assert script.returncode == 4
    assert "with signal 9" in script.stdout
    assert "5 runs: 0 done, 0 running, 0 failed, 0 stopped, 5 to do; left, one after the other: -" in script.stdout
    assert script.stdout.strip().endswith("5 runs: 1 done, 0 skipped, 4 failed (runs 0, 1, 2, 3)")


@pytest.fixture
def shell(tmp_path):
    """Call a script as a user would, from a folder; returns the finished process."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def call(script, *arguments, cwd=REPOSITORY, **more):
        command = ["bash", str(script), *arguments]
        return subprocess.run(command, cwd=cwd, env=environment | more, capture_output=True, text=True)

    return call


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_list_and_count(shell, name):
    script = REPOSITORY / SCRIPTS[name]
    assert shell(script, "--count").stdout == f"{COUNTS[name]}\n"
    assert f"sbatch --array=0-{COUNTS[name] - 1}%4 {script.name}" in script.read_text()
    assert len(shell(script, "--list", "seed=1").stdout.splitlines()) == COUNTS[name]


def test_the_faulty_script_s_extended_runs(shell):
    script = REPOSITORY / SCRIPTS["faulty"]
    assert shell(script, "--extended", "--count").stdout == "66\n"
    assert f"sbatch --array=0-65%4 {script.name} --extended" in script.read_text()
    (line,) = shell(script, "--list", "18", "--extended").stdout.splitlines()
    assert "dataset=organamnist" in line
    assert "fault.share=0.1" in line


def test_a_copy_of_a_script_works_from_the_checkout_and_refuses_elsewhere(shell, tmp_path):
    copy = shutil.copy(REPOSITORY / "job_dp_exps.sh", tmp_path / "slurm_script")  # as sbatch runs it
    assert shell(copy, "--count").stdout == "38\n"
    refused = shell(copy, "--count", cwd=tmp_path)
    assert refused.returncode == 2
    assert (
        refused.stderr
        == f"tracefl: {tmp_path} is not TraceFL's checkout; cd there first, or give sbatch --chdir=CHECKOUT\n"
    )


def test_a_script_passes_on_the_exit_status(shell):
    refused = shell(REPOSITORY / "job_dp_exps.sh", SLURM_ARRAY_TASK_ID="99")
    assert refused.returncode == 2
    assert refused.stderr == "tracefl: index '99' is not among the runs 0 to 37\n"


def test_every_shell_script_is_clean():
    places = [path for path in REPOSITORY.rglob("*.sh") if ".venv" not in path.parts]
    assert len(places) >= 5
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "-x", *places, ".ci/run"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.simulation
def test_miniatures_run_and_a_failing_one_is_named(shell, tmp_path):
    script = REPOSITORY / "job_scalability_exps.sh"
    done = shell(script, "0,8", "--smoke", f"log_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[synthetic_text in place of dbpedia_14]" in done.stdout
    assert "2 runs in miniature: 2 worked, 0 failed" in done.stdout
    assert done.stderr == ""
    for index in (0, 8):
        (results,) = (tmp_path / "smoke" / "scalability" / str(index)).glob("table3/*/results.json")
        assert json.loads(results.read_text())["rounds"] == 2
        assert list(results.parent.glob("rounds/0002/weights/update-*.safetensors"))
    failed = shell(script, "9", "--smoke", f"log_dir={tmp_path}", "provenance.layers=[nowhere]")
    assert failed.returncode == 1
    assert "layer 'nowhere' does not exist" in failed.stdout
    assert not (tmp_path / "smoke" / "scalability" / "0").exists()  # written anew


@pytest.mark.slow
@pytest.mark.simulation
def test_a_fault_s_miniature_has_mispredictions_for_the_rules_to_look_at(shell, tmp_path):
    done = shell(REPOSITORY / "job_faulty_exps.sh", "0", "--smoke", f"log_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (suspects,) = (tmp_path / "smoke" / "faulty" / "0").glob("table1/*/suspects.csv")
    rows = [row for row in read_csv(suspects) if int(row["inputs"])]
    assert {"provenance", "feddebug", "krum", "own_logit"} <= {row["rule"] for row in rows if row["seconds"]}
