"""A new model is tried before a run begins."""

import pytest
import torch

from tests.helpers.model_settings import BERT_SIZES, image_settings, text_settings
from tracefl.errors import ConfigError
from tracefl.learning.examples import Examples
from tracefl.learning.models import initial_model, model_spec


def images(size):
    none = torch.zeros(3, dtype=torch.int64)
    return Examples({"pixels": torch.zeros(3, 3, size, size, dtype=torch.uint8)}, none, none, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("architecture", ["mistral", "qwen3"])
def test_sizes_that_fail_in_the_first_forward_are_refused(architecture, encoder):
    """Their key-value heads are no function of the other sizes, and transformers builds a model that cannot run."""
    settings = text_settings("gpt2", architecture=architecture, config=BERT_SIZES)
    spec = model_spec(settings, 3, encoder)
    message = rf"architecture {architecture} with hidden_size=32, .* fails on its first inputs: .*model\.config"
    with pytest.raises(ConfigError, match=message) as caught:
        initial_model(settings, spec, 0)
    assert "\n" not in str(caught.value)
    whole = text_settings(
        "gpt2", architecture=architecture, config={**BERT_SIZES, "num_key_value_heads": 1, "head_dim": 16}
    )
    assert initial_model(whole, model_spec(whole, 3, encoder), 0).training


def test_images_too_small_for_the_model_are_refused():
    settings = image_settings("densenet121")
    spec = model_spec(settings, 4)
    with pytest.raises(ConfigError, match=r"densenet121 .* fails on its first inputs: .*dataset\.image_size, now 16"):
        initial_model(settings, spec, 0, images(16))


def test_trying_changes_nothing():
    settings = image_settings(config={"layers": [1, 1, 1, 1]})
    spec = model_spec(settings, 4)
    before = torch.get_rng_state()
    tried, fresh = initial_model(settings, spec, 3, images(8)), initial_model(settings, spec, 3)
    assert tried.training
    assert torch.get_rng_state().equal(before)
    assert all(tensor.equal(fresh.state_dict()[name]) for name, tensor in tried.state_dict().items())
