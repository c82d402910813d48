"""Splits of folders in the hub's layouts: what belongs together, and what only begins alike."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracefl.errors import DataError
from tracefl.learning.datasets import load_source
from tracefl.learning.datasets.split_files import check_apart, find_split

ANLI = ("train_r1-00000-of-00001", "train_r2-00000-of-00001", "test_r1-00000-of-00001", "test_r2-00000-of-00001")


@pytest.fixture
def folder_of(tmp_path):
    """Make a folder with empty files of these names, without their ending."""

    def make(*names):
        for name in names:
            path = tmp_path / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names_of(folder, split, wanted=None):
    found = find_split(folder, split, wanted or split, "fetch it")
    return [str(path.relative_to(folder)).removesuffix(".parquet") for path in found.files]


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (("train", "test"), ["train"], ["test"]),
        (("data/train-0-of-1", "data/test-0-of-1"), ["data/train-0-of-1"], ["data/test-0-of-1"]),
        (("a/train/0000", "a/train/0001", "a/test/0000"), ["a/train/0000", "a/train/0001"], ["a/test/0000"]),
        (("train/part-0", "train/part-1", "test/part-0"), ["train/part-0", "train/part-1"], ["test/part-0"]),
        (("train/images", "test/images"), ["train/images"], ["test/images"]),
        (("train-1", "train-2", "train-3", "test-0-of-1-a0b1c2d3"), ["train-1", "train-2", "train-3"], None),
        (("train", "train_extra", "training", "test", "test_matched"), ["train"], ["test"]),  # an exact name wins
        (("train/train-0-of-1", "train/validation-0-of-1", "train/test-0-of-1"), ["train/train-0-of-1"], None),
        ((".cache/train", "train", "test"), ["train"], ["test"]),
    ],
)
def test_an_exact_name_is_found(folder_of, names, train, test):
    folder = folder_of(*names)
    assert names_of(folder, "train") == train
    assert names_of(folder, "test") == (test or [name for name in names if "test-" in name])
    assert find_split(folder, "train", "train", "").notes == find_split(folder, "test", "test", "").notes == ()


@pytest.mark.parametrize("layout", [ANLI, tuple(f"{name.partition('-')[0]}/0000" for name in ANLI)])
def test_splits_that_begin_alike_are_never_joined_unasked(folder_of, layout):
    folder = folder_of(*layout)
    message = r"no split 'train', but train_r1, train_r2; choose one by dataset\.train_split=train_r1, or join them by "
    with pytest.raises(DataError, match=message + r"dataset\.train_split=train_r1\+train_r2$"):
        names_of(folder, "train")
    with pytest.raises(DataError, match=r"no split 'test', but test_r1, test_r2; choose one by dataset\.test_split="):
        names_of(folder, "test")
    assert names_of(folder, "test", "test_r2") == [layout[3]]
    assert names_of(folder, "train", "train_r2+train_r1") == [layout[1], layout[0]]
    with pytest.raises(DataError, match=r"has no split 'train_r3', only test_r1, test_r2, train_r1, .*did you mean"):
        names_of(folder, "train", "train_r3")
    with pytest.raises(DataError, match=r"dataset\.train_split=train_r1\+train_r1 names 'train_r1' twice"):
        names_of(folder, "train", "train_r1+train_r1")


@pytest.mark.parametrize("names", [("train_1", "train_2"), ("train1", "train2"), ("train.100", "train.360")])
def test_a_number_that_is_no_parts_number_is_a_name(folder_of, names):
    with pytest.raises(DataError, match=f"but {names[0]}, {names[1]}; choose one"):
        names_of(folder_of(*names), "train")


def test_parts_that_are_not_numbered_through_may_be_splits(folder_of):
    folder = folder_of("train-100", "train-360", "test")
    with pytest.raises(DataError, match=r"not numbered 0, 1, .*train_split=train-100, .*=train-100\+train-360"):
        names_of(folder, "train")
    assert names_of(folder, "train", "train-360") == ["train-360"]
    assert names_of(folder, "train", "train-100+train-360") == ["train-100", "train-360"]


def test_the_only_split_that_begins_so_stands_in_and_is_said(folder_of):
    folder = folder_of("train", "test_matched", "validation")
    found = find_split(folder, "test", "test", "")
    assert (found.name, found.notes) == (
        "test_matched",
        (f"the test split is 'test_matched': {folder} has none named exactly 'test'",),
    )
    with pytest.raises(DataError, match="has no split 'test_m'"):
        names_of(folder, "test", "test_m")  # what is asked for by name is not guessed


@pytest.mark.parametrize("there", ["validation", "validation/0000", "data/validation-00000-of-00001"])
def test_no_test_split_says_which_there_are(folder_of, there):
    folder = folder_of("train", there)
    message = r"no split 'test', only train, validation; set dataset\.test_split to one that is there, or fetch it"
    with pytest.raises(DataError, match=message):
        names_of(folder, "test")
    assert names_of(folder, "test", "validation") == [there]


def test_files_of_other_formats_are_said_not_to_be_read(folder_of, tmp_path):
    for name in ("train.csv", "test.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(
        DataError, match=r"no parquet files at all \(\.csv and \.jsonl files are not read: convert them"
    ):
        names_of(tmp_path, "train")
    folder_of("train")
    with pytest.raises(DataError, match=r"no split 'test', only train \(\.csv and \.jsonl files are not read"):
        names_of(tmp_path, "test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/train", "b/train"), r"train files of 2 data sets, in .*a, .*b; set dataset\.path to one of these"),
        (("a/train/0000", "b/train/0000"), r"train files of 2 data sets, in [^ ]*/a, [^ ]*/b; set dataset\.path"),
        (("train", "train/0000"), r"'train' is there more than once in .*, as files and as a folder"),
        (("train-0-of-1", "train-0-of-2", "train-1-of-2"), "more than once .*: .* are not one copy's"),
        (("train-0-of-1-aaaaaaa", "train-0-of-1-bbbbbbb"), "more than once .*: .* are not one copy's"),
        (("train", "train-0-of-1"), "more than once .*: .* are not one copy's"),
    ],
)
def test_several_copies_or_data_sets_are_refused(folder_of, names, message):
    with pytest.raises(DataError, match=message):
        names_of(folder_of(*names), "train")


def test_an_incomplete_split_is_said(folder_of):
    folder = folder_of("train-00000-of-00003", "train-00002-of-00003")
    (note,) = find_split(folder, "train", "train", "").notes
    assert note == f"split 'train' is incomplete: 2 of its 3 files are in {folder}"


def test_splits_share_no_file_and_say_where_they_come_from(folder_of):
    folder = folder_of("a/train", "b/test")
    train, test = find_split(folder, "train", "train", ""), find_split(folder, "test", "test", "")
    assert check_apart(train, test) == (f"the train split is from {folder / 'a'}, the test split from {folder / 'b'}",)
    with pytest.raises(DataError, match="in the train split 'train' and in the test split 'train', so clients would"):
        check_apart(train, find_split(folder, "test", "train", ""))


@pytest.mark.parametrize("train", ["train_r1", "train_r1+train_r2"])
def test_chosen_splits_are_read(make_settings, tmp_path, train):
    for name, rows in zip(ANLI, (9, 6, 3, 2), strict=True):
        table = pa.table(
            {"text": [f"{name[:8]} {row}" for row in range(rows)], "label": [row % 2 for row in range(rows)]}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    keys = {"kind": "text", "input_columns": ["text"], "path": str(tmp_path), "test_split": "test_r2"}
    raw = load_source(make_settings(**keys, train_split=train), seed=0)
    texts = [f"train_r1 {row}" for row in range(9)] + [f"train_r2 {row}" for row in range(6)]
    assert raw.train.read(np.arange(len(raw.train))) == texts[: 15 if "+" in train else 9]
    assert len(raw.test) == 2
    assert raw.notes == ()


def test_the_choice_is_among_the_datas_notes(make_settings, tmp_path):
    for name in ("train", "test_matched"):
        pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / f"{name}.parquet")
    raw = load_source(make_settings(path=str(tmp_path)), seed=0)
    assert len(raw.notes) == 1
    assert "the test split is 'test_matched'" in raw.notes[0]
