"""The models of benchmarks/confusion.py: how each is trained, and on what."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tracefl.common.seeds import derive_seed
from tracefl.experiment.preparation import Prepared
from tracefl.learning.models import initial_model
from tracefl.records.settings import Settings

_IMAGES = ("batch_size=32", "dataset.image_size=16")
_TEXTS = ("batch_size=32", "dataset.max_tokens=48", "client.lr=0.001")
MODELS: dict[str, tuple[str, ...]] = {
    "cnn": _IMAGES,
    "norm": _IMAGES,
    "resnet18": ("model=resnet18", *_IMAGES),
    "densenet121": (
        *("model=densenet121", "batch_size=32", "dataset.image_size=32", "++model.config.block_config=[3,6,12,8]"),
        *("++model.config.growth_rate=12", "++model.config.num_init_features=24"),
    ),
    "gpt": ("model=gpt", *_TEXTS, "++model.config.n_layer=2", "++model.config.n_embd=128", "++model.config.n_head=4"),
    "bert": (
        *("model=bert", *_TEXTS, "++model.config.num_hidden_layers=2", "++model.config.hidden_size=128"),
        *("++model.config.num_attention_heads=4", "++model.config.intermediate_size=512"),
    ),
}
"""Model to its keys. cnn and norm are small networks of this file, without normalisation and with."""
DATASETS = {"gpt": ("dbpedia_14",), "bert": ("dbpedia_14",)}
"""Model to its data sets, where they are not images."""


class Small(nn.Module):
    """Three convolutions and a hidden layer for images of ``(3, 16, 16)``."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 24), (24, 48), (48, 48))])
        self.norms = nn.ModuleList([nn.BatchNorm2d(b) if normalised else nn.Identity() for b in (24, 48, 48)])
        self.hidden, self.out = nn.Linear(48 * 4 * 4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, 10)`` logits."""
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(convolution(x)))
            x = functional.max_pool2d(x, 2) if layer < 2 else x
        return self.out(functional.relu(self.hidden(x.flatten(1))))


def make(name: str, settings: Settings, prepared: Prepared) -> nn.Module:
    """Return a federation's initial model, with random weights."""
    seed = derive_seed(settings.seed, "model")
    if name not in ("cnn", "norm"):
        return initial_model(settings.model, prepared.spec, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(normalised=name == "norm")
