import io
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets import load_source

FETCH = r"hf download --repo-type dataset ylecun/mnist --local-dir DIR"


def png(value):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_split(folder, split, columns, class_names=None):
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if class_names:
        from datasets import ClassLabel, Features
        from datasets import Image as ImageFeature

        features = Features.from_arrow_schema(table.schema)
        features["label"] = ClassLabel(names=class_names)
        if "image" in features:
            features["image"] = ImageFeature()
        table = pa.table(columns).cast(features.arrow_schema)
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def texts(tmp_path):
    """A folder of text in two columns with labels of the given values."""

    def write(train_labels=(0, 1, 2), test_labels=(0, 1), folder=tmp_path, class_names=None):
        for split, labels in (("train", train_labels), ("test", test_labels)):
            titles = [None if index == 1 else f"{split} {index}" for index in range(len(labels))]
            contents = ["" if index == 2 else f"content {index}" for index in range(len(labels))]
            columns = {"title": titles, "content": contents, "label": list(labels)}
            write_split(folder, split, columns, class_names)
        return folder

    return write


@pytest.fixture
def load(make_settings, tmp_path):
    """Load with network refused; text of two columns unless told otherwise."""

    def load_text(**keys):
        defaults = {"kind": "text", "input_columns": ["title", "content"], "path": str(tmp_path)}
        return load_source(make_settings(**(defaults | keys)), seed=0)

    return load_text


@pytest.mark.usefixtures("no_network")
def test_text_is_the_columns_that_are_not_empty(texts, load):
    texts()
    raw = load()
    assert raw.train.read(np.arange(3)) == ["train 0\ncontent 0", "content 1", "train 2"]
    assert raw.train.read(np.array([2, 0])) == ["train 2", "train 0\ncontent 0"]
    assert load(input_columns=["content"]).test.read(np.array([1])) == ["content 1"]


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.usefixtures("no_network")
def test_images_are_decoded_from_encoded_bytes(tmp_path, load, described):
    for split in ("train", "test"):
        columns = {"image": [png(value) for value in (10, 20, 30)], "label": [0, 1, 0]}
        write_split(tmp_path, split, columns, ["zero", "one"] if described else None)
    raw = load(kind="image", input_columns=["image"])
    assert [np.asarray(image)[0, 0, 0] for image in raw.train.read(np.array([2, 0]))] == [30, 10]
    assert raw.label_names == (("zero", "one") if described else ("0", "1"))


def test_damaged_image(tmp_path, load):
    for split in ("train", "test"):
        cells = [png(1), {"bytes": b"no image", "path": None}]
        write_split(tmp_path, split, {"image": cells, "label": [0, 1]})
    images = load(kind="image", input_columns=["image"]).train.read(np.array([0, 1]))
    assert np.asarray(images[0])[0, 0].tolist() == [1, 1, 1]
    message = r"split train, column 'image', row 1 \(from 0\): the image is no image .*, or remove the row"
    with pytest.raises(DataError, match=message):
        images[1]


def test_rows_without_an_image(tmp_path, load):
    write_split(tmp_path, "train", {"image": [png(1), None, png(2), None], "label": [0, 1, 0, 1]})
    write_split(tmp_path, "test", {"image": [png(1)["bytes"]], "label": [0]})
    with pytest.raises(
        DataError, match="split train has 2 rows without an image in column 'image', the first is row 1"
    ):
        load(kind="image", input_columns=["image"])


def test_an_image_that_is_only_named(tmp_path, load, monkeypatch):
    (tmp_path / "one.png").write_bytes(png(5)["bytes"])
    monkeypatch.chdir(tmp_path)
    cells = [{"bytes": None, "path": path} for path in ("one.png", "two.png", None)]
    for split in ("train", "test"):
        write_split(tmp_path, split, {"image": cells, "label": [0, 1, 0]})
    images = load(kind="image", input_columns=["image"]).test.read(np.arange(3))
    assert np.asarray(images[0])[0, 0].tolist() == [5, 5, 5]
    with pytest.raises(DataError, match=r"row 1 \(from 0\): the image lies in a file .*No such file.*two\.png"):
        images[1]
    with pytest.raises(DataError, match=r"row 2 \(from 0\): the image is missing"):
        images[2]


@pytest.mark.parametrize("folder", ["mnist", "plain_text", "data", "."])
@pytest.mark.usefixtures("no_network")
def test_layouts_of_the_hub_are_found(texts, load, tmp_path, folder):
    texts(folder=tmp_path / folder)
    hidden = tmp_path / ".cache" / "huggingface"  # what `hf download --local-dir` leaves beside the files
    hidden.mkdir(parents=True)
    (hidden / "train-00000-of-00001.parquet").write_bytes(b"")
    assert len(load().train) == 3


@pytest.mark.usefixtures("no_network")
def test_layout_of_the_hubs_parquet_copies_is_found(texts, load, tmp_path):
    texts(folder=tmp_path)
    for split in ("train", "test"):
        (tmp_path / "default" / split).mkdir(parents=True)
        (tmp_path / f"{split}-00000-of-00001.parquet").rename(tmp_path / "default" / split / "0000.parquet")
    raw = load()
    assert (len(raw.train), len(raw.test)) == (3, 2)


def test_parts_of_a_split_are_joined_in_order(load, tmp_path):
    for part in range(3):
        pq.write_table(
            pa.table({"title": [f"part {part}"], "content": [""], "label": [part]}), tmp_path / f"train-{part}.parquet"
        )
    write_split(tmp_path, "test", {"title": ["t"], "content": [""], "label": [0]})
    assert load().train.read(np.arange(3)) == ["part 0", "part 1", "part 2"]


def test_name_may_be_the_folder(texts, load, tmp_path):
    texts()
    assert len(load(path=None, name=str(tmp_path)).train) == 3
    with pytest.raises(DataError, match=r"nowhere is not a folder; set dataset\.name"):
        load(path=None, name=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("train", "test", "keys", "names", "numbers"),
    [
        ((0, 1, 2), (0, 1), {}, ("0", "1", "2"), [0, 1, 2]),
        ((3, 1, 3), (2, 2), {}, ("1", "2", "3"), [2, 0, 2]),  # distinct values over both splits, sorted
        (("b", "a", "b"), ("a", "c"), {}, ("a", "b", "c"), [1, 0, 1]),
        ((0, 1, 1), (0, 1), {"label_names": ["x", "y", "z"]}, ("x", "y", "z"), [0, 1, 1]),
        (("y", "x", "y"), ("x", "x"), {"label_names": ["x", "y", "z"]}, ("x", "y", "z"), [1, 0, 1]),
    ],
)
def test_classes(texts, load, train, test, keys, names, numbers):
    texts(train, test)
    raw = load(**keys)
    assert raw.label_names == names
    assert raw.train.labels.tolist() == numbers
    assert raw.train.labels.dtype == np.int64


def test_names_in_the_files_count_classes_without_examples(texts, load):
    texts((0, 0), (0,), class_names=["a", "b", "c"])
    assert load().label_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("train", "keys", "message"),
    [
        ((0, -1), {}, "holds -1, negative"),
        ((0, 2), {"label_names": ["a", "b"]}, "holds 2, outside 0 to 1"),
        ((-1, 0), {"label_names": ["a", "b"]}, "holds -1, outside 0 to 1"),
        (("a", "q"), {"label_names": ["a", "b"]}, "holds 'q', not among the 2 names"),
        ((0, None), {}, "split train has 1 missing labels in column 'label'"),
        ((0.5, 1.0), {}, "holds double, expected whole numbers"),
        ((), {}, "split train has no examples"),
    ],
)
def test_labels_that_do_not_fit(texts, load, train, keys, message):
    texts(train, train or (0,))
    with pytest.raises(DataError, match=message):
        load(**keys)


def test_missing_label_of_the_hub_is_refused(texts, load):
    texts((0, -1), (0,), class_names=["a", "b"])  # the hub marks unlabelled examples by -1
    with pytest.raises(DataError, match="holds -1, outside 0 to 1"):
        load()


def test_splits_that_name_classes_differently(texts, load, tmp_path):
    texts((0, 1), (0,), class_names=["a", "b"])
    write_split(tmp_path, "test", {"title": ["t"], "content": [""], "label": [0]}, ["b", "a"])
    with pytest.raises(DataError, match=r"name their classes train \['a', 'b'\], test \['b', 'a'\]"):
        load()


@pytest.mark.usefixtures("no_network")
def test_missing_folder_says_how_to_fetch(load, tmp_path):
    with pytest.raises(DataError, match=rf"nowhere is not a folder; .*`{FETCH}` and set dataset\.path=DIR"):
        load(path=str(tmp_path / "nowhere"), hub_id="ylecun/mnist")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"input_columns": ["text"]}, r"no column 'text', only title, content, label; set dataset\.input_columns"),
        ({"label_column": "topic"}, r"no column 'topic', only title, content, label; set dataset\.label_column"),
        ({"input_columns": ["label"]}, "column 'label' holds int64, expected text"),
        ({"kind": "image", "input_columns": ["title"]}, "column 'title' holds string, expected encoded images"),
    ],
)
def test_columns_that_do_not_fit(texts, load, keys, message):
    texts()
    with pytest.raises(DataError, match=message):
        load(**keys)


def test_files_of_a_split_that_name_classes_differently(texts, load, tmp_path):
    texts((0, 1), (0,), class_names=["a", "b"])
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train_r1.parquet")
    write_split(tmp_path, "train", {"title": ["t"], "content": [""], "label": [0]}, ["b", "a"])
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train_r2.parquet")
    message = r"train_r1\.parquet names its classes \['a', 'b'\], train_r2\.parquet \['b', 'a'\]"
    with pytest.raises(DataError, match=message):
        load(train_split="train_r1+train_r2")


def test_damaged_parquet(texts, load, tmp_path):
    texts()
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        load()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_column": None}, r"dataset\.label_column is None"),
        ({"input_columns": []}, r"dataset\.input_columns is \[\]"),
        ({"kind": "image"}, r"dataset\.input_columns is \['title', 'content'\]; name the image's column"),
    ],
)
def test_columns_must_be_named(load, keys, message):
    with pytest.raises(ConfigError, match=message):
        load(**keys)


@pytest.fixture
def load_from_hub(make_settings, monkeypatch, tmp_path):
    """Ask a hub at the given address for MNIST, with a cache in ``tmp_path``."""
    from huggingface_hub import constants

    def load_mnist(endpoint):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        return load_source(make_settings(name="mnist", hub_id="ylecun/mnist"), seed=0)

    return load_mnist


def test_no_network_is_one_clear_line_and_quick(load_from_hub):
    started = time.perf_counter()
    with pytest.raises(
        DataError, match=rf"'ylecun/mnist' is neither in .*`{FETCH}` and set dataset\.path=DIR"
    ) as caught:
        load_from_hub("http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 60


@pytest.mark.slow
def test_hub_that_never_answers_is_given_up(load_from_hub):
    started = time.perf_counter()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match="is neither in the local cache"):
            load_from_hub(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.perf_counter() - started < 60


def test_earlier_download_is_used_without_network(load_from_hub, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "datasets--ylecun--mnist"
    for split in ("train", "test"):
        write_split(repository / "snapshots" / commit / "mnist", split, {"image": [png(1)], "label": [0]})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert len(load_from_hub("http://127.0.0.1:9").train) == 1


def test_offline_variable_is_respected(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*args): raise SystemExit('network used')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from tracefl.learning.datasets import DatasetSettings, load_source\n"
        "settings = DatasetSettings('mnist', 'hub', 'ylecun/mnist', 'image', None, 'train', 'test', None,\n"
        "    ['image'], 'label', None, [0.5] * 3, [0.5] * 3, 32, 128, 2048, 2048, 10, 'iid', 2, 2)\n"
        "try: load_source(settings, 0)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.startswith("DataError data set 'ylecun/mnist' is neither in the local cache nor")
    assert result.stdout.count("\n") == 1


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "keys", "size", "num_classes"),
    [
        ("mnist", {"kind": "image", "input_columns": ["image"]}, (8000, 2000), 10),
        ("cifar10", {"kind": "image", "input_columns": ["img"]}, (10000, 2000), 10),
        ("dbpedia_14", {"input_columns": ["title", "content"]}, (8000, 2000), 14),
        (
            "yahoo_answers_topics",
            {"input_columns": ["question_title", "question_content", "best_answer"], "label_column": "topic"},
            (4000, 418),
            10,
        ),
    ],
)
def test_real_data(shared_data, load, name, keys, size, num_classes):
    raw = load(**({"name": name, "path": str(shared_data / name)} | keys))
    assert (len(raw.train), len(raw.test)) == size
    assert raw.num_classes == num_classes
    examples = raw.train.read(np.array([7, 0]))
    assert len(examples) == 2
    assert all(example.strip() if raw.kind == "text" else all(example.size) for example in examples)
