"""Text classifiers of transformers, built from a configuration and, on request, loaded with published weights.

A model returns logits ``(B, num_classes)`` in ``output.logits`` for ``input_ids`` and ``attention_mask``, both
``(B, T)`` and padded on the right. GPT and GPT-2 classify by the last token that is not padding, so their configuration
needs the tokenizer's padding id, and their embeddings a row for it.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tracefl.errors import ConfigError
from tracefl.learning.models.family import ModelFamily, register_model
from tracefl.learning.models.hub import brief, fetch, is_folder, load_transformers, transformers_errors
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.learning.models.text_config import text_config
from tracefl.learning.models.weights import load_state, read_state_dict

if TYPE_CHECKING:
    from tracefl.learning.models.text_encoder import TextEncoder

NOT_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


@register_model("gpt", repository="openai-community/openai-gpt", architecture="openai-gpt")
@register_model("bert", repository="google-bert/bert-base-cased", architecture="bert", sizes={"vocab_size": 28996})
class TransformersModel(ModelFamily):
    """A sequence classification model of transformers.

    Attributes:
        repository: Hugging Face id, or folder, of the configuration, weights and tokenizer.
        architecture: ``model_type``, if known without reading the repository.
        sizes: How the repository's configuration differs from the defaults of ``architecture``.
    """

    family: ClassVar[str] = "transformers"
    open_names: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        repository: str | None = None,
        architecture: str | None = None,
        sizes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name)
        self.repository = repository or name
        self.architecture = architecture
        self.sizes = dict(sizes or {})

    def spec(self, settings: ModelSettings, num_classes: int, encoder: "TextEncoder | None") -> ModelSpec:
        """Describe the architecture for the encoder's vocabulary; checks all sizes on torch's meta device."""
        if encoder is None:
            raise ConfigError(f"model.name={self.name} takes text, the data set gives images; choose model=resnet18")
        config = text_config(settings, self.repository, self.architecture, self.sizes)
        config.id2label = {label: f"LABEL_{label}" for label in range(num_classes)}
        config.label2id = {name: label for label, name in config.id2label.items()}
        config.problem_type = "single_label_classification"
        config.pad_token_id = encoder.pad_id
        if encoder.origin == "trained":
            config.vocab_size = encoder.vocab_size
            config.bos_token_id = config.eos_token_id = None  # ids of the model's own vocabulary
        else:
            config.vocab_size = max(config.vocab_size, encoder.vocab_size)
        if hasattr(config, "use_cache"):
            config.use_cache = False  # only useful for generating text
        values = json.loads(config.to_json_string(use_diff=False))
        spec = ModelSpec(
            self.family, self.name, num_classes, {k: v for k, v in values.items() if k not in NOT_ARCHITECTURE}
        )
        self._skeleton(spec)
        return spec

    def build(self, spec: ModelSpec) -> nn.Module:
        """Build with random weights, in float32."""
        transformers = load_transformers()
        config = transformers.CONFIG_MAPPING[spec.config["model_type"]].from_dict(spec.config)
        # False, not the default: by which transformers asks on the terminal whether to run a repository's code.
        auto = transformers.AutoModelForSequenceClassification
        model: nn.Module = auto.from_config(config, trust_remote_code=False)
        return model.float()

    def load_pretrained(self, model: Any, settings: ModelSettings) -> None:
        """Copy the weights of a repository, folder or state dict file; the classifier only if it fits."""
        path = settings.pretrained
        source = path if isinstance(path, str) else self.repository
        if isinstance(path, str) and not is_folder(path):
            state = read_state_dict(path)
        else:
            config = text_config(settings, self.repository, self.architecture, self.sizes)
            config.num_labels = model.config.num_labels
            loaded, info = fetch(
                load_transformers().AutoModelForSequenceClassification,
                source,
                "model.pretrained",
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            rows = model.config.vocab_size
            if rows != loaded.get_input_embeddings().num_embeddings:
                loaded.resize_token_embeddings(rows, mean_resizing=False)
            absent = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]} | info["missing_keys"]
            state = {name: tensor for name, tensor in loaded.state_dict().items() if name not in absent}
        body = f"{model.base_model_prefix}."
        load_state(model, state, lambda name: not name.startswith(body) or ".pooler." in name, source)

    def max_tokens(self, spec: ModelSpec) -> int | None:
        """Return the number of positions; RoBERTa-like models lose those up to the padding id."""
        model = self._skeleton(spec)
        limit = getattr(model.config, "max_position_embeddings", None)
        for name, module in model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                return int(module.num_embeddings) - int(module.padding_idx) - 1
        return limit

    def example(self, spec: ModelSpec) -> dict[str, Tensor]:
        """Return two texts of six and four tokens, padded on the right, that end as the architecture ends a text."""
        pad, end = spec.config["pad_token_id"], spec.config.get("eos_token_id")
        word = 1 if pad == 0 else 0
        ids = torch.full((2, 6), word)
        mask = torch.ones_like(ids)
        ids[1, 4:], mask[1, 4:] = pad, 0
        if isinstance(end, int):
            ids[0, 5] = ids[1, 3] = end
        return {"input_ids": ids, "attention_mask": mask}

    def _skeleton(self, spec: ModelSpec) -> Any:
        """Build on the meta device, without allocating memory, to check that the sizes are consistent."""
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                return self.build(spec)
        except transformers_errors() as error:
            raise ConfigError(
                f"model.config does not make a model of architecture {spec.config['model_type']}: {brief(error)}; "
                "change the sizes in model.config"
            ) from error
