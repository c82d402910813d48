import logging

import pytest
from rich.console import Console

from tests.helpers.made_page import make_run, result, traced_input
from tracefl.records.progress import Progress
from tracefl.report.terminal import Terminal, columns_key, rounds_table, show_run, terminal_lines


def test_a_round_is_one_short_line_on_the_terminal_and_whole_in_the_log(capsys, caplog):
    console = Console(width=80)
    caplog.set_level(logging.INFO)
    with terminal_lines(console), Terminal(console) as terminal:
        terminal.run_started(Progress(4))
        terminal.round_started(1, ("0", "2"))
        terminal.round_finished(result(1, [traced_input(0)]))
    (shown,) = capsys.readouterr().out.splitlines()
    assert shown == "round 1 of 4: accuracy 50.0%, 1 predictions traced, 2s"
    assert "round=1/4 accuracy=50.0% loss=1.5000 localization=100.0% chance=33.3%" in caplog.messages[-1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_of_the_log_is_wrapped_on_a_terminal_and_stays_one_line_in_a_file(capsys, is_terminal):
    message = "labels with few examples dropped " * 4
    with terminal_lines(Console(width=80, force_terminal=is_terminal, color_system=None)):
        logging.getLogger("tracefl.test").warning(message)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == (2 if is_terminal else 1)
    assert " ".join(shown) == f"warning: {message}"[: None if not is_terminal else -1]


def test_the_columns_of_a_table_are_explained_as_they_were_measured():
    holders = columns_key(seeks_faulty=False, knows_faulty=False).plain
    assert "holds its class" in holders
    assert "top holder" in holders
    assert max(map(len, holders.splitlines())) <= 80
    faulty = columns_key(seeks_faulty=True, knows_faulty=True).plain
    assert "is faulty" in faulty
    assert "top holder" not in faulty


def test_the_widest_round_fits_80_columns(capsys):
    whole = dict.fromkeys(("global_accuracy", "localization_accuracy", "chance_accuracy", "top_holder_accuracy"), 1.0)
    row = {
        **whole,
        **{"round": 1000, "clients_dropped": 1, "counterfactual_agreement": 1.0, "counterfactual_correlation": -0.99},
        **{"inputs_traced": 150, "train_seconds": 9999.9, "provenance_seconds": 999.99},
    }
    Console(width=80).print(rounds_table([row], "a run"))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(word in shown for word in ("1000*", "100.0% (100.0%)", "10000", "1000"))


def test_where_nobody_is_known_to_be_faulty_no_column_says_so(tmp_path, capsys):
    rounds = [result(1, [traced_input(0, 1, 0, expected=())])]
    show_run(Console(width=80), rounds, make_run(tmp_path, rounds, "provenance.inputs=mispredicted"))
    shown = capsys.readouterr().out
    assert "agreement      how often" in shown
    for words in ("is faulty", "localization   how often", "(chance)       how often", "top holder  "):
        assert words not in shown


def test_a_run_ends_in_its_answer_and_what_to_type_next_within_80_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / "logs"
    logs.mkdir()
    folder = make_run(logs, [result(1, [traced_input(0)])]).relative_to(tmp_path)
    show_run(Console(width=80), [result(1, [traced_input(0)])], folder)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "After round 1 the model is right on 50.0% of 4 test images." in lines
    assert lines[-1].endswith("ledger last")
    show_run(Console(width=80), [result(1)], folder)
    assert "localization   how often" not in capsys.readouterr().out  # nothing was traced
