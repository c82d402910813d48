"""Settings of small models."""

from tracefl.conf.constraints import read
from tracefl.learning.models import ModelSettings

TEXTS = [
    "The server averages the weights of its clients.",
    "A client that holds no such label is not to blame!",
    "Naïve, plain sums are enough; 12 rounds of 10 clients.",
    "A word",
]

BERT_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

TINY = {
    "gpt": ("gpt", "openai-gpt", {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 64}),
    "gpt2": ("nobody/tiny-gpt2", "gpt2", {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 64}),
    "bert": (
        "bert",
        "bert",
        {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32},
    ),
    "distilbert": ("nobody/tiny-distilbert", "distilbert", {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32}),
    "roberta": (
        "nobody/tiny-roberta",
        "roberta",
        {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32},
    ),
}


def text_settings(kind="gpt", **changes) -> ModelSettings:
    name, architecture, config = TINY[kind]
    values = {
        "name": name,
        "family": "transformers",
        "kind": "text",
        "pretrained": False,
        "architecture": architecture,
        "config": config,
        "tokenizer": "trained",
        "tokenizer_vocab": 320,
        "optimizer": "adamw",
        "lr": 5e-5,
    }
    return read(ModelSettings, {**values, **changes}, "model")


def image_settings(name="resnet18", **changes) -> ModelSettings:
    return read(ModelSettings, {**vars(ModelSettings(name, "torchvision", "image")), **changes}, "model")
