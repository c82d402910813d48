"""The configuration of a text model, from a folder, the cache or the hub, or from its architecture's defaults."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError
from tracefl.learning.models.hub import brief, fetch, is_folder, load_transformers, transformers_errors
from tracefl.learning.models.settings import ModelSettings

log = logging.getLogger(__name__)

RESERVED = {
    "vocab_size": "follows from the tokenizer (model.tokenizer, model.tokenizer_vocab)",
    "pad_token_id": "follows from the tokenizer",
    "num_labels": "follows from the data set",
    "id2label": "follows from the data set",
    "label2id": "follows from the data set",
    "problem_type": "is single_label_classification",
    "model_type": "is model.architecture",
    "return_dict": "is true",
}


def text_config(settings: ModelSettings, repository: str, architecture: str | None, defaults: Mapping[str, Any]) -> Any:
    """Read the base configuration and apply ``model.config``.

    Args:
        settings: The configuration's ``model`` group.
        repository: Hugging Face id, or folder, of the model.
        architecture: ``model_type`` of a registered model, which needs its repository only for pretrained weights.
        defaults: How the registered model differs from its architecture's defaults.

    Returns:
        A configuration object of transformers, with the vocabulary of the repository.

    Raises:
        ConfigError: No configuration is found, or a key of ``model.config`` is unknown, reserved or of the wrong type.
    """
    config = _base_config(settings, repository, architecture, defaults)
    if settings.architecture not in (None, config.model_type):
        raise ConfigError(
            f"model.architecture={settings.architecture!r}, but the configuration found is of {config.model_type!r}; "
            "set model.architecture=null, or give another model.pretrained or model.name"
        )
    known = config.to_dict()
    changes = {}
    for given, value in settings.config.items():
        key = config.attribute_map.get(given, given)
        if key in RESERVED:
            raise ConfigError(f"model.config.{given} cannot be set: it {RESERVED[key]}")
        if key not in known:
            near = did_you_mean(given, [*known, *config.attribute_map])
            raise ConfigError(f"model.config.{given} is not an attribute of {config.model_type}{near}")
        changes[key] = value
    if not changes:
        return config
    try:
        return type(config)(**{**_given(config), **changes})
    except transformers_errors() as error:
        raise ConfigError(f"model.config={dict(settings.config)} is not legal: {brief(error)}") from error


def _given(config: Any) -> dict[str, Any]:
    """Return the attributes that a configuration must be given; its class derives or knows the others.

    Left out are those that have the same value without being given, such as the width of a head that is hidden_size /
    num_attention_heads: when a size changes, they follow.
    """
    whole = config.to_dict()
    given = dict(whole)
    for key in whole:
        fewer = {name: value for name, value in given.items() if name != key}
        try:
            if type(config)(**copy.deepcopy(fewer)).to_dict() == whole:
                given = fewer
        except transformers_errors() as error:
            log.debug("%s does without %s: %s", config.model_type, key, error)
    return given


def _base_config(
    settings: ModelSettings, repository: str, architecture: str | None, defaults: Mapping[str, Any]
) -> Any:
    auto = load_transformers().AutoConfig
    if isinstance(settings.pretrained, str) and is_folder(settings.pretrained):
        return fetch(auto, settings.pretrained, "model.pretrained")
    if settings.pretrained is True:
        return fetch(auto, repository, "model.pretrained")
    if architecture is not None:  # the same sizes, whatever the cache or the network holds
        return _default_config(settings.architecture or architecture, defaults)
    if settings.architecture is None:
        return fetch(auto, repository, "model.name", "or set model.architecture, such as distilbert, for its defaults")
    try:
        return fetch(auto, repository, "model.name")
    except ConfigError as error:
        log.warning("the defaults of model.architecture=%s are used: %s", settings.architecture, error)
        return _default_config(settings.architecture, {})


def _default_config(architecture: str, sizes: Mapping[str, Any]) -> Any:
    transformers = load_transformers()
    if architecture not in transformers.CONFIG_MAPPING:
        near = did_you_mean(architecture, transformers.CONFIG_MAPPING)
        raise ConfigError(f"model.architecture={architecture!r} is not a model_type of transformers{near}")
    return transformers.AutoConfig.for_model(architecture, **sizes)
