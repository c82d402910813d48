"""Models by name: how each is described, built and given its initial weights."""

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError
from tracefl.learning.examples import Examples
from tracefl.learning.models import text, vision  # noqa: F401 - they register their models
from tracefl.learning.models.family import MODELS, OPEN_FAMILIES, ModelFamily
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.learning.models.trial import try_model

if TYPE_CHECKING:
    from tracefl.learning.models.text_encoder import TextEncoder

log = logging.getLogger(__name__)

_TRIED = 2


def model_names() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(MODELS))


def find_model(name: str, family: str) -> ModelFamily:
    """Return the model ``name`` of ``family``.

    Raises:
        ConfigError: The name is unknown, or belongs to another family.
    """
    if name in MODELS:
        model = MODELS[name]
        if model.family != family:
            raise ConfigError(f"model.family={family!r}: {name!r} is of {model.family!r}; set model.family to that")
        return model
    if family in OPEN_FAMILIES:
        return OPEN_FAMILIES[family](name)
    known = ", ".join(known for known in model_names() if MODELS[known].family == family)
    raise ConfigError(f"model.name={name!r} is unknown; choose one of {known}{did_you_mean(name, model_names())}")


def model_spec(settings: ModelSettings, num_classes: int, tokenizer: "TextEncoder | None" = None) -> ModelSpec:
    """Describe the architecture that ``settings`` ask for.

    Args:
        settings: The configuration's ``model`` group.
        num_classes: Number of labels, at least 2.
        tokenizer: The text encoder whose ids the model will read; ``None`` for images.

    Raises:
        ConfigError: A name, size or combination is illegal, or a configuration can't be fetched.
    """
    if num_classes < 2:
        raise ConfigError(f"a model needs 2 classes or more, got {num_classes}; check dataset.name")
    return find_model(settings.name, settings.family).spec(settings, num_classes, tokenizer)


def build_model(spec: ModelSpec) -> nn.Module:
    """Build the architecture with random weights from torch's current generator; the caller seeds it."""
    return _with_norm(find_model(spec.name, spec.family).build(spec), spec)


def initial_model(settings: ModelSettings, spec: ModelSpec, seed: int, examples: Examples | None = None) -> nn.Module:
    """Build a federation's initial model on the CPU, and try it; torch's global generators stay as they are.

    Args:
        settings: The configuration's ``model`` group; ``pretrained`` selects the weights to load.
        spec: The result of ``model_spec`` for these settings.
        seed: Determines all weights that are not loaded.
        examples: The run's, of which the model is tried on the first; None for made-up texts, and no images.

    Raises:
        ConfigError: Weights can't be fetched or read, or the model cannot classify them.
        ModelMismatchError: The weights are of another architecture; only the classifier's shape may differ, and it
            then stays random.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        family = find_model(settings.name, settings.family)
        model = family.build(spec)
        if settings.pretrained is not False:
            family.load_pretrained(model, settings)  # published weights belong to the architecture's own normalisation
        model = _with_norm(model, spec)
        inputs = family.example(spec)
        if examples is not None:
            inputs, _ = examples.batch(torch.arange(min(len(examples), _TRIED)))
        if inputs is not None:
            try_model(model, inputs, settings, spec)
        return model


def _with_norm(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """Return the model with the normalisation that its specification names."""
    if spec.norm == "own":
        return model
    from tracefl.learning.models.group_norm import with_group_norm  # imports Opacus

    return with_group_norm(model)


def check_max_tokens(spec: ModelSpec, max_tokens: int, key: str = "dataset.max_tokens") -> None:
    """Check that the model has positions for inputs of this length.

    Args:
        spec: The architecture.
        max_tokens: Length that texts are padded and cut to, in tokens.
        key: Configuration key of that length, used in the error message.

    Raises:
        ConfigError: ``max_tokens`` is below 1 or above the model's limit.
    """
    limit = find_model(spec.name, spec.family).max_tokens(spec)
    if max_tokens < 1 or (limit is not None and max_tokens > limit):
        most = "" if limit is None else f" and at most {limit}, the positions of model.name={spec.name}"
        raise ConfigError(f"{key}={max_tokens}: give at least 1{most}")
