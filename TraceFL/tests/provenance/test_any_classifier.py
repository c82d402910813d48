"""Architectures that nothing in the engine knows of, against autograd's gradient of each input."""

import warnings

import pytest
import torch
import torchvision
import transformers
from torch import nn
from torch.testing import assert_close
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from tests.helpers.models import clients_near, model_and_inputs
from tracefl.provenance import Compute, attribute
from tracefl.provenance.capture import traced_layers
from tracefl.provenance.layers import OPTIONS, traced_tensors

SMALL_TEXT = {"vocab_size": 50, "num_labels": 4, "pad_token_id": 0}


def text(kind, **sizes):
    config = transformers.CONFIG_MAPPING[kind](**SMALL_TEXT, **sizes)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def image(kind, **sizes):
    config = transformers.CONFIG_MAPPING[kind](num_labels=4, image_size=32, **sizes)
    return transformers.AutoModelForImageClassification.from_config(config)


BERT_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
LLAMA_SIZES = {**BERT_SIZES, "num_key_value_heads": 2}

# Name to the model, and to those of its parameters that no layer of a registered kind applies.
CLASSIFIERS = {
    "distilbert": (lambda: text("distilbert", dim=16, hidden_dim=32, n_layers=2, n_heads=2), set()),
    "roberta": (lambda: text("roberta", **{**BERT_SIZES, "max_position_embeddings": 20}), set()),
    "gpt2": (lambda: text("gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=16), set()),
    "llama": (lambda: text("llama", **LLAMA_SIZES), set()),
    "qwen2": (lambda: text("qwen2", **LLAMA_SIZES), set()),
    "vit": (
        lambda: image(
            "vit", hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8
        ),
        {"cls_token", "position_embeddings"},
    ),
    "convnext of transformers": (
        lambda: image("convnext", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
        {"layer_scale_parameter"},
    ),
    "convnext": (
        lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=4),
        {"layer_scale"},
    ),
    "mobilenet_v3": (lambda: torchvision.models.mobilenet_v3_small(num_classes=4), set()),
    "efficientnet": (lambda: torchvision.models.efficientnet_b0(num_classes=4), set()),
    "vit of torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4),
        # Its attention calls no layer for its projections: it multiplies by the parameters itself.
        {"class_token", "pos_embedding", "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"},
    ),
}


def inputs_for(model):
    if isinstance(model, transformers.PreTrainedModel) and model.main_input_name == "input_ids":
        ids = torch.randint(1, 50, (3, 12))
        mask = torch.ones_like(ids)
        ids[0, 7:], mask[0, 7:] = 0, 0
        return {"input_ids": ids, "attention_mask": mask}
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    return {"pixel_values": images} if isinstance(model, transformers.PreTrainedModel) else images


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_without_special_case_agrees_with_autograd(name):
    torch.manual_seed(0)
    build, not_traced = CLASSIFIERS[name]
    model = build().double().eval()
    inputs = inputs_for(model)
    own = model.state_dict()
    # BatchNorm's statistics have no gradient in autograd, and tests of their own: here all clients have the same.
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    clients = {
        k: {n: own[n] if n.rpartition(".")[0] in norms else w for n, w in weights.items()}
        for k, weights in clients_near(model).items()
    }
    with pytest.warns() if not_traced else warnings.catch_warnings():
        warnings.filterwarnings("error" if not not_traced else "default", "not traced")
        layers = traced_layers(model, None, OPTIONS)
        found = attribute(model, clients, inputs, layer_decay=1.0, reference=own, also=OPTIONS)
    traced = {f"{at}.{tensor}" for at, layer in layers.items() for tensor in traced_tensors(layer)}
    traced = {n for n in traced if not any(n.endswith(end) for end in not_traced)}
    left = {n for n, _ in model.named_parameters()} - traced
    assert {end for n in left for end in not_traced if n.endswith(end)} == not_traced
    assert all(any(n.endswith(end) for end in not_traced) for n in left), left

    parameters = {n: p for n, p in model.named_parameters() if n in traced}
    for i in range(3):
        one = {n: t[i : i + 1] for n, t in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]
        out = model(**one) if isinstance(one, dict) else model(one)
        logits = getattr(out, "logits", out)[0]
        gradients = torch.autograd.grad(logits.max(), list(parameters.values()), allow_unused=True)
        for column, client in enumerate(clients.values()):
            pairs = zip(parameters, gradients, strict=True)
            expected = sum(((client[n] - own[n]) * g).sum() for n, g in pairs if g is not None)
            assert_close(found.contributions[i, column], expected, rtol=1e-8, atol=1e-9)


def test_a_batch_that_shares_its_positions_stays_a_batch():
    """GPT looks its positions up once for all inputs; each input still has its own part in them."""
    model, inputs = model_and_inputs("gpt", torch.float64, num_inputs=9)
    sizes = []
    clients, options = clients_near(model), {"reference": model.state_dict(), "also": ("embedding",)}
    hook = model.register_forward_pre_hook(lambda _, __, named: sizes.append(len(named["input_ids"])), with_kwargs=True)
    found = attribute(model, clients, inputs, **options)
    hook.remove()
    assert sizes.count(9) == 1
    assert sizes in ([9], [9, 1])  # the one alone tells which dimension is the batch's
    alone = attribute(model, clients, inputs, compute=Compute(batch_size=1), **options)
    assert_close(found.contributions, alone.contributions)
    positions = attribute(model, clients, inputs, layers=["transformer.positions_embed"], **options)
    assert positions.contributions.abs().sum(dim=1).all()
