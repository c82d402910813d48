import subprocess
import sys

import pytest
import torch

from tests.helpers.model_settings import image_settings, text_settings
from tracefl.errors import ConfigError
from tracefl.learning.models import ModelSpec, build_model, check_max_tokens, initial_model, model_names, model_spec
from tracefl.learning.models.family import ModelFamily, register_model

ALONE = """
import sys
for name in ("flwr", "hydra", "omegaconf", "ray", "datasets"):
    sys.modules[name] = None
import tracefl.learning.models as models
assert not {"torchvision", "transformers", "tokenizers"} & set(sys.modules), "imported before it is needed"
spec = models.ModelSpec.from_json(sys.argv[1])
assert models.build_model(spec) is not None
"""


def test_names():
    assert set(model_names()) == {
        "bert",
        "densenet121",
        "gpt",
        "resnet101",
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
    }


def test_unknown_name_gets_near_matches():
    with pytest.raises(ConfigError, match=r"model\.name='resnet8' is unknown.*did you mean .*'resnet18'"):
        model_spec(image_settings("resnet8"), 10)


def test_name_of_another_family():
    with pytest.raises(ConfigError, match=r"model\.family='torchvision': 'bert' is of 'transformers'"):
        model_spec(image_settings("bert"), 10)


def test_one_class_is_not_enough():
    with pytest.raises(ConfigError, match="2 classes or more, got 1"):
        model_spec(image_settings(), 1)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'gpt' is registered twice"):
        register_model("gpt")(ModelFamily)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_seed_fixes_the_weights_and_leaves_the_global_generator(kind, tiny_spec):
    settings = image_settings() if kind == "image" else text_settings()
    spec = ModelSpec("torchvision", "resnet18", 10) if kind == "image" else tiny_spec()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (initial_model(settings, spec, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_build_draws_from_the_callers_generator(tiny_spec):
    spec = tiny_spec()
    torch.manual_seed(7)
    built = build_model(spec).state_dict()
    seeded = initial_model(text_settings(), spec, 7).state_dict()
    assert all(torch.equal(built[name], seeded[name]) for name in built)


@pytest.mark.parametrize("kind", ["gpt", "bert", "distilbert", "roberta", "gpt2"])
def test_specification_alone_rebuilds_the_same_parameters(kind, tiny_spec):
    spec = tiny_spec(kind)
    first, again = build_model(spec), build_model(ModelSpec.from_json(spec.to_json()))
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (first, again)]
    assert shapes[0] == shapes[1]
    assert "nobody" not in str(spec.config)


def test_needs_neither_federation_nor_configuration_libraries(tiny_spec):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tiny_spec().to_json()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_images_have_no_limit_of_tokens():
    check_max_tokens(ModelSpec("torchvision", "resnet18", 10), 10_000)
    with pytest.raises(ConfigError, match=r"dataset\.max_tokens=0"):
        check_max_tokens(ModelSpec("torchvision", "resnet18", 10), 0)
