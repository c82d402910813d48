"""How a client trains: the configuration group ``client``, with the batch size."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tracefl.conf.constraints import Count, above
from tracefl.provenance.options import Precision

OptimizerName = Literal["adam", "adamw"]


@dataclass(frozen=True)
class ClientSettings:
    """The configuration group ``client``.

    Attributes:
        epochs: Passes over the client's examples per round.
        optimizer: Name of the optimizer, used without weight decay.
        lr: Learning rate.
        precision: ``"float32"``, or ``"bf16"`` for bfloat16 autocast on CUDA.
    """

    epochs: Count
    optimizer: OptimizerName
    lr: Annotated[float, above(0)]
    precision: Precision = "float32"


@dataclass(frozen=True)
class TrainingSettings(ClientSettings):
    """How a client trains.

    Attributes:
        batch_size: Examples per step.
    """

    batch_size: Count = field(kw_only=True)
