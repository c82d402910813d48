"""What the configuration group ``privacy`` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tracefl.conf.choice_keys import ChoiceKeys
from tracefl.errors import ConfigError

PrivacyTrace = Literal["deployed", "before_noise"]
PRIVACY_TRACES = get_args(PrivacyTrace)

_KEYS = ChoiceKeys(
    "privacy",
    {
        "none": (),
        "central": ("noise_multiplier", "clipping_norm"),
        "central_adaptive": (
            "noise_multiplier",
            "initial_clipping_norm",
            "target_clipped_quantile",
            "clip_norm_lr",
            "[clipped_count_stddev]",
        ),
        "dp_sgd": (
            "[noise_multiplier]",
            "[target_epsilon]",
            "target_delta",
            "max_grad_norm",
            "max_physical_batch_size",
        ),
    },
)


@dataclass(frozen=True)
class PrivacySettings:
    """The keys of ``conf/privacy/*.yaml``; those that a choice does not read are None.

    Attributes:
        name: ``none``, ``central``, ``central_adaptive`` or ``dp_sgd``.
        noise_multiplier: Standard deviation of the noise as a multiple of the clipping norm. Centrally it is that of
            the sum of the clients' updates, at least 0; in DP-SGD of a batch's sum of gradients, above 0.
        clipping_norm: L2 norm that each client's update is clipped to, above 0.
        initial_clipping_norm: That norm in round 1, where it adapts.
        target_clipped_quantile: Fraction of the clients that are to be clipped, 0 to 1.
        clip_norm_lr: Step of the norm's logarithm, above 0.
        clipped_count_stddev: Standard deviation of the noise on the number of clipped clients, at least 0; None for
            a twentieth of the clients of a round.
        trace: Whether the deployed model is traced, which has the noise, or the average before the noise.
        max_grad_norm: L2 norm that each example's gradient is clipped to, above 0.
        target_epsilon: Epsilon that no client exceeds in the whole run, above 0; in place of ``noise_multiplier``.
        target_delta: Delta of every epsilon, in (0, 1); below one over a client's examples to mean anything.
        max_physical_batch_size: Examples in one forward and backward, at least 1.

    Raises:
        ConfigError: A key is missing for this choice, or set and not read by it.
    """

    name: str = "none"
    noise_multiplier: float | None = None
    clipping_norm: float | None = None
    initial_clipping_norm: float | None = None
    target_clipped_quantile: float | None = None
    clip_norm_lr: float | None = None
    clipped_count_stddev: float | None = None
    trace: PrivacyTrace = "deployed"
    max_grad_norm: float | None = None
    target_epsilon: float | None = None
    target_delta: float | None = None
    max_physical_batch_size: int | None = None

    def __post_init__(self) -> None:
        _KEYS.check(self.name, {key: value for key, value in vars(self).items() if key not in ("name", "trace")})
        if self.trace != "deployed" and not self.is_central:
            raise ConfigError(f"privacy.trace={self.trace} needs privacy=central or privacy=central_adaptive")
        if self.name == "dp_sgd":
            if (self.noise_multiplier is None) == (self.target_epsilon is None):
                raise ConfigError(
                    "privacy=dp_sgd needs exactly one of privacy.noise_multiplier and privacy.target_epsilon, got "
                    f"{self.noise_multiplier} and {self.target_epsilon}; set the other to null"
                )
            if self.noise_multiplier == 0:
                raise ConfigError("privacy.noise_multiplier must be above 0 with privacy=dp_sgd, got 0")

    @property
    def is_central(self) -> bool:
        """The server clips the clients' updates and adds the noise."""
        return self.name in ("central", "central_adaptive")

    @property
    def is_dp_sgd(self) -> bool:
        """The clients train with DP-SGD."""
        return self.name == "dp_sgd"

    def check_round(self, clients_per_round: int) -> None:
        """Refuse noise that the noise on the clipped clients' count already exceeds.

        The two together are to be worth ``noise_multiplier`` (Andrew et al. 2021, Theorem 1).

        Raises:
            ConfigError: ``noise_multiplier`` is too large for ``clipped_count_stddev``.
        """
        if self.name != "central_adaptive" or not self.noise_multiplier:
            return
        stddev = clients_per_round / 20 if self.clipped_count_stddev is None else self.clipped_count_stddev
        if self.noise_multiplier >= 2 * stddev:
            raise ConfigError(
                f"privacy.noise_multiplier={self.noise_multiplier} must be below twice privacy.clipped_count_stddev, "
                f"which is {stddev:g} (null: clients_per_round / 20); lower the one or raise the other"
            )


def read_privacy(group: Mapping[str, Any]) -> PrivacySettings:
    """Turn the group ``privacy`` into settings.

    Raises:
        ConfigError: A key is missing, unknown, or not read by this choice.
    """
    _KEYS.refuse_unknown(group, PrivacySettings.__dataclass_fields__)
    return PrivacySettings(**group)
