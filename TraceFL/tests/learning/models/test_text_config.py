"""Sizes of model.config, beside the configuration that transformers' own class makes of them."""

import pytest
import transformers

from tests.helpers.model_settings import BERT_SIZES, text_settings
from tracefl.errors import ConfigError
from tracefl.learning.models import initial_model, model_spec
from tracefl.learning.models.text_config import text_config

FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT_NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}

DERIVED = {  # what transformers derives of these sizes, which must not stay that of the default architecture
    "llama": (BERT_SIZES, ["head_dim", "num_key_value_heads"]),
    "phi3": (BERT_SIZES, ["num_key_value_heads"]),
    "olmo2": (BERT_SIZES, ["num_key_value_heads"]),
    "deberta-v2": (BERT_SIZES, ["pooler_hidden_size"]),
    "modernbert": (BERT_SIZES, ["layer_types"]),
    "gpt_neo": (GPT_NEO, ["attention_layers"]),
    "falcon": (FALCON, ["ffn_hidden_size"]),
    "opt": ({**FALCON, "ffn_dim": 64}, ["word_embed_proj_dim"]),
    "roberta": (BERT_SIZES, []),
}


def settings_of(architecture, sizes, **changes):
    return text_settings("gpt2", architecture=architecture, config=sizes, **changes)


@pytest.mark.parametrize("architecture", DERIVED)
def test_derived_sizes_are_those_of_transformers(architecture, encoder):
    sizes, derived = DERIVED[architecture]
    right = transformers.AutoConfig.for_model(architecture, **sizes)
    settings = settings_of(architecture, sizes)
    found = text_config(settings, settings.name, None, {})
    assert found.to_dict() == right.to_dict()
    default = transformers.AutoConfig.for_model(architecture)
    assert all(getattr(found, key) != getattr(default, key) for key in derived)
    right.vocab_size, right.num_labels, right.pad_token_id = encoder.vocab_size, 3, encoder.pad_id
    own = transformers.AutoModelForSequenceClassification.from_config(right)
    model = initial_model(settings, model_spec(settings, 3, encoder), 0)
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in (model, own)]
    assert shapes[0] == shapes[1]


def test_what_a_folder_states_is_kept_and_what_follows_from_it_follows(tmp_path):
    sizes = {**BERT_SIZES, "hidden_size": 64, "num_attention_heads": 4, "rms_norm_eps": 0.25}
    transformers.AutoConfig.for_model("llama", **sizes).save_pretrained(tmp_path / "derived")
    transformers.AutoConfig.for_model("llama", **sizes, head_dim=24).save_pretrained(tmp_path / "stated")
    changes = {"hidden_size": 32, "num_attention_heads": 2}
    for folder, head_dim in (("derived", 16), ("stated", 24)):
        source = str(tmp_path / folder)
        found = text_config(settings_of(None, changes, name=source), source, None, {})
        assert (found.head_dim, found.num_key_value_heads) == (head_dim, 2)
        assert (found.rms_norm_eps, found.num_hidden_layers, found.intermediate_size) == (0.25, 2, 64)


def test_layers_of_different_types_that_a_folder_states_are_not_guessed(tmp_path):
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    transformers.AutoConfig.for_model(
        "modernbert", **{**BERT_SIZES, "num_hidden_layers": 3}, layer_types=kinds
    ).save_pretrained(tmp_path)
    settings = settings_of(None, {"num_hidden_layers": 2}, name=str(tmp_path))
    with pytest.raises(ConfigError, match=r"model\.config=\{'num_hidden_layers': 2\} is not legal: .*layer_types"):
        text_config(settings, settings.name, None, {})
