"""The job scripts' command line: ``tracefl jobs NAME`` and what ``USAGE`` says."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tracefl.conf.tool import JSON, Grammar, answer_at_once, one_line_errors, program_help, read_arguments, say_help
from tracefl.errors import ConfigError
from tracefl.jobs.plan import Job, plan_jobs
from tracefl.paper.runs import EXTENDED, JOBS

_USAGE = "tracefl jobs NAME [INDEX] [--list | --count | --status | --smoke] [--extended] [--json] [key=value ...]"
_DOCUMENT = f"""The paper's experiments, and the runs of each: ``tracefl jobs NAME``, or the script of that name.

NAME is one of {", ".join(JOBS)}; what follows chooses among its runs:

    (nothing)     run all that are not complete, one after the other
    INDEX         only these: 3, or 0-5, or 0,2,8-11; from 0, as in sbatch
                  --array (SLURM_ARRAY_TASK_ID is used too)
    --list        print the command of every run
    --count       print how many there are
    --status      print which are done, running, failed, stopped and to do, and
                  the time left
    --smoke       run them in miniature, with data sets of the folder DATA_ROOT
                  where it holds them
    --extended    beside any of these: with the runs beyond the paper's, of
                  job_faulty_exps.sh

What follows is passed on to every run:

    device=cuda client_resources.gpus=0.1 'dataset.path=/data/${{dataset.name}}'

Give the same to --status. Runs go on where they stopped; begin again with resume=false overwrite=true.
--json prints what --list, --count and --status say as JSON.
"""
HELP_TEXT = program_help(_DOCUMENT, _USAGE)
ACTIONS = ("--list", "--count", "--status", "--smoke")
_SHOWN = ("--list", "--count", "--status")  # answers, rather than runs
GRAMMAR = Grammar(usage=_USAGE, flags=(*ACTIONS, "--extended", JSON), groups=None, first="INDEX", names=tuple(JOBS))


@dataclass(frozen=True)
class JobRequest:
    """A command line that has been read; ``action`` is one of ``ACTIONS``, or None to run; ``json``: it answers so."""

    name: str
    jobs: tuple[Job, ...]
    action: str | None
    extra: tuple[str, ...]
    json: bool = False


def main() -> None:
    """Run, list or show the runs of a job; bad input is one line and exit status 2."""
    arguments = sys.argv[1:]
    try:
        with one_line_errors():
            if answer_at_once(arguments, HELP_TEXT):
                return
            if not arguments:
                say_help(HELP_TEXT)
            status = carry_out(read_request(arguments, os.environ.get("SLURM_ARRAY_TASK_ID")))
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted\n")
        status = 130
    sys.exit(status)


def read_request(arguments: Sequence[str], array_index: str | None = None) -> JobRequest:
    """Read the command line.

    Args:
        arguments: The script's name, then what the user gave.
        array_index: SLURM's index of this task, used to run where no index is given.

    Raises:
        ConfigError: An argument is unknown, or an index is out of range.
    """
    name, *rest = arguments or [""]
    if name not in JOBS:
        raise ConfigError(f"unknown job {name!r}; choose one of {', '.join(JOBS)}")
    given = read_arguments(rest, GRAMMAR)
    if "--extended" in given.flags and name not in EXTENDED:
        raise ConfigError(f"--extended: job {name!r} has no more runs; only {', '.join(EXTENDED)} has")
    actions = given.picked(*ACTIONS)
    if len(actions) > 1:
        raise ConfigError(f"{' and '.join(actions)} are given; give one of them")
    action = actions[0] if actions else None
    if JSON in given.flags and action not in _SHOWN:
        raise ConfigError(f"--json goes with {', '.join(_SHOWN)}; give one of them, or leave it out")
    index = given.word or (None if action else array_index)
    runs = JOBS[name] + EXTENDED[name] if "--extended" in given.flags else JOBS[name]
    jobs = [Job(number, overrides) for number, overrides in enumerate(runs)]
    chosen = jobs if index is None else [jobs[number] for number in _numbers(index, len(jobs))]
    return JobRequest(name, tuple(chosen), action, tuple(given.overrides), JSON in given.flags)


def carry_out(request: JobRequest) -> int:
    """Carry out a request; returns the exit status."""
    if request.action == "--list":
        lines = [(job.index, job.command(request.extra)) for job in request.jobs]
        if request.json:
            sys.stdout.write(json.dumps([{"index": index, "command": command} for index, command in lines]) + "\n")
        else:
            sys.stdout.writelines(f"{command}\n" for _, command in lines)
        return 0
    if request.action == "--count":
        sys.stdout.write(f"{len(request.jobs)}\n")
        return 0
    if sys.stderr.isatty():  # the first word does not wait for libraries, and each configuration takes a moment
        sys.stderr.write(f"tracefl: reading the configuration of {len(request.jobs)} runs\n")
    from tracefl.jobs.execute import run_jobs  # these bring torch: --list and --count do not wait for it
    from tracefl.jobs.smoke import smoke
    from tracefl.jobs.status import show_status, states_as_json
    from tracefl.report.console import WIDE, table_console

    console = table_console(WIDE)
    plans = plan_jobs(request.jobs, request.extra)
    if request.action == "--status":
        if request.json:
            sys.stdout.write(json.dumps(states_as_json(plans)) + "\n")
        else:
            show_status(plans, console)
        return 0
    if request.action == "--smoke":
        return smoke(request.name, plans, request.extra, console)
    return run_jobs(plans, request.extra, console)


def _numbers(index: str, count: int) -> list[int]:
    """Return the numbers of ``0,2,8-11``, ascending."""
    numbers: set[int] = set()
    for part in index.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        last = int(match[2] or match[1]) if match else -1
        if match is None or not int(match[1]) <= last < count:
            raise ConfigError(f"index {index!r} is not among the runs 0 to {count - 1}")
        numbers.update(range(int(match[1]), last + 1))
    return sorted(numbers)


if __name__ == "__main__":
    main()
