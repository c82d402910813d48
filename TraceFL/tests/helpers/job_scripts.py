"""The job scripts' lists."""

import shlex

COUNTS = {"training": 36, "dp": 38, "scalability": 10, "dirichlet": 60, "faulty": 18}


def listed(jobs, name, *arguments):
    status, out, err = jobs(name, "--list", *arguments)
    assert (status, err) == (0, "")
    return [shlex.split(line) for line in out.splitlines()]
