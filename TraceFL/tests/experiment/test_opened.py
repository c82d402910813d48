"""``tracefl.load``: a run's folder from Python."""

import json
import shutil

import matplotlib as mpl
import pytest
import torch
from torch.testing import assert_close

import tracefl
from tests.helpers.stored_runs import COUNTS, NAMES, TEXTS, P, make_stored_run
from tests.helpers.tables import whole_row
from tracefl.errors import ConfigError, RecordError
from tracefl.provenance import Method, attribute_round, counterfactuals, explain
from tracefl.questions.retrace import retrace
from tracefl.records.checksums import checksums_of_weights, seal, write_checksums
from tracefl.records.result import RoundResult, as_json
from tracefl.records.tables import PROVENANCE_COLUMNS
from tracefl.report.counterfactual import COUNTERFACTUAL_COLUMNS

mpl.use("agg")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Make a stored run of images, with tables of its second round."""
    folder = make_stored_run(tmp_path_factory.mktemp("runs"))
    _, trace = retrace(folder, 2, ["provenance.inputs=all"])
    for n, traced in ((1, ()), (2, trace.traced)):
        place = folder / "rounds" / f"{n:04d}"
        row = whole_row(round=n, global_accuracy=n / 4)
        result = RoundResult(row, traced, (), P, {})
        (place / "round.json").write_text(json.dumps(as_json(result, checksums_of_weights(place))))
        write_checksums(place)
    seal(folder)
    (folder / "rounds.csv").write_text("changed by hand")  # what is read was checked
    (folder / "mine.csv").write_text("client,number\n3,0.5\n")
    return folder


@pytest.fixture(scope="module")
def run(stored):
    return tracefl.load(stored)


def test_a_run_is_found_as_on_the_command_line(stored, tmp_path, monkeypatch):
    (tmp_path / "logs" / "default").mkdir(parents=True)
    (tmp_path / "logs" / "default" / "mine").symlink_to(stored, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for name in ("logs/default/mine", tmp_path / "logs" / "default" / "mine"):
        assert tracefl.load(name).folder.samefile(stored)
    with pytest.raises(RecordError, match="no run below"):
        tracefl.load("other")


def test_tables_are_frames_with_clients_as_text(run):
    assert list(run.tables) == ["mine", "provenance", "rounds"]
    assert run.tables["mine"]["client"].tolist() == ["3"]
    assert run.rounds["global_accuracy"].tolist() == [0.25, 0.5]
    assert list(run.rounds.index) == [1, 2]
    traced = run.inputs
    assert list(traced.columns) == list(PROVENANCE_COLUMNS)
    assert set(traced["traced_client"]) <= set(P)
    traced["label"] = 9  # a copy: what is changed here does not change the run
    assert 9 not in run.inputs["label"].tolist()


def test_clients_have_their_examples_and_rounds(run):
    clients = run.clients
    assert list(clients.index) == ["0", "1", "2", "3"]
    assert clients[NAMES].to_numpy().tolist() == COUNTS
    assert clients["examples"].tolist() == [sum(row) for row in COUNTS]
    assert clients["rounds"].tolist() == [[1, 2], [], [1, 2], [1, 2]]
    assert "faulty" not in clients


def test_what_a_run_has_not_is_said(run, tmp_path):
    empty = tracefl.load(make_stored_run(tmp_path, rounds=()))
    with pytest.raises(RecordError, match="has no rounds.csv"):
        empty.rounds  # noqa: B018
    with pytest.raises(RecordError, match="results.json"):
        run.results  # noqa: B018
    assert run.stored_rounds == [1, 2]
    assert run.class_names == tuple(NAMES)
    assert "rounds>" in repr(run)


def test_who_asks_a_stored_round(run):
    model, record = run.round(2)
    batch, labels = run.server.batch(torch.tensor([0, 3]))
    answer = run.who([0, 3], "provenance=leave_one_out")
    expected = attribute_round(model, record, batch, labels, Method.leave_one_out())
    assert_close(answer.contributions, expected.contributions)
    assert answer.exact.all()
    assert answer.labels.tolist() == [0, 3]
    assert answer.weights == pytest.approx((0.5, 0.3, 0.2))
    assert answer._repr_html_().count("<img") == 2
    assert "label dog" in str(answer[1])
    assert_close(run.who(3, "provenance=leave_one_out").contributions, expected.contributions[1:], rtol=1e-3, atol=1e-4)
    assert len(run.who()) == (run.inputs["round"] == 2).sum()
    first = run.who(0, "provenance=artifact", round=1)
    model, record = run.round(1)
    batch, labels = run.server.batch(torch.tensor([0]))
    assert_close(first.contributions, attribute_round(model, record, batch, labels, Method.artifact()).contributions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 4}, r"inputs=\[4\]: the server has examples 0 to 3"),
        ({"inputs": []}, "the server has examples 0 to 3"),
        ({"inputs": 1, "text": "a"}, "one input is asked about, got text and input"),
        ({"text": "a"}, "takes image; give image= or input="),
        ({"round": 7}, "round 7"),
    ],
)
def test_who_refuses(run, arguments, message):
    with pytest.raises((ConfigError, RecordError), match=message):
        run.who(**arguments)


def test_an_explanation_can_be_read_drawn_and_shown(run):
    found = run.explain(1, against=("bee" if run.explain(1).predicted != 1 else "ant"))
    model, record = run.round()
    direct = explain(model, record, run.server.batch(torch.tensor([1]))[0], Method())
    assert found.predicted == direct.predicted
    frame = found.to_frame()
    assert frame["client"].tolist() == [client.client_id for client in found.clients]
    assert frame["rank"].tolist() == [1, 2, 3]
    for row, client in zip(frame.itertuples(), found.clients, strict=True):
        assert row.contribution == client.contribution
        assert row.exact_effect == pytest.approx(client.removal.effect)
    assert max(map(len, str(found).splitlines())) <= 80
    assert found.class_names[found.predicted] in str(found)
    assert found._repr_html_().count("<img") == 1
    assert len(found.plot().patches) == 3


def test_removals_can_be_read_drawn_and_shown(run):
    model, record = run.round()
    found = counterfactuals(model, record, run.server.batch(torch.arange(4))[0])
    frame = found.to_frame()
    assert len(frame) == 12
    assert_close(torch.tensor(frame["effect"].to_numpy()).reshape(4, 3), found.effects)
    assert frame["changed"].tolist() == found.changed.flatten().tolist()
    assert max(map(len, str(found).splitlines())) <= 80
    assert found._repr_html_().count("<table>") == 4
    assert found.plot().images[0].get_array().shape == (4, 3)


def test_a_round_that_was_changed_is_no_table(stored, tmp_path):
    run = tracefl.load(shutil.copytree(stored, tmp_path / "copy"))
    path = run.folder / "rounds" / "0002" / "round.json"
    path.write_text(path.read_text().replace('"global_accuracy": 0.5', '"global_accuracy": 0.9'))
    with pytest.raises(RecordError, match="0002/round.json is damaged"):
        run.rounds  # noqa: B018


def test_the_commands_questions_are_frames(run):
    again = run.trace("provenance.inputs=all")
    assert again["input_index"].tolist() == run.inputs["input_index"].tolist()
    left = run.counterfactual([0, 2])
    assert list(left.columns) == list(COUNTERFACTUAL_COLUMNS)
    assert left["client"].tolist() == ["0", "2", "3"] * 2
    replayed = run.replay(without=[0])
    assert replayed.groupby("round")["clients"].first().tolist() == ["2 3", "2 3"]
    with pytest.raises(ConfigError, match="how must be one of reaggregate, train, got 'again'"):
        run.replay(without=0, how="again")
    assert again["traced_client"].tolist() == run.inputs["traced_client"].tolist()


def test_texts_are_shown(tmp_path):
    run = tracefl.load(make_stored_run(tmp_path, "text"))
    answer = run.who([0, 1])
    assert answer.texts[0].split() == TEXTS[0].split()
    assert run.who(text="the roses").texts[0].split() == ["the", "roses"]
    assert "the roses" in run.explain(text="the roses")._repr_html_()
