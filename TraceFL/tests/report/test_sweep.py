"""The table at the end of a sweep."""

from rich.console import Console

from tests.helpers.finished import finish
from tests.helpers.tables import whole_row
from tracefl.errors import Failure
from tracefl.records.checksums import seal
from tracefl.report.sweep import sweep_table


def finished(folder, accuracy, localization, seconds):
    folder.mkdir()
    final = {"global_accuracy": accuracy, "localization_accuracy": localization, "chance_accuracy": 0.25}
    finish(folder, 1, final=whole_row(round=1, **final), seconds=seconds)
    return folder


def test_one_row_a_run_by_what_varies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = [
        finished(tmp_path / "first", 0.5, 0.75, 41.2).relative_to(tmp_path),
        Failure("clients_per_round=9 is above num_clients=5; lower it", 2),
        finished(tmp_path / "third", 0.625, None, 7300).relative_to(tmp_path),
    ]
    varied = [["seed=1", "model=gpt"], ["seed=2", "clients_per_round=9"], ["seed=3", "fault.flip={1: 0}"]]
    console = Console(width=150, record=True)
    console.print(sweep_table([*varied, ["seed=4"]], outcomes))  # the fourth did not begin
    _, head, rule, *rows = [line.rstrip() for line in console.export_text().splitlines() if line.strip()]
    columns = "run seed model clients_per_round fault.flip accuracy (chance) time folder, or what stopped it"
    assert " ".join(head.split()) == columns
    assert set(rule.strip()) == {"─"}
    assert [" ".join(row.split()) for row in rows] == [
        "1 1 gpt 50.0% 75.0% (25.0%) 41s first",
        "2 2 9 - - - clients_per_round=9 is above num_clients=5; lower it",
        "3 3 {1: 0} 62.5% - 2h02m third",
    ]


def test_brackets_are_no_markup_and_a_damaged_result_is_a_row(tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "results.json").write_text("{")
    seal(damaged)
    outcomes = [Failure("a layer such as [fc] or [/fc] is not there", 2), damaged, tmp_path / "gone"]
    console = Console(width=300, record=True)
    console.print(sweep_table([["provenance.layers=[fc]"], ["provenance.layers=[conv1,fc]"], []], outcomes))
    text = console.export_text()
    assert all(f" {word} " in text for word in ("[fc]", "[conv1,fc]", "[/fc]"))
    assert "1 [fc] - - - a layer such as [fc] or [/fc] is not there" in " ".join(text.split())
    assert len([line for line in text.splitlines() if "results.json" in line]) == 2
