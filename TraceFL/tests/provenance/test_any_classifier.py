"""Architectures that nothing in the engine knows of, against autograd's gradient of each input."""

import pytest
import torch
import torchvision
import transformers
from torch import nn
from torch.testing import assert_close
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from tests.helpers.derivatives import derivatives
from tests.helpers.formula import attribute
from tests.helpers.models import clients_near, model_and_inputs
from tracefl.provenance import Compute
from tracefl.provenance.layers import OPTIONS

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

CLASSIFIERS = {
    "distilbert": lambda: text("distilbert", dim=16, hidden_dim=32, n_layers=2, n_heads=2),
    "roberta": lambda: text("roberta", **{**BERT_SIZES, "max_position_embeddings": 20}),
    "gpt2": lambda: text("gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=16),
    "llama": lambda: text("llama", **LLAMA_SIZES),
    "qwen2": lambda: text("qwen2", **LLAMA_SIZES),
    "vit": lambda: image(
        "vit", hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8
    ),
    "convnext of transformers": lambda: image("convnext", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=4),
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
    "efficientnet": lambda: torchvision.models.efficientnet_b0(num_classes=4),
    "vit of torchvision": lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4),
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
def test_a_classifier_without_special_case_agrees_with_autograd(name, recwarn):
    torch.manual_seed(0)
    model = CLASSIFIERS[name]().double().eval()
    inputs = inputs_for(model)
    own = model.state_dict()
    # BatchNorm's statistics have no gradient in autograd, and tests of their own: here all clients have the same.
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    clients = {
        k: {n: own[n] if n.rpartition(".")[0] in norms else w for n, w in weights.items()}
        for k, weights in clients_near(model).items()
    }
    found = attribute(model, clients, inputs, target="predicted", layer_decay=1.0, reference=own, also=OPTIONS)
    assert_close(found.contributions, derivatives(model, clients, inputs, own), rtol=1e-8, atol=1e-9)
    assert not [w for w in recwarn if "not traced" in str(w.message)]


def test_a_batch_that_shares_its_positions_stays_a_batch():
    """GPT looks its positions up once for all inputs; each input still has its own part in them."""
    model, inputs = model_and_inputs("gpt", torch.float64, num_inputs=9)
    sizes = []
    clients, options = clients_near(model), {"reference": model.state_dict(), "also": ("embedding",)}
    hook = model.register_forward_pre_hook(lambda _, __, named: sizes.append(len(named["input_ids"])), with_kwargs=True)
    found = attribute(model, clients, inputs, **options)
    hook.remove()
    assert sizes == [9, 8, 1]  # the others check it: some in another order, and one alone
    alone = attribute(model, clients, inputs, compute=Compute(batch_size=1), **options)
    assert_close(found.contributions, alone.contributions)
    positions = attribute(model, clients, inputs, layers=["transformer.positions_embed"], **options)
    assert positions.contributions.abs().sum(dim=1).all()
