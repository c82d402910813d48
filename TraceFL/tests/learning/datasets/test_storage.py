from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tracefl.errors import RecordError
from tracefl.learning.datasets import load_examples, save_examples
from tracefl.learning.examples import PIXELS, Examples


@pytest.fixture
def images():
    pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Examples({PIXELS: pixels}, torch.arange(5), torch.arange(5) * 7, (0.1307, 0.2, 0.3), (0.3081, 0.5, 0.6))


def assert_same(left, right):
    assert left.features.keys() == right.features.keys()
    for name, tensor in left.features.items():
        assert torch.equal(tensor, right.features[name])
        assert tensor.dtype == right.features[name].dtype
    assert torch.equal(left.labels, right.labels)
    assert torch.equal(left.rows, right.rows)
    assert (left.mean, left.std) == (right.mean, right.std)


def test_images_come_back(tmp_path, images):
    save_examples(tmp_path / "a.safetensors", images)
    assert_same(load_examples(tmp_path / "a.safetensors"), images)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_text_and_views_come_back(tmp_path):
    tokens = torch.arange(20, dtype=torch.int32).reshape(4, 5)
    text = Examples({"input_ids": tokens.T, "attention_mask": tokens.T % 2}, torch.zeros(5).long(), torch.arange(5))
    save_examples(tmp_path / "a", text)
    assert_same(load_examples(tmp_path / "a"), text)


def test_file_is_replaced_and_earlier_readers_keep_theirs(tmp_path, images):
    save_examples(tmp_path / "a", images)
    before = load_examples(tmp_path / "a")
    second = {
        "features": {"pixels": images.features["pixels"][1:2]},
        "labels": images.labels[1:2],
        "rows": images.rows[1:2],
    }
    save_examples(tmp_path / "a", replace(images, **second))
    assert len(load_examples(tmp_path / "a")) == 1
    assert_same(before, images)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_file(tmp_path, images, keep):
    path = tmp_path / "a"
    save_examples(path, images)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError, match=r"cannot be read from .*prepare the data again"):
        load_examples(path)


def test_missing_file(tmp_path):
    with pytest.raises(RecordError, match=r"cannot be read from .*nothing"):
        load_examples(tmp_path / "nothing")


def test_file_of_something_else(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "a")
    with pytest.raises(RecordError, match="lacks labels, mean, rows, std"):
        load_examples(tmp_path / "a")


def test_lengths_that_differ(tmp_path, images):
    save_examples(tmp_path / "a", Examples(images.features, images.labels[:3], images.rows))
    with pytest.raises(RecordError, match="holds tensors of lengths"):
        load_examples(tmp_path / "a")


def test_folder_that_is_missing(tmp_path, images):
    with pytest.raises(RecordError, match="cannot be written to"):
        save_examples(tmp_path / "nowhere" / "a", images)
