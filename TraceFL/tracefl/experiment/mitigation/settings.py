"""Whether a run's mitigation could ever do anything."""

from tracefl.errors import ConfigError
from tracefl.records.settings import Settings


def check_mitigation(settings: Settings) -> None:
    """Refuse a mitigation that could never do anything, or by a trace that blames nobody.

    Raises:
        ConfigError: The group ``mitigate`` does not go with ``provenance``, ``clients_per_round`` or ``num_rounds``.
    """
    rule, provenance = settings.mitigate, settings.provenance
    if rule is None:
        return
    if provenance is None:
        raise ConfigError(
            f"mitigate={rule.name} acts on traced mispredictions, and provenance=off traces none; give "
            "provenance=fault, or mitigate=none"
        )
    if provenance.target == "label":
        raise ConfigError(
            f"mitigate={rule.name} needs contributions to what is predicted, got provenance.target=label; give "
            "provenance.target=centered"
        )
    if rule.share * settings.clients_per_round < 1 or settings.clients_per_round < 2:
        raise ConfigError(
            f"mitigate.share={rule.share} is no more than what chance gives each of "
            f"clients_per_round={settings.clients_per_round}; raise one of them"
        )
    if rule.min_mispredictions > provenance.max_inputs:
        raise ConfigError(
            f"mitigate.min_mispredictions={rule.min_mispredictions} is more than "
            f"provenance.max_inputs={provenance.max_inputs} are traced; lower the first"
        )
    if rule.gain_alone is not None and rule.gain_alone < rule.gain:
        raise ConfigError(
            f"mitigate.gain_alone={rule.gain_alone} is less than mitigate.gain={rule.gain}, which counts for clients "
            "that are named too; raise the first, or give mitigate.gain_alone=null"
        )
    every, window, num_rounds = provenance.every, rule.window, settings.num_rounds
    first = -(-rule.from_round // every) * every  # the first round that is traced and counts
    least = first + (window - 1) * every + 1  # the next after a whole window, where a decision holds
    if num_rounds < least:
        raise ConfigError(
            f"mitigate={rule.name} decides after mitigate.window={window} traced rounds from "
            f"mitigate.from_round={rule.from_round} on, and no round of num_rounds={num_rounds} comes after them; "
            f"give at least num_rounds={least}"
        )
