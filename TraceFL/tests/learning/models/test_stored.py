"""Architectures that nobody vouches for: built as they were, or refused before they take memory, time or code."""

import resource
import threading
import time

import pytest
import torch
from torch import nn

from tests.helpers.model_settings import TEXTS, text_settings
from tracefl.errors import RecordError
from tracefl.learning.models import ModelSpec, build_model, build_stored, build_text_encoder, model_spec

RESNET = ModelSpec("torchvision", "resnet18", 4, {"layers": [1, 1, 1, 1]})


def shapes_of(spec):
    return [tuple(tensor.shape) for tensor in build_model(spec).state_dict().values()]


def text_spec(kind):
    settings = text_settings(kind, tokenizer="trained", tokenizer_vocab=300)
    return model_spec(settings, 4, build_text_encoder(settings, TEXTS))


@pytest.fixture(scope="module")
def gpt():
    """A model on texts, and the shapes of its weights."""
    spec = text_spec("gpt")
    return spec, shapes_of(spec)


def changed(spec, **config):
    return ModelSpec(spec.family, spec.name, spec.num_classes, {**spec.config, **config}, spec.norm)


def refused(spec, shapes):
    """Return why a model is refused, which takes neither time nor memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(RecordError) as caught:
        build_stored(spec, shapes)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("norm", ["own", "group"])
def test_a_model_of_images_is_built_as_it_was(norm):
    spec = ModelSpec(RESNET.family, RESNET.name, 4, RESNET.config, norm)
    model = build_stored(spec, shapes_of(spec))
    assert [tuple(tensor.shape) for tensor in model.state_dict().values()] == shapes_of(spec)
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())


@pytest.mark.parametrize("kind", ["gpt", "gpt2", "bert", "distilbert", "roberta"])
def test_a_model_of_texts_is_built_as_it_was(kind):
    spec = text_spec(kind)
    assert build_stored(spec, shapes_of(spec)).state_dict().keys() == build_model(spec).state_dict().keys()


def test_a_narrow_model_may_have_more_buffers_than_weights(gpt):
    """GPT has a mask of all pairs of positions in each layer, which is not stored."""
    spec = changed(gpt[0], n_positions=512, n_layer=12)
    model = build_model(spec)
    stored = sum(tensor.numel() for tensor in model.state_dict().values())
    assert sum(buffer.numel() for buffer in model.buffers()) > 10 * stored
    build_stored(spec, shapes_of(spec))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"auto_map": {"AutoModelForSequenceClassification": "somebody/model--code.Model"}}, "has auto_map="),
        ({"auto_map": None}, "has auto_map="),
        ({"trust_remote_code": True}, "has trust_remote_code=True"),
        ({"trust_remote_code": False}, "has trust_remote_code=False"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "has quantization_config="),
        ({"custom_pipelines": {}}, "has custom_pipelines="),
        ({"_target_": "os.system"}, "has _target_="),
        ({"_attn_implementation": "somebody/kernel"}, "has _attn_implementation='somebody/kernel'"),
        ({"attn_implementation": {"": "flash_attention_2"}}, "has attn_implementation="),
        ({"part": [{"of": {"auto_map": {}}}]}, "has auto_map="),
    ],
)
def test_code_of_its_own_is_refused(gpt, monkeypatch, config, words):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_config", lambda *_: pytest.fail("built"))
    assert words in refused(changed(gpt[0], **config), gpt[1])


@pytest.mark.parametrize("attention", [None, "eager", "sdpa"])
def test_attention_that_is_transformers_own_is_none(attention):
    spec = text_spec("bert")
    build_stored(changed(spec, _attn_implementation=attention), shapes_of(spec))


@pytest.mark.parametrize(
    "config",
    [
        *({"n_layer": 10**7}, {"n_embd": 10**6}, {"n_positions": 10**8}, {"vocab_size": 10**8}, {"num_labels": 10**8}),
        *({"n_layer": 10**400}, {"num_labels": 10**7}, {"num_labels": 5}, {"num_labels": "4"}, {"vocab_size": -1}),
        *({"n_head": 0}, {"model_type": "nothing"}, {"model_type": "bert"}, {"afn": "x"}, {"model_type": None}),
    ],
)
def test_a_text_model_that_is_not_the_weights(gpt, config):
    refused(changed(gpt[0], **config), gpt[1])


@pytest.mark.parametrize(
    "spec",
    [
        *(ModelSpec("torchvision", "resnet18", 4, {"layers": [n, 1, 1, 1]}) for n in (10**7, 10**12, 10**400, "x")),
        ModelSpec("torchvision", "resnet18", 10**6, RESNET.config),
        ModelSpec("torchvision", "resnet18", 4, {"width_per_group": 10**5, **RESNET.config}),
        ModelSpec("torchvision", "resnet152", 4, {}),
        ModelSpec("torchvision", "densenet121", 4, {"growth_rate": 10**6}),
        ModelSpec("torchvision", "nothing", 4, {}),
        ModelSpec("transformers", "resnet18", 4, {}),
        ModelSpec("torchvision", "resnet18", 4, {"weights": "DEFAULT"}),
    ],
)
def test_an_image_model_that_is_not_the_weights(spec):
    refused(spec, shapes_of(RESNET))


def test_other_models_and_other_threads_are_not_counted():
    """While a stored model is built, and after one was refused."""
    made, stop = [], threading.Event()

    def build():
        while not stop.is_set():
            made.append(nn.Sequential(*(nn.Linear(100, 100) for _ in range(100))))
            made[:-1] = []

    other = threading.Thread(target=build)
    other.start()
    try:
        build_stored(RESNET, shapes_of(RESNET))
        refused(ModelSpec("torchvision", "resnet18", 4, {"layers": [10**7, 1, 1, 1]}), shapes_of(RESNET))
    finally:
        stop.set()
        other.join()
    assert sum(p.numel() for p in nn.Linear(3000, 3000).parameters()) == 3000 * 3001
    assert made
    assert torch.empty(1).device.type == "cpu"
