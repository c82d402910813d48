from pathlib import Path

import pytest

import tracefl
from tests.helpers.model_settings import image_settings, text_settings
from tracefl.conf.constraints import read
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.models import ModelSettings, ModelSpec, model_names

CONF = Path(tracefl.__file__).parent / "conf" / "model"


@pytest.mark.parametrize("name", [*model_names(), "hf"])
def test_every_model_has_a_configuration_that_makes_settings(name):
    hydra = pytest.importorskip("hydra")
    omegaconf = pytest.importorskip("omegaconf")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(name)
    if name == "hf":
        composed.name = "nobody/some-model"
    settings = read(ModelSettings, omegaconf.OmegaConf.to_container(composed, resolve=True), "model")
    is_text = settings.kind == "text"
    assert settings.pretrained is is_text
    assert (settings.optimizer, settings.lr) == (("adamw", 5e-5) if is_text else ("adam", 0.001))
    assert settings.name == ("nobody/some-model" if name == "hf" else name)


def test_every_configuration_is_a_model():
    files = {file.stem for file in CONF.glob("*.yaml") if not file.stem.startswith("_")}
    assert files == {*model_names(), "hf"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"family": "torchvison"},
            r"model\.family must be one of .*, got 'torchvison'; did you mean 'torchvision'",
        ),
        ({"kind": "text"}, r"model\.kind must be image, got 'text'"),
        ({"optimizer": "sgd"}, r"model\.optimizer must be one of adam, adamw, got 'sgd'"),
        ({"lr": 0}, r"model\.lr must be a number above 0, got 0"),
        ({"lr": float("nan")}, r"model\.lr must be a number above 0, got nan"),
        ({"lr": "5e-5"}, r"model\.lr must be a number above 0, got '5e-5'"),
        ({"name": " "}, r"model\.name must be text .*, got ' '"),
        ({"pretrained": ""}, r"model\.pretrained must be true or false or the path of weights, got ''"),
        ({"pretrained": None}, r"model\.pretrained must be true or false or the path of weights, got None"),
        ({"architecture": ""}, r"model\.architecture must be text .* or null, got ''"),
        ({"tokenizer": ""}, r"model\.tokenizer must be text .*, got ''"),
        ({"tokenizer_vocab": 10}, r"model\.tokenizer_vocab must be a whole number of at least 300, got 10"),
        ({"tokenizer_vocab": True}, r"model\.tokenizer_vocab must be .*, got True"),
        ({"config": ["n_layer"]}, r"model\.config must be a mapping of attributes, .*, got \['n_layer'\]"),
    ],
)
def test_illegal_values_name_their_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        image_settings(**changes)


def test_specification_survives_json(tiny_spec):
    for spec in (tiny_spec("roberta"), ModelSpec("torchvision", "resnet18", 10, norm="group")):
        again = ModelSpec.from_json(spec.to_json())
        assert again == spec
        assert again.to_json() == spec.to_json()


@pytest.mark.parametrize("text", ["", "[1]", '{"family": "torchvision"}'])
def test_damaged_specification_is_refused(text):
    with pytest.raises(RecordError, match="model specification"):
        ModelSpec.from_json(text)


def test_settings_do_not_share_the_callers_mapping():
    sizes = {"n_layer": 2}
    settings = text_settings(config=sizes)
    sizes["n_layer"] = 3
    assert settings.config == {"n_layer": 2}


def test_an_unknown_norm_is_refused():
    text = ModelSpec("torchvision", "resnet18", 10).to_json()
    with pytest.raises(RecordError, match="has norm='instance', expected own or group"):
        ModelSpec.from_json(text.replace('"own"', '"instance"'))
