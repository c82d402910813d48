"""What a library's models have in common, and how a model is registered by its name.

To add one, decorate its family with ``register_model`` (a line in ``vision.py`` or ``text.py``) and add a file to
``conf/model``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import nn

from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.provenance.inputs import Inputs

if TYPE_CHECKING:
    from tracefl.learning.models.text_encoder import TextEncoder


class ModelFamily(ABC):
    """The models of one library, with one instance per model name.

    Attributes:
        family: Key of ``FAMILIES``.
        open_names: Whether unregistered names are accepted as ids or folders of the library.
    """

    family: ClassVar[str]
    open_names: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def spec(self, settings: ModelSettings, num_classes: int, encoder: "TextEncoder | None") -> ModelSpec:
        """Describe the architecture; raises ``ConfigError`` for illegal sizes."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> nn.Module:
        """Build the architecture with random weights from torch's current generator."""

    @abstractmethod
    def load_pretrained(self, model: nn.Module, settings: ModelSettings) -> None:
        """Copy the weights that ``settings.pretrained`` asks for into ``model``."""

    def max_tokens(self, spec: ModelSpec) -> int | None:  # noqa: ARG002  images have no tokens
        """Return the most tokens that an input may have, or ``None`` if there is no limit."""
        return None

    def example(self, spec: ModelSpec) -> Inputs | None:  # noqa: ARG002  the size of images is the data set's
        """Return a few made-up inputs of the model, or ``None`` if the architecture does not say their shape."""
        return None


FamilyT = TypeVar("FamilyT", bound=type[ModelFamily])
MODELS: dict[str, ModelFamily] = {}
"""Those registered so far; ``registry.py`` registers our own."""

OPEN_FAMILIES: dict[str, type[ModelFamily]] = {}
"""Families that accept any name of their library."""


def register_model(*names: str, **details: Any) -> Callable[[FamilyT], FamilyT]:
    """Register each of ``names`` as the model ``family(name, **details)`` of the decorated family."""

    def register(family: FamilyT) -> FamilyT:
        for name in names:
            if name in MODELS:
                raise ValueError(f"model {name!r} is registered twice")
            MODELS[name] = family(name, **details)
        if family.open_names:
            OPEN_FAMILIES[family.family] = family
        return family

    return register
