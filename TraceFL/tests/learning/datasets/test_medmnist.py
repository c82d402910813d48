import numpy as np
import pytest

from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets import load_source, prepare


@pytest.fixture
def write_npz(tmp_path):
    """Write a file in MedMNIST's layout; ``replaced`` overrides arrays, ``None`` leaves one out."""

    def write(name, shape, num_classes, **replaced):
        generator = np.random.default_rng(0)
        arrays = {}
        for split, count in (("train", 60), ("val", 20), ("test", 30)):
            arrays[f"{split}_images"] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % num_classes).astype(np.uint8)[:, None]
        arrays = {key: value for key, value in (arrays | replaced).items() if value is not None}
        np.savez_compressed(tmp_path / f"{name}.npz", **arrays)
        return arrays

    return write


@pytest.fixture
def load(make_settings, tmp_path):
    return lambda name, **keys: load_source(
        make_settings(**({"name": name, "source": "medmnist", "root": str(tmp_path)} | keys)), seed=0
    )


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "first"),
    [("pathmnist", (28, 28, 3), 9, "adipose"), ("organamnist", (28, 28), 11, "bladder")],
)
@pytest.mark.usefixtures("no_network")
def test_train_and_test_are_read(write_npz, load, name, shape, num_classes, first):
    arrays = write_npz(name, shape, num_classes)
    raw = load(name)
    assert (raw.num_classes, raw.label_names[0], raw.kind) == (num_classes, first, "image")
    assert (len(raw.train), len(raw.test)) == (60, 30)  # val is not used
    assert raw.train.labels.tolist() == arrays["train_labels"][:, 0].tolist()
    np.testing.assert_array_equal(np.stack(raw.test.read(np.array([5, 2]))), arrays["test_images"][[5, 2]])


@pytest.mark.usefixtures("no_network")
def test_grayscale_is_prepared(write_npz, load, make_settings):
    write_npz("organamnist", (28, 28), 1)
    settings = make_settings(image_size=32)
    data = prepare(load("organamnist"), settings, settings.partition_settings(1e6), 2, 8, 0, None)
    assert data.server.features["pixels"].shape == (30, 3, 32, 32)


@pytest.mark.usefixtures("no_network")
def test_missing_file_says_how_to_fetch_it(load, tmp_path):
    with pytest.raises(DataError, match=r"has no pathmnist\.npz; .*medmnist\.PathMNIST\(.*set dataset\.root=DIR"):
        load("pathmnist")
    with pytest.raises(DataError, match=r"nowhere has no pathmnist\.npz"):
        load("pathmnist", root=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut"])
def test_damaged_file(load, tmp_path, content):
    (tmp_path / "pathmnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not MedMNIST's file .*remove it"):
        load("pathmnist")


def test_file_with_bytes_overwritten(write_npz, load, tmp_path):
    write_npz("pathmnist", (28, 28, 3), 9)
    content = bytearray((tmp_path / "pathmnist.npz").read_bytes())
    content[5000:6000] = b"\xff" * 1000  # inside the compressed train_images
    (tmp_path / "pathmnist.npz").write_bytes(content)
    with pytest.raises(DataError, match="is not MedMNIST's file"):
        load("pathmnist")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_images": None}, "is not MedMNIST's file .*train_images"),
        ({"train_images": np.zeros((60, 28, 28))}, r"train_images is float64 \(60, 28, 28\), expected uint8"),
        ({"test_labels": np.zeros((3, 1), dtype=np.uint8)}, "test_labels is uint8 of 3 labels for 30 images"),
        ({"test_labels": np.full((30, 1), 9)}, "test_labels holds 9 to 9, expected 0 to 8"),
        ({"train_labels": np.full((60, 1), -1)}, "train_labels holds -1 to -1"),
    ],
)
def test_wrong_content(write_npz, load, replaced, message):
    write_npz("pathmnist", (28, 28, 3), 9, **replaced)
    with pytest.raises(DataError, match=message):
        load("pathmnist")


@pytest.mark.parametrize("name", ["pathmnits", "chestmnist", "organmnist3d"])
def test_data_sets_that_do_not_fit(load, name):
    with pytest.raises(ConfigError, match=rf"dataset\.name is '{name}'; set it to one of pathmnist"):
        load(name)


def test_download_that_fails_says_how_to_fetch(load, monkeypatch, tmp_path):
    # No server answers on this address, whether or not the machine has a network.
    import medmnist.info

    monkeypatch.setattr(medmnist.info, "DEFAULT_ROOT", str(tmp_path))
    monkeypatch.setitem(medmnist.info.INFO["pathmnist"], "url", "http://127.0.0.1:9/pathmnist.npz")
    with pytest.raises(DataError, match=r"could not be downloaded; on a machine with network run .*dataset\.root=DIR"):
        load("pathmnist", root=None)


def test_home_that_cannot_be_written(load, monkeypatch):
    import medmnist.info

    monkeypatch.setattr(medmnist.info, "DEFAULT_ROOT", None)
    with pytest.raises(DataError, match=r"the home directory cannot be written; .*dataset\.root=DIR"):
        load("pathmnist", root=None)
