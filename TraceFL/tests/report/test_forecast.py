"""What dry_run=true says."""

from dataclasses import replace
from pathlib import Path

import pytest

from tracefl.report.forecast import Forecast, Work, forecast_lines

NEW = Forecast(Path("logs/default/run"), "resnet18", "digits", 10, 3, 0, False, False, "last", 30_000_000_000)
WORK = Work(
    examples=1332,
    clients=9,
    participants=4,
    parameters=11_180_000,
    backend="backend=in_process: there is room for one client at a time",
    training_seconds=46.4,
    server_bytes=2_500_000_000,
    client_bytes=179_100_000,
    clients_at_once=1,
    disk_bytes=587_100_000,
    kept_bytes=269_700_000,
)


def test_a_new_run_is_said_in_one_line_a_fact():
    assert list(forecast_lines(replace(NEW, work=WORK))) == [
        "would run in logs/default/run",
        "state     new",
        "clients   4 a round, of 9 that can take part (10 share 1,332 training examples of digits); 3 rounds",
        "model     resnet18, 11.18 million parameters",
        "backend   in_process: there is room for one client at a time",
        "time      roughly 46s of training, by one forward pass timed just now; "
        "start, evaluation and tracing come on top",
        "memory    up to 2.5 GB in the server, 179.1 MB in each client that trains (1 at once); "
        "activations and about 1 GB of libraries a process come on top",
        "disk      587.1 MB at most, 269.7 MB of it kept with store=last, 30.0 GB are free; "
        "tables and the report come on top",
    ]


@pytest.mark.parametrize(
    ("goes_on", "end"), [(True, "2 of 3 rounds recorded; goes on"), (False, "; begins again, resume=true goes on")]
)
def test_an_unfinished_run(goes_on, end):
    lines = list(forecast_lines(replace(NEW, rounds_done=2, goes_on=goes_on, work=WORK)))
    assert lines[1].startswith("state     unfinished, 2 of 3 rounds recorded")
    assert lines[1].endswith(end)


def test_what_is_overwritten_does_not_go_on():
    lines = list(forecast_lines(replace(NEW, rounds_done=3, overwrites=True, work=WORK)))
    assert lines[1] == "state     3 of 3 rounds recorded; begins again, as overwrite=true says"


def test_a_complete_run_would_not_run():
    (line,) = forecast_lines(replace(NEW, is_complete=True))
    assert line == "would run nothing: logs/default/run is complete; overwrite=true runs it again"


def test_what_cannot_be_known_is_said():
    *_, last = forecast_lines(replace(NEW, missing="digits is not on this machine"))
    assert last == "unknown   time, memory and disk: digits is not on this machine"
