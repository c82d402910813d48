"""``tracefl.collect`` on runs that looked for faulty clients."""

import json

from tests.helpers.made_runs import FLIP, found, make_faulty_run, without_inputs
from tests.helpers.tables import read_csv
from tracefl.records.checksums import seal


def test_the_rules_side_by_side(collect, tmp_path):
    rows = [without_inputs(1), found(2, "provenance", 1.0), found(2, "krum", 0.25, seconds=0.5)]
    make_faulty_run(tmp_path, rows, "seed=1")
    make_faulty_run(tmp_path, rows, "seed=2", fault=FLIP | {"share": 0.1})
    make_faulty_run(tmp_path, None, fault=None)
    markdown = tmp_path / "table.md"
    status, out, err = collect(tmp_path, f"markdown={markdown}")
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith(" resnet18 mnist alpha 0.3, label_flip 10 %")]
    assert line.split()[-6:] == ["1", "of", "2", "100.0", "10.0", "25.0"]
    found_rows = read_csv(tmp_path / "suspects_collected.csv")
    assert [(row["fault_share"], row["rule"]) for row in found_rows] == [
        (share, rule) for share in ("1.0", "0.1") for rule in ("provenance", "krum")
    ]
    assert found_rows[1]["seconds_per_input"] == "0.05"
    assert "| resnet18 mnist alpha 0.3, label_flip 100 %, 1 of 10 | 1 | 1 of 2 | 100.0 | 10.0 | 25.0 |" in (
        markdown.read_text()
    )
    assert "| resnet18 mnist, 10 clients, cpu | 0.1 | 0.05 |" in markdown.read_text()
    for name in ("flipped_share.png", "seconds_per_input.png"):
        assert (tmp_path / name).exists()
        assert name in out
    assert {row["fault"] for row in read_csv(tmp_path / "collected.csv")} == {
        "none",
        "label_flip 100 %, 1 of 10",
        "label_flip 10 %, 1 of 10",
    }


def test_json_is_all_that_is_printed(collect, tmp_path):
    rows = [found(1, "provenance", 1.0), found(1, "krum", 0.25)]
    make_faulty_run(tmp_path, rows, "seed=1")
    damaged = make_faulty_run(tmp_path, rows, "seed=2")
    (damaged / "results.json").write_text("{")
    seal(damaged)
    status, out, err = collect(tmp_path, "--json")
    answer = json.loads(out)
    assert (status, answer["folder"]) == (0, str(tmp_path))
    assert [(run["seed"], run["state"]) for run in answer["runs"]] == [(1, "done")]
    assert [row["rule"] for row in answer["suspects"]] == ["provenance", "krum"]
    assert ["results.json is damaged" in line for line in answer["damaged"]] == [True]
    assert {str(path) for path in tmp_path.iterdir() if path.is_file()} == set(answer["files"])
    assert "1 run done, 0 unfinished, 1 damaged" in err


def test_without_faults_there_is_nothing_more(collect, tmp_path):
    make_faulty_run(tmp_path, None, fault=None)
    status, out, _ = collect(tmp_path)
    assert status == 0
    assert "faulty" not in out
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["collected.csv"]
    status, _, err = collect(tmp_path, f"markdown={tmp_path / 'table.md'}")
    assert status == 2
    assert err == (
        f"tracefl: {tmp_path} holds no finished run that looked for faulty clients: {tmp_path / 'table.md'} is not "
        "written\n"
    )


def test_an_unfinished_run_is_not_in_the_table(collect, tmp_path):
    make_faulty_run(tmp_path, [found(1, "provenance", 1.0)], state="stopped")
    status, _, _ = collect(tmp_path)
    assert status == 0
    assert not (tmp_path / "suspects_collected.csv").exists()


def test_a_fault_s_run_stands_beside_no_published_run_without_faults(collect, tmp_path):
    # Figure 3 has GPT, DBpedia, alpha 0.3, 100 clients, 10 a round, 15 rounds
    figure3 = ("experiment=figure3", "model=gpt", "dataset=dbpedia_14", "num_rounds=15", "num_clients=100")
    make_faulty_run(tmp_path, [found(1, "provenance", 1.0)], *figure3, rounds=15)
    make_faulty_run(tmp_path, None, *figure3, "seed=2", fault=None, rounds=15)
    collect(tmp_path)
    published = {row["fault"]: row["published_localization_accuracy"] for row in read_csv(tmp_path / "collected.csv")}
    assert published == {"label_flip 100 %, 1 of 100": "", "none": "1.0"}


def test_a_damaged_file_is_named_and_its_run_left_out(collect, tmp_path):
    make_faulty_run(tmp_path, [found(1, "provenance", 1.0)])
    damaged = make_faulty_run(tmp_path, [found(1, "provenance", 1.0)], "seed=7")
    path = damaged / "rounds" / "0001" / "round.json"
    path.write_text(path.read_text().replace('"localization_accuracy": 1.0', '"localization_accuracy": 0.0'))
    status, out, _ = collect(tmp_path)
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert damaged.name in line
    assert "0001/round.json is damaged: its checksum is not the one in SHA256SUMS" in line
    assert "1 run done, 0 unfinished, 1 damaged" in out
