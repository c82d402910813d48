"""Image and text classifiers by name, and tokenizers for text."""

from tracefl.learning.models import text, vision  # noqa: F401  registers the models
from tracefl.learning.models.registry import (
    build_model,
    check_max_tokens,
    find_model,
    initial_model,
    model_names,
    model_spec,
    register_model,
)
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.learning.models.text_encoder import TextEncoder
from tracefl.learning.models.tokenizer import build_text_encoder

__all__ = [
    "ModelSettings",
    "ModelSpec",
    "TextEncoder",
    "build_model",
    "build_text_encoder",
    "check_max_tokens",
    "find_model",
    "initial_model",
    "model_names",
    "model_spec",
    "register_model",
]
