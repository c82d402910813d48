import pytest

from tracefl.errors import ConfigError
from tracefl.learning.datasets import DatasetSettings


def test_lists_become_tuples_and_text_has_no_channels(make_settings):
    settings = make_settings(kind="text", input_columns=["title", "content"])
    assert settings.input_columns == ("title", "content")
    assert settings.mean == settings.std == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "audio"}, r"dataset\.kind is 'audio'; set it to one of image, text"),
        ({"mean": [0.5]}, r"dataset\.mean is \[0\.5\]; set it to 3 numbers"),
        ({"mean": [0.5, 0.5, "x"]}, r"dataset\.mean is"),
        ({"std": [0.5, 0.0, 0.5]}, r"dataset\.std is .* above 0"),
        ({"std": [0.5, float("nan"), 0.5]}, r"dataset\.std is"),
        ({"image_size": 0}, r"dataset\.image_size is 0; set it to a whole number from 1"),
        ({"max_tokens": 1.5}, r"dataset\.max_tokens is 1\.5"),
        ({"max_examples_per_client": -1}, r"dataset\.max_examples_per_client is -1"),
        ({"max_server_examples": True}, r"dataset\.max_server_examples is True"),
        ({"min_examples_per_label": "ten"}, r"dataset\.min_examples_per_label is 'ten'"),
        ({"input_columns": "image"}, r"dataset\.input_columns is 'image'; set it to a list"),
        ({"partition": "random"}, r"dataset\.partition is 'random'; set it to one of dirichlet"),
        ({"classes_per_client": 0}, r"dataset\.classes_per_client is 0"),
        ({"shards_per_client": 0}, r"dataset\.shards_per_client is 0"),
    ],
)
def test_illegal_values_are_refused_with_their_key(make_settings, keys, message):
    with pytest.raises(ConfigError, match=message):
        make_settings(**keys)


@pytest.mark.parametrize("alpha", [0, -1.0, float("inf"), float("nan"), "small"])
def test_illegal_alpha_is_refused(make_settings, alpha):
    with pytest.raises(ConfigError, match=r"dirichlet_alpha is .* above 0"):
        make_settings().partition_settings(alpha)


def test_unknown_keys_are_refused():
    with pytest.raises(TypeError, match="colour"):
        DatasetSettings(colour="red")
