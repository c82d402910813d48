"""Image and text classifiers by name, and tokenizers for text."""

from typing import TYPE_CHECKING

from tracefl.common.imports import on_demand

if TYPE_CHECKING:
    from tracefl.learning.models.family import register_model
    from tracefl.learning.models.registry import (
        build_model,
        check_max_tokens,
        find_model,
        initial_model,
        model_names,
        model_spec,
    )
    from tracefl.learning.models.settings import ModelSettings, ModelSpec
    from tracefl.learning.models.stored import build_stored
    from tracefl.learning.models.text_encoder import TextEncoder
    from tracefl.learning.models.tokenizer import build_text_encoder

__getattr__ = on_demand(__name__, __file__)  # the settings are read before torch is imported

__all__ = [
    "ModelSettings",
    "ModelSpec",
    "TextEncoder",
    "build_model",
    "build_stored",
    "build_text_encoder",
    "check_max_tokens",
    "find_model",
    "initial_model",
    "model_names",
    "model_spec",
    "register_model",
]
