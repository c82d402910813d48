"""The configuration group ``privacy``: one class per choice."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from tracefl.conf.constraints import Unused, above, at_least, between
from tracefl.errors import ConfigError

PrivacyTrace = Literal["deployed", "before_noise"]


@dataclass(frozen=True)
class CentralPrivacySettings:
    """The server clips the clients' updates to a fixed norm and adds noise to their average.

    Attributes:
        noise_multiplier: Standard deviation of the noise on the sum of the clients' updates, as a multiple of the
            clipping norm.
        clipping_norm: L2 norm that each client's update is clipped to.
        trace: Whether to trace the deployed model, which includes the noise, or the average before the noise.
    """

    name: ClassVar[str] = "central"

    noise_multiplier: Annotated[float, at_least(0)]
    clipping_norm: Annotated[float, above(0)]
    trace: Annotated[PrivacyTrace, Unused("deployed")]


@dataclass(frozen=True)
class AdaptivePrivacySettings:
    """Central privacy with a clipping norm that adapts to the clients' updates.

    Attributes:
        noise_multiplier: As in ``CentralPrivacySettings``.
        initial_clipping_norm: L2 norm that the updates of round 1 are clipped to.
        target_clipped_quantile: Intended fraction of clipped clients.
        clip_norm_lr: Learning rate of the norm's logarithm.
        clipped_count_stddev: Standard deviation of the noise on the number of clipped clients; None for a twentieth of
            a round's clients.
        trace: As in ``CentralPrivacySettings``.
    """

    name: ClassVar[str] = "central_adaptive"

    noise_multiplier: Annotated[float, at_least(0)]
    initial_clipping_norm: Annotated[float, above(0)]
    target_clipped_quantile: Annotated[float, between("[0, 1]")]
    clip_norm_lr: Annotated[float, above(0)]
    clipped_count_stddev: Annotated[float, at_least(0)] | None
    trace: Annotated[PrivacyTrace, Unused("deployed")]

    def check_round(self, clients_per_round: int) -> None:
        """Check that the noise on the count of clipped clients leaves room for noise on the updates.

        Together, the two must amount to ``noise_multiplier`` (Andrew et al. 2021, Theorem 1).

        Raises:
            ConfigError: ``noise_multiplier`` is too large for ``clipped_count_stddev``.
        """
        stddev = clients_per_round / 20 if self.clipped_count_stddev is None else self.clipped_count_stddev
        if self.noise_multiplier and self.noise_multiplier >= 2 * stddev:
            raise ConfigError(
                f"privacy.noise_multiplier={self.noise_multiplier} must be below twice privacy.clipped_count_stddev, "
                f"which is {stddev:g} (null: clients_per_round / 20); lower the one or raise the other"
            )


@dataclass(frozen=True)
class DpSgdSettings:
    """The clients train with DP-SGD.

    Attributes:
        noise_multiplier: Standard deviation of the noise on a batch's sum of gradients, as a multiple of
            ``max_grad_norm``; None to derive it from ``target_epsilon``.
        target_epsilon: Epsilon that no client exceeds in the whole run; None if ``noise_multiplier`` is given.
        target_delta: Delta of every epsilon; only meaningful below 1 / (a client's number of examples).
        max_grad_norm: L2 norm that each example's gradient is clipped to.
        max_physical_batch_size: Most examples in one forward and backward pass.

    Raises:
        ConfigError: Not exactly one of ``noise_multiplier`` and ``target_epsilon`` is given.
    """

    name: ClassVar[str] = "dp_sgd"

    noise_multiplier: Annotated[float, above(0)] | None
    max_grad_norm: Annotated[float, above(0)]
    target_epsilon: Annotated[float, above(0)] | None
    target_delta: Annotated[float, between("(0, 1)")]
    max_physical_batch_size: Annotated[int, at_least(1)]

    def __post_init__(self) -> None:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ConfigError(
                "privacy=dp_sgd needs exactly one of privacy.noise_multiplier and privacy.target_epsilon, got "
                f"{self.noise_multiplier} and {self.target_epsilon}; set the other to null"
            )


ServerPrivacy: TypeAlias = CentralPrivacySettings | AdaptivePrivacySettings
"""Choices in which the server clips the clients' updates and adds the noise."""

Privacy: TypeAlias = CentralPrivacySettings | AdaptivePrivacySettings | DpSgdSettings
