"""The configuration group ``mitigate``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tracefl.conf.choice_keys import ChoiceKeys
from tracefl.errors import ConfigError

NONE, EXCLUDE, DOWNWEIGHT = "none", "exclude", "downweight"

_RULE = ("share", "gain", "window", "from_round", "min_mispredictions")
_KEYS = ChoiceKeys("mitigate", {NONE: (), EXCLUDE: _RULE, DOWNWEIGHT: (*_RULE, "factor")})


@dataclass(frozen=True)
class MitigationSettings:
    """The keys of ``conf/mitigate/*.yaml``.

    Attributes:
        name: ``exclude`` or ``downweight``.
        share: Share of its window's mispredictions that must name a client, in (0, 1].
        gain: Accuracy on the server's examples that the average must gain without it, in more than half of its window's
            rounds, a fraction in (0, 1).
        window: Rounds of a client, its last ones, at least 1.
        from_round: First round whose mispredictions count, from 1.
        min_mispredictions: Least traced mispredictions of a round that is evidence, at least 1.
        factor: Of the weight of a client that is named, in (0, 1); None where it is excluded.
    """

    name: str
    share: float
    gain: float
    window: int
    from_round: int
    min_mispredictions: int
    factor: float | None


def read_mitigation(group: Mapping[str, Any]) -> MitigationSettings | None:
    """Turn the group ``mitigate`` into settings, None where nothing is done.

    Raises:
        ConfigError: A key is missing, unknown, or not read by this choice.
    """
    _KEYS.refuse_unknown(group, MitigationSettings.__dataclass_fields__)
    _KEYS.check(group["name"], {key: value for key, value in group.items() if key != "name"})
    return None if group["name"] == NONE else MitigationSettings(**group)


def check_mitigation(config: Mapping[str, Any]) -> None:
    """Refuse a mitigation that could never do anything, or by a trace that blames nobody.

    Args:
        config: The resolved configuration, its values legal by themselves.

    Raises:
        ConfigError: It is so, or as ``read_mitigation``.
    """
    settings, provenance = read_mitigation(config["mitigate"]), config["provenance"]
    if settings is None:
        return
    if not provenance["enabled"]:
        raise ConfigError(
            f"mitigate={settings.name} acts on traced mispredictions, and provenance=off traces none; give "
            "provenance=fault, or mitigate=none"
        )
    if provenance["target"] == "label":
        raise ConfigError(
            f"mitigate={settings.name} needs contributions to what is predicted, got provenance.target=label; give "
            "provenance.target=centered"
        )
    if settings.share * config["clients_per_round"] < 1 or config["clients_per_round"] < 2:
        raise ConfigError(
            f"mitigate.share={settings.share} is no more than what chance gives each of "
            f"clients_per_round={config['clients_per_round']}; raise one of them"
        )
    if settings.min_mispredictions > provenance["max_inputs"]:
        raise ConfigError(
            f"mitigate.min_mispredictions={settings.min_mispredictions} is more than "
            f"provenance.max_inputs={provenance['max_inputs']} are traced; lower the first"
        )
    every, window, num_rounds = provenance["every"], settings.window, config["num_rounds"]
    first = -(-settings.from_round // every) * every  # the first round that is traced and counts
    least = first + (window - 1) * every + 1  # the next after a whole window, where a decision holds
    if num_rounds < least:
        raise ConfigError(
            f"mitigate={settings.name} decides after mitigate.window={window} traced rounds from "
            f"mitigate.from_round={settings.from_round} on, and no round of num_rounds={num_rounds} comes after them; "
            f"give at least num_rounds={least}"
        )
