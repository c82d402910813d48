"""Image classifiers of torchvision, with a last layer for the data set's classes."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tracefl.errors import ConfigError
from tracefl.models.hub import brief, http_status
from tracefl.models.registry import ModelFamily, register_model
from tracefl.models.settings import ModelSettings, ModelSpec
from tracefl.models.weights import load_state, read_state_dict

if TYPE_CHECKING:
    from tracefl.models.tokenizer import TextEncoder

IMAGENET_WEIGHTS = "IMAGENET1K_V1"

_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@register_model("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", classifier="fc")
@register_model("densenet121", classifier="classifier")
class TorchvisionModel(ModelFamily):
    """A model of ``torchvision.models``: ``(B, 3, H, W)`` floats to ``(B, num_classes)`` logits.

    Attributes:
        classifier: Name of the last layer.
    """

    family: ClassVar[str] = "torchvision"

    def __init__(self, name: str, classifier: str) -> None:
        super().__init__(name)
        self.classifier = classifier

    def spec(self, settings: ModelSettings, num_classes: int, encoder: "TextEncoder | None") -> ModelSpec:
        """Describe the architecture, which the name and the number of classes fix."""
        for key in ("config", "architecture"):
            if getattr(settings, key):
                raise ConfigError(
                    f"model.{key}={getattr(settings, key)!r} is for text models; leave it out of model.name={self.name}"
                )
        if encoder is not None:
            raise ConfigError(f"model.name={self.name} takes images, the data set gives text; choose model=gpt or bert")
        return ModelSpec(self.family, self.name, num_classes)

    def build(self, spec: ModelSpec) -> nn.Module:
        """Build with random weights."""
        model: nn.Module = _torchvision().models.get_model(self.name, weights=None, num_classes=spec.num_classes)
        return model

    def load_pretrained(self, model: nn.Module, settings: ModelSettings) -> None:
        """Copy ImageNet's weights (``pretrained=True``) or a state dict file's, the classifier only where it fits."""
        path = settings.pretrained
        state = read_state_dict(path) if isinstance(path, str) else self._imagenet()
        # Published DenseNet files name "norm.1" what modules must call "norm1".
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
