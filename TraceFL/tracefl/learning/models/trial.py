"""One forward pass of a new model, so that sizes that do not fit together are found before a run begins."""

import torch
from torch import nn

from tracefl.errors import ConfigError
from tracefl.learning.models.hub import brief, transformers_errors
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.provenance.inputs import Inputs, forward


def try_model(model: nn.Module, inputs: Inputs, settings: ModelSettings, spec: ModelSpec) -> None:
    """Check that a model gives one row of logits for each input. It is left in the mode in which it was.

    Args:
        model: The model, on the CPU.
        inputs: B inputs, such as ``(B, 3, H, W)`` or a mapping of tensors ``(B, T)``.
        settings: The configuration's ``model`` group, for the message.
        spec: The model's architecture.

    Raises:
        ConfigError: The model fails, or gives something else.
    """
    rows = len(inputs if isinstance(inputs, torch.Tensor) else next(iter(inputs.values())))
    architecture = spec.config.get("model_type", spec.name)
    given = ", ".join(f"{key}={value}" for key, value in settings.config.items()) or "nothing"
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            shape = tuple(forward(model, inputs).shape)
        problem = f"it returns logits of shape {shape}, expected {(rows, spec.num_classes)}"
    except transformers_errors() as error:
        shape, problem = (), brief(error)
    finally:
        model.train(training)
    if shape != (rows, spec.num_classes):
        size = f", or dataset.image_size, now {inputs.shape[-1]}" if isinstance(inputs, torch.Tensor) else ""
        raise ConfigError(
            f"the model of architecture {architecture} with {given} from model.config fails on its first inputs: "
            f"{problem}; set the sizes that belong together in model.config{size}"
        )
