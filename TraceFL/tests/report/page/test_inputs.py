import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.made_page import make_run, result, traced_input
from tests.helpers.stored_runs import TEXTS
from tracefl.learning.datasets import load_examples
from tracefl.report.page import inputs
from tracefl.report.page.inputs import page_inputs, picture_uri, within_budget
from tracefl.report.page.record import read_record


def read(tmp_path, rounds, *overrides, order=None, **of_run):
    record = read_record(make_run(tmp_path, rounds, *overrides, **of_run), rounds=rounds)
    return page_inputs(record, order or [each.server_round for each in rounds])


def pixels_of(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_picture_is_the_input_and_is_there_once(tmp_path):
    found = read(tmp_path, [result(1, [traced_input(0), traced_input(2)]), result(2, [traced_input(2)])])
    assert [(row["r"], row["i"]) for row in found.rows] == [(1, 0), (1, 2), (2, 2)]
    assert sorted(found.shown) == [0, 2]
    server = load_examples(tmp_path / 'a<b>&"run"' / "server.safetensors").features["pixels"]
    assert pixels_of(found.shown[0]).mode == "L"  # equal colours
    assert (np.asarray(pixels_of(found.shown[2])) == server[2].permute(1, 2, 0).numpy()).all()
    assert found.not_shown == ()


def test_a_large_picture_is_reduced(tmp_path):
    found = read(tmp_path, [result(1, [traced_input(0)])], size=200)
    assert pixels_of(found.shown[0]).size == (96, 96)
    assert found.not_shown == ("pictures are reduced from 200 to 96 pixels",)


def test_a_picture_need_not_be_square():
    assert pixels_of(picture_uri(torch.zeros(3, 4, 9, dtype=torch.uint8))).size == (9, 4)


def test_a_text_is_as_the_model_sees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_CHARACTERS", 15)
    found = read(tmp_path, [result(1, [traced_input(1), traced_input(2)])], kind="text")
    assert not found.are_pictures
    assert found.shown == {1: TEXTS[1][:15] + "…", 2: TEXTS[2]}
    assert found.not_shown == ("1 texts are cut after 15 characters",)


def test_the_rows_by_hand(tmp_path):
    exact = {"counterfactual_client": "3", "effects": (("2", 0.25), ("3", 0.5), ("0", -1.0)), "probability": 0.8125}
    given = {"contributions": (("2", 1.25), ("3", -0.5), ("0", -0.75))} | exact
    traced = traced_input(1, 3, predicted=0, scores={"2": 0.7, "3": 0.2, "0": 0.1}, expected=("0",), **given)
    (row,) = read(tmp_path, [result(5, [traced])]).rows
    assert row == {
        "r": 5, "i": 1, "l": 3, "p": 0, "ok": False, "q": 0.8125, "n": 3, "first": 3, "c": 0.3333, "by": "3",
        "t": "2", "s": None,
        "k": [["3", -0.5, 0.5, None, 0], ["2", 1.25, 0.25, None, 0], ["0", -0.75, -1.0, None, 1]],
    }  # fmt: skip


def test_a_row_whose_confusion_was_asked_about(tmp_path):
    """It is localized by suspicion, whoever carried it."""
    asked = {"suspicions": (("3", 4.25), ("0", -1.0), ("2", -2.0)), "traced_client": "3", "localized": False}
    (row,) = read(tmp_path, [result(1, [traced_input(1, 3, predicted=0, expected=("2",), **asked)])]).rows
    assert (row["t"], row["s"], row["first"], row["ok"]) == ("3", 4.25, 3, False)


def test_a_row_that_nobody_carries(tmp_path):
    effects = (("0", -0.5), ("2", -0.25), ("3", 0.0))
    (row,) = read(tmp_path, [result(1, [traced_input(1, effects=effects)])]).rows
    assert (row["by"], row["t"]) == (None, "0")
    assert [client for client, *_ in row["k"]] == ["3", "2", "0"]


def test_many_clients_are_cut_and_counted(tmp_path):
    many = {str(n): float("nan") if n == 0 else 0.01 for n in range(40)}
    found = read(tmp_path, [result(1, [traced_input(0, scores=many, expected=("20",))])])
    assert len(found.rows[0]["k"]) == 10
    assert found.rows[0]["k"][0] == ["0", None, None, None, 0]  # which JSON has no number for
    assert (found.rows[0]["n"], found.rows[0]["first"]) == (40, 21)
    assert found.not_shown == ("of 1 inputs only the first 10 ranked clients; provenance.csv has all",)


def test_of_many_inputs_those_that_are_asked_for_first_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_INPUTS", 3)
    rounds = [result(n, [traced_input(n), traced_input(0)]) for n in (1, 2, 3)]
    found = read(tmp_path, rounds, order=[2, 3, 1])
    assert [(row["r"], row["i"]) for row in found.rows] == [(2, 0), (2, 2), (3, 0)]
    assert found.not_shown[0].startswith("3 of 6 traced inputs are listed")


def test_pictures_over_the_budget_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_BYTES", 600)
    found = read(tmp_path, [result(1, [traced_input(n) for n in range(4)])])
    assert 0 < len(found.shown) < 4
    assert found.not_shown == (f"{len(found.shown)} of 4 pictures are on the page, which would be too large with all",)


@pytest.mark.parametrize(("budget", "kept"), [(0, []), (3, [7]), (5, [7, 8]), (9, [7, 8, 9])])
def test_the_budget_is_in_bytes(budget, kept):
    assert list(within_budget([(7, "abc"), (8, "é"), (9, "abcd")], budget)) == kept


def test_nothing_traced(tmp_path):
    found = read(tmp_path, [result(1)], "provenance=off")
    assert (found.rows, found.shown, found.not_shown) == ((), {}, ())
