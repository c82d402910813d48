"""``python -m tests.helpers.command_server SOCKET``: commands in processes forked from one that has imported all.

A page's commands are typed into bash, as a reader does, and a hundred cold starts would take minutes. So ``tracefl``,
``python``, ``make`` and ``sbatch`` on the PATH of that bash (``write_programs``) are small clients of this server:

- ``tracefl run``: the configuration is composed, and its settings are checked, as typed. Then, but for
  ``CHECK=compose``, it trains in miniature: a small model, small images, few examples and two rounds.
- ``tracefl`` is otherwise as typed.
- ``python TraceFL/benchmarks/NAME.py`` reads its arguments and stops there; without a parser it only has to exist.
- ``make TARGET`` says what it would do.
- ``sbatch SCRIPT`` and, with ``CHECK=compose``, ``bash job_NAME_exps.sh`` compose the runs that the script would make.
"""

import argparse
import contextlib
import functools
import io
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import tracefl.__main__
import tracefl.jobs.__main__
from tests.helpers.configuration import compose_config, once
from tests.helpers.fork_server import serve, write_program
from tracefl.conf.cli import prepare_overrides, refuse_repeated
from tracefl.experiment.settings import read_settings

_SIZES = {
    "resnet18": ("model.config.layers=[1,1,1,1]", "dataset.image_size=16"),
    "gpt": (
        *("model.pretrained=false", "model.config.n_layer=1", "model.config.n_embd=16", "model.config.n_head=2"),
        "dataset.max_tokens=12",
    ),
    "demo": (),  # small as it is
}
_FEW = (
    *("client.epochs=1", "dataset.max_examples_per_client=40", "dataset.max_server_examples=60"),
    "backend=in_process",
)


def write_programs(folder, address):
    """Write the clients of the server into a folder for the PATH."""
    for name in _DO:
        write_program(folder, name, address)


def main():
    """Serve until standard input closes."""
    from tracefl.jobs import preload  # noqa: F401 - what a run needs, once

    serve(sys.argv[1], {name: functools.partial(_do, do) for name, do in _DO.items()})


def _do(do, arguments, environment):
    do(arguments, environment.get("CHECK"))


def _tracefl(arguments, check):
    if arguments[:1] == ["run"] and not {"--help", "--version"} & set(arguments):
        _compose(arguments[1:])  # all that is typed, some of which the miniature replaces
        if check == "compose":
            return
        sys.argv[2:] = once(*sys.argv[2:], *_miniature(arguments))
    tracefl.__main__.main()


def _miniature(arguments):
    """Return what makes a run small; a size that is typed is left out of it."""
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    sizes = [
        size
        for size in _SIZES[given.get("model", "demo" if given.get("experiment") == "demo" else "resnet18")]
        if size.split("=")[0] not in given
    ]
    rounds = 7 if "mitigate" in given else 3 if "store" in given else 2  # as many as a decision, or a question, needs
    if int(given.get("num_rounds", 3)) > rounds:
        sizes.append(f"num_rounds={rounds}")
    if "fault" in given or given.get("experiment") == "demo":
        sizes.append("fault.min_examples=5")
    return (*sizes, *_FEW)


def _compose(arguments):
    """Check the configuration of a run; of a sweep, its first and its last."""
    words = [word for word in arguments if not word.startswith("--")]
    if "--multirun" not in arguments:
        _check(words)
        return
    swept = [word.partition("=") for word in words]
    _check([f"{key}={value.split(',')[0]}" if _is_swept(value) else f"{key}={value}" for key, _, value in swept])
    _check([f"{key}={value.split(',')[-1]}" if _is_swept(value) else f"{key}={value}" for key, _, value in swept])


def _is_swept(value):
    return "," in value and not value.startswith(("[", "{", "'", '"'))


def _check(words):
    """Check all keys; but for what is on another machine, such as a GPU, a cluster or a file."""
    refuse_repeated(words)
    compose_config(*prepare_overrides(words))
    elsewhere = ("device=cuda", "client_resources.gpus=", "ray.address=", "model.pretrained=/", "hydra.", "launcher=")
    read_settings(compose_config(*prepare_overrides([word for word in words if not word.startswith(elsewhere)])))


def _python(arguments, check):
    """Read a benchmark's arguments, or do what a job script asks."""
    if arguments[:3] == ["-m", "tracefl", "jobs"]:
        if check == "compose":
            _jobs(arguments[3:])
        else:
            sys.argv = arguments[1:]
            tracefl.__main__.main()
        return
    if arguments == ["-c", "import tracefl"]:
        return
    assert Path(arguments[0]).is_file(), arguments[0]
    if "argparse" not in Path(arguments[0]).read_text():
        return
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent))
    read = argparse.ArgumentParser.parse_known_args

    def parse_known_args(parser, *given):  # parse_args calls it too
        _, unknown = read(parser, *given)
        assert not [word for word in unknown if "=" not in word], unknown
        sys.exit(0)

    argparse.ArgumentParser.parse_known_args = parse_known_args
    runpy.run_path(arguments[0], run_name="__main__")
    raise AssertionError(f"{arguments[0]} read no arguments")


def _jobs(arguments):
    """List a job script's runs, and check the first and the last."""
    said = io.StringIO()
    sys.argv = ["jobs", *(word for word in arguments if word not in ("--list", "--smoke")), "--list"]
    try:
        with contextlib.redirect_stdout(said):
            tracefl.jobs.__main__.main()
    except SystemExit as stop:
        if stop.code:
            raise
    runs = [shlex.split(line) for line in said.getvalue().splitlines()]
    for run in (runs[0], runs[-1]):
        assert run[:2] == ["tracefl", "run"], run
        _check(run[2:])


def _make(arguments, check):
    sys.exit(subprocess.run(["/usr/bin/make", "--dry-run", *arguments], check=False).returncode)


def _sbatch(arguments, check):
    """Compose what a script is to run."""
    script = next(position for position, word in enumerate(arguments) if not word.startswith("-"))
    name, given = arguments[script], arguments[script + 1 :]
    assert Path(name).is_file(), name
    if name == "job_cluster.sh":
        _compose(given)
    else:
        sys.exit(subprocess.run(["bash", name, *given], check=False).returncode)


_DO = {"tracefl": _tracefl, "python": _python, "make": _make, "sbatch": _sbatch}

if __name__ == "__main__":
    main()
