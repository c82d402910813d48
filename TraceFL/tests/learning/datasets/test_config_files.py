from pathlib import Path

import pytest

import tracefl
from tracefl.conf.constraints import read
from tracefl.learning.datasets import DatasetSettings, source_names

hydra = pytest.importorskip("hydra")
from omegaconf import OmegaConf  # noqa: E402 - only where hydra is installed

FOLDER = Path(tracefl.__file__).parent / "conf"
NAMES = sorted(path.stem for path in (FOLDER / "dataset").glob("*.yaml") if not path.stem.startswith("_"))
REQUIRED = {"hub": ["dataset.name=ID", "dataset.input_columns=[image]", "dataset.label_column=label"]}


@pytest.fixture
def compose():
    def compose_dataset(name, overrides):
        with hydra.initialize_config_dir(str(FOLDER), version_base=None):
            config = hydra.compose(config_name=f"dataset/{name}", overrides=overrides).dataset
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)

    return compose_dataset


def test_every_data_set_has_a_file():
    assert set(NAMES) == {
        "digits",
        "synthetic_text",
        "mnist",
        "cifar10",
        "dbpedia_14",
        "yahoo_answers_topics",
        "pathmnist",
        "organamnist",
        "hub",
    }


@pytest.mark.parametrize("name", NAMES)
def test_file_composes_to_legal_settings(compose, name):
    settings = read(DatasetSettings, compose(name, REQUIRED.get(name, [])), "dataset")
    assert settings.source in source_names()
    assert (settings.image_size, settings.max_tokens) == (32, 128)
    assert (settings.max_examples_per_client, settings.max_server_examples) == (2048, 2048)
    assert settings.min_examples_per_label == 10


def test_hub_asks_for_its_columns(compose):
    with pytest.raises(Exception, match=r"dataset\.\w+"):
        compose("hub", [])


def test_yahoo_has_ten_classes(compose):
    assert len(compose("yahoo_answers_topics", [])["label_names"]) == 10
