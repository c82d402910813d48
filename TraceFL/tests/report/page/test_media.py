"""What W&B is given of the whole run: the table's rows by hand, the picture's colours."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.made_page import NAMES, make_run, result, traced_input
from tests.helpers.stored_runs import TEXTS
from tracefl.learning.datasets import load_examples
from tracefl.report.page import media
from tracefl.report.page.figure import draw_heat_map
from tracefl.report.page.heat import heat_map
from tracefl.report.page.media import COLUMNS, report_media, table_rows
from tracefl.report.page.record import read_record

ROUNDS = (
    result(1, [traced_input(2, 2, predicted=1)], global_accuracy=0.9),
    result(2, [traced_input(3, 3, expected=())], global_accuracy=0.3),
    result(3, [traced_input(2, 2)], global_accuracy=0.3),
)


def test_the_rows_by_hand(tmp_path):
    record = read_record(make_run(tmp_path, ROUNDS))
    made = []

    def image(pixels):
        made.append(pixels)
        return f"image {len(made)}"

    found = [dict(zip(COLUMNS, row, strict=True)) for row in table_rows(record, image)]
    assert [(row["round"], row["input"], row["shown"]) for row in found] == [
        (2, 3, "image 1"),  # the accuracy fell
        (3, 2, "image 2"),
        (1, 2, "image 2"),  # one image, however often it was traced
    ]
    server = load_examples(record.run.folder / "server.safetensors").features["pixels"]
    assert (made[1] == server[2].permute(1, 2, 0).numpy()).all()
    assert found[2]["label"] == NAMES[2]
    assert found[2]["predicted"] == NAMES[1]
    assert (found[2]["carried by"], found[2]["traced client"], found[2]["localized"]) == ("0", "0", True)
    assert found[2]["contributions"] == "0:-0.511 2:-1.2 3:-2.3"  # the logarithms of 0.6, 0.3 and 0.1
    assert (found[0]["expected clients"], found[0]["localized"]) == ("", None)


def test_texts_and_a_table_that_is_cut(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(media, "MOST_ROWS", 2)
    record = read_record(make_run(tmp_path, ROUNDS, kind="text"))
    with caplog.at_level("INFO"):
        found = table_rows(record, None)
    assert [row[2] for row in found] == [TEXTS[3], TEXTS[2]]
    assert "holds 2 of 3 traced inputs" in caplog.text


def test_a_round_that_cannot_be_read_is_named_and_left_out(tmp_path, caplog):
    run = make_run(tmp_path, ROUNDS)
    (run / "rounds" / "0002" / "round.json").write_text("{}")
    wandb = SimpleNamespace(Table=lambda columns, data: data, Image=lambda picture: picture)
    with caplog.at_level("WARNING"):
        found = report_media(run, wandb)
    assert sorted(row[0] for row in found["report/traced_inputs"]) == [1, 3]
    (record,) = caplog.records
    assert "W&B's figures of the whole run lack round 2: " in record.getMessage()


@pytest.mark.parametrize("traced", [True, False])
def test_the_picture(tmp_path, traced):
    rounds = ROUNDS if traced else [result(1)]
    picture = np.asarray(draw_heat_map(heat_map(read_record(make_run(tmp_path, rounds)))).convert("RGB"))
    grey = (picture == 0xD9).all(axis=2).mean()
    assert grey > (0.1 if traced else 0.2)  # what was not measured has a colour of its own
    assert ((picture[..., 2].astype(int) - picture[..., 0]) > 100).any()  # blue: examples
    assert ((picture[..., 0].astype(int) - picture[..., 2]) > 100).any() == traced  # orange: contributions
