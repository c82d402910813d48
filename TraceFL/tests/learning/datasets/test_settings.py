import pytest

from tracefl.errors import ConfigError


def test_lists_become_tuples_and_text_has_no_channels(make_settings):
    settings = make_settings(kind="text", input_columns=["title", "content"])
    assert settings.input_columns == ("title", "content")
    assert settings.mean == settings.std == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "audio"}, r"dataset\.kind must be one of image, text, got 'audio'"),
        ({"mean": [0.5]}, r"dataset\.mean must be 3 numbers .*, got \[0\.5\]"),
        ({"mean": [0.5, 0.5, "x"]}, r"dataset\.mean must be 3 numbers"),
        ({"std": [0.5, 0.0, 0.5]}, r"dataset\.std must be 3 numbers above 0"),
        ({"std": [0.5, float("nan"), 0.5]}, r"dataset\.std must be 3 numbers"),
        ({"image_size": 0}, r"dataset\.image_size must be a whole number of at least 1, got 0"),
        ({"max_tokens": 1.5}, r"dataset\.max_tokens must be a whole number of at least 1, got 1\.5"),
        ({"max_examples_per_client": -1}, r"dataset\.max_examples_per_client must be .*, got -1"),
        ({"max_server_examples": True}, r"dataset\.max_server_examples must be .*, got True"),
        ({"min_examples_per_label": "ten"}, r"dataset\.min_examples_per_label must be .*, got 'ten'"),
        ({"input_columns": "image"}, r"dataset\.input_columns must be a list of columns.*, got 'image'"),
        ({"partition": "random"}, r"dataset\.partition must be one of dirichlet, .*, got 'random'"),
        ({"classes_per_client": 0}, r"dataset\.classes_per_client must be .*, got 0"),
        ({"shards_per_client": 0}, r"dataset\.shards_per_client must be .*, got 0"),
    ],
)
def test_illegal_values_are_refused_with_their_key(make_settings, keys, message):
    with pytest.raises(ConfigError, match=message):
        make_settings(**keys)


def test_unknown_keys_are_refused(make_settings):
    with pytest.raises(ConfigError, match=r"dataset\.colour is unknown; see --help"):
        make_settings(colour="red")
