"""Image classifiers of torchvision, with a last layer for the data set's classes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tracefl.common.names import did_you_mean
from tracefl.errors import ConfigError
from tracefl.learning.models.family import ModelFamily, register_model
from tracefl.learning.models.hub import brief, http_status
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.learning.models.weights import load_state, read_state_dict

if TYPE_CHECKING:
    from tracefl.learning.models.text_encoder import TextEncoder

IMAGENET_WEIGHTS = "IMAGENET1K_V1"

_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@register_model("resnet18", classifier="fc", block="BasicBlock", sizes={"layers": [2, 2, 2, 2]})
@register_model("resnet34", classifier="fc", block="BasicBlock", sizes={"layers": [3, 4, 6, 3]})
@register_model("resnet50", classifier="fc", block="Bottleneck", sizes={"layers": [3, 4, 6, 3]})
@register_model("resnet101", classifier="fc", block="Bottleneck", sizes={"layers": [3, 4, 23, 3]})
@register_model("resnet152", classifier="fc", block="Bottleneck", sizes={"layers": [3, 8, 36, 3]})
@register_model(
    "densenet121",
    classifier="classifier",
    sizes={"growth_rate": 32, "block_config": [6, 12, 24, 16], "num_init_features": 64},
)
class TorchvisionModel(ModelFamily):
    """A model of ``torchvision.models``: ``(B, 3, H, W)`` floats to ``(B, num_classes)`` logits.

    Attributes:
        classifier: Name of the last layer.
        sizes: The published sizes, keyed by torchvision's argument name; ``model.config`` may override them.
        block: Class of a ResNet's blocks in ``torchvision.models.resnet``, ``None`` for a DenseNet.
    """

    family: ClassVar[str] = "torchvision"

    def __init__(
        self, name: str, classifier: str, sizes: Mapping[str, int | list[int]], block: str | None = None
    ) -> None:
        super().__init__(name)
        self.classifier = classifier
        self.sizes = dict(sizes)
        self.block = block

    def spec(self, settings: ModelSettings, num_classes: int, encoder: "TextEncoder | None") -> ModelSpec:
        """Describe the architecture: name, number of classes, and the sizes that differ from the published ones."""
        if settings.architecture:
            raise ConfigError(
                f"model.architecture={settings.architecture!r} is for text models; leave it out of "
                f"model.name={self.name}"
            )
        for key, value in settings.config.items():
            self._check_size(key, value)
        if encoder is not None:
            raise ConfigError(f"model.name={self.name} takes images, the data set gives text; choose model=gpt or bert")
        return ModelSpec(self.family, self.name, num_classes, dict(settings.config))

    def build(self, spec: ModelSpec) -> nn.Module:
        """Build with random weights."""
        models = _torchvision().models
        sizes = {**self.sizes, **spec.config, "num_classes": spec.num_classes}
        if self.block is None:
            model: nn.Module = models.DenseNet(**sizes)
        else:
            model = models.ResNet(getattr(models.resnet, self.block), **sizes)
        return model

    def _check_size(self, key: str, value: object) -> None:
        if key not in self.sizes:
            known = ", ".join(self.sizes)
            raise ConfigError(
                f"model.config.{key} is not a size of {self.name}, which has {known}{did_you_mean(key, self.sizes)}"
            )
        published = self.sizes[key]
        count = len(published) if isinstance(published, list) else None
        numbers = value if count is not None else [value]
        if (
            not isinstance(numbers, list)
            or (count is not None and len(numbers) != count)
            or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers)
        ):
            wanted = "a whole number" if count is None else f"{count} whole numbers"
            raise ConfigError(f"model.config.{key}={value!r}: give {wanted} of at least 1, such as {published}")

    def load_pretrained(self, model: nn.Module, settings: ModelSettings) -> None:
        """Copy ImageNet weights (``pretrained=True``) or those of a state dict file; the classifier only if it fits."""
        path = settings.pretrained
        state = read_state_dict(path) if isinstance(path, str) else self._imagenet()
        # Published DenseNet files call "norm.1" what the modules call "norm1".
        state = {_OLD_DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in state.items()}
        source = path if isinstance(path, str) else f"{self.name} ({IMAGENET_WEIGHTS})"
        load_state(model, state, lambda name: name.startswith(f"{self.classifier}."), source)

    def _imagenet(self) -> dict[str, Tensor]:
        weights = _torchvision().models.get_model_weights(self.name)[IMAGENET_WEIGHTS]
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        reason = f"{weights.url} gives no answer"
        if file.is_file() or http_status(weights.url) is not None:
            try:
                return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
            except (OSError, RuntimeError) as error:
                reason = brief(error)
        raise ConfigError(
            f"model.pretrained=true: no ImageNet weights of {self.name} in {file}, nor from the network ({reason}). "
            f"On a machine with network run `curl -LO {weights.url}`, copy the file here and set "
            f"model.pretrained=PATH/{file.name}; or set model.pretrained=false for random weights"
        )


def _torchvision() -> Any:
    import torchvision  # type: ignore[import-untyped]

    return torchvision
