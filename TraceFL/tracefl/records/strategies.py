"""What each strategy says in a configuration. Imports no torch, so that an illegal value is answered at once."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from tracefl.conf.constraints import Count, Unused, above, at_least, between

if TYPE_CHECKING:
    from tracefl.provenance import Aggregation
Inputs = Literal["correct", "mispredicted", "all"]
"""Which predictions on the server's inputs are traced."""


@dataclass(frozen=True)
class AveragingSettings:
    """Federated averaging, and what every strategy says.

    Attributes:
        min_clients: Clients that must answer for a round to count.
        timeout_seconds: Longest wait for a round's clients; None: each client is waited for as long as the others let
            expect, see ``federation/patience.py``.
        max_update_norm: Largest norm of a client's update, in medians of the round's; None for no bound.
        max_weight: Largest share of the average that one client has; None: three times the median number of examples in
            a deployment, no bound in a simulation, where the server knows the numbers.
        max_refusals: Refused replies after which a client is asked no more; None: however many.
        isolate: Whether ``backend=auto`` keeps the clients in processes of their own.
        inputs: What ``provenance.inputs`` is where it is not given.
    """

    name: ClassVar[str] = "fedavg"

    min_clients: Count
    timeout_seconds: Annotated[float, above(0)] | None
    max_update_norm: Annotated[float, at_least(1)] | None
    max_weight: Annotated[float, between("(0, 1]")] | None
    max_refusals: Count | None
    isolate: bool
    inputs: Inputs | None

    @property
    def aggregation(self) -> "Aggregation | None":
        """The robust rule in place of the weighted average; None for that."""
        return None

    @property
    def fewest_clients(self) -> int:
        """The fewest clients of a round; a robust rule must also make a model of all but one of them."""
        return 1


@dataclass(frozen=True)
class ProximalSettings(AveragingSettings):
    """FedProx: ``proximal_mu`` is the weight of mu/2 * |w - w_global|^2."""

    name: ClassVar[str] = "fedprox"

    proximal_mu: Annotated[float, at_least(0), Unused(0)]


@dataclass(frozen=True)
class SelectionSettings(AveragingSettings):
    """Clients are drawn by their contributions, see ``federation/selection.py``.

    Attributes:
        temperature: In standard deviations of the clients' usefulness: low follows it closely.
        exploration: Share of the probability that is spread evenly.
        wrong_weight: How much contributions to wrong predictions count against a client.
    """

    name: ClassVar[str] = "provenance_selection"

    temperature: Annotated[float, above(0)]
    exploration: Annotated[float, between("(0, 1]")]
    wrong_weight: Annotated[float, at_least(0)]


@dataclass(frozen=True)
class KrumSettings(AveragingSettings):
    """Those clients alone are averaged that lie closest to their neighbours, see ``provenance/aggregation.py``.

    Attributes:
        malicious: How many clients of a round may be malicious.
        selected: How many are averaged.
    """

    name: ClassVar[str] = "krum"

    malicious: Annotated[int, at_least(0)]
    selected: Count

    @property
    def aggregation(self) -> "Aggregation":
        """Krum, or Multi-Krum."""
        from tracefl.provenance import Aggregation

        return Aggregation("krum", malicious=self.malicious, selected=self.selected)

    @property
    def fewest_clients(self) -> int:
        """One more than the rule needs."""
        return max(self.selected, 2 * self.malicious + 2) + 1


@dataclass(frozen=True)
class BulyanSettings(AveragingSettings):
    """Clients are chosen as by Krum, and their middle values averaged.

    Attributes:
        malicious: How many clients of a round may be malicious.
    """

    name: ClassVar[str] = "bulyan"

    malicious: Annotated[int, at_least(0)]

    @property
    def aggregation(self) -> "Aggregation":
        """Bulyan."""
        from tracefl.provenance import Aggregation

        return Aggregation("bulyan", malicious=self.malicious)

    @property
    def fewest_clients(self) -> int:
        """One more than the rule needs."""
        return 4 * self.malicious + 4


@dataclass(frozen=True)
class TrimmedMeanSettings(AveragingSettings):
    """Of each number of the model, the clients' smallest and largest values are left out of the mean.

    Attributes:
        cut: Fraction of them at each end.
    """

    name: ClassVar[str] = "trimmed_mean"

    cut: Annotated[float, between("[0, 0.5)")]

    @property
    def aggregation(self) -> "Aggregation":
        """The trimmed mean."""
        from tracefl.provenance import Aggregation

        return Aggregation("trimmed_mean", cut=self.cut)

    @property
    def fewest_clients(self) -> int:
        """One more than the rule needs."""
        return 1 + (math.ceil(1 / self.cut) if self.cut else 1)


@dataclass(frozen=True)
class MedianSettings(AveragingSettings):
    """Each number of the model is the median of the clients'."""

    name: ClassVar[str] = "median"

    @property
    def aggregation(self) -> "Aggregation":
        """The median."""
        from tracefl.provenance import Aggregation

        return Aggregation("median")

    @property
    def fewest_clients(self) -> int:
        """One more than the rule needs."""
        return 2


Strategy: TypeAlias = (
    AveragingSettings
    | ProximalSettings
    | SelectionSettings
    | KrumSettings
    | BulyanSettings
    | TrimmedMeanSettings
    | MedianSettings
)
