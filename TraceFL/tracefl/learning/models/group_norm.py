"""GroupNorm (Wu and He 2018) in place of BatchNorm, for training in which examples of a batch must stay independent."""

import logging

from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger(__name__)

NAMES_SHOWN = 3


def with_group_norm(model: nn.Module) -> nn.Module:
    """Return the model with every BatchNorm replaced by a GroupNorm of at most 32 groups, with scale 1 and shift 0.

    Args:
        model: The model; the returned model keeps its other parameters and may share them.
    """
    replaced = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if not replaced:
        return model
    shown = ", ".join(replaced[:NAMES_SHOWN]) + (", ..." if len(replaced) > NAMES_SHOWN else "")
    log.info("%d BatchNorm layers are replaced by GroupNorm: %s", len(replaced), shown)
    fixed: nn.Module = ModuleValidator.fix(model)
    return fixed
