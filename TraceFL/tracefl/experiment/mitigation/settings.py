"""Whether a run's mitigation could ever do anything."""

from tracefl.errors import ConfigError
from tracefl.provenance.standing_out import FEWEST_CLIENTS
from tracefl.records.settings import Settings


def check_mitigation(settings: Settings) -> None:
    """Refuse a mitigation that could never do anything.

    Raises:
        ConfigError: The group ``mitigate`` does not go with ``provenance``, ``clients_per_round`` or ``num_rounds``.
    """
    rule, provenance = settings.mitigate, settings.provenance
    if rule is None:
        return
    if provenance is None:
        raise ConfigError(
            f"mitigate={rule.name} acts on who stands out, which provenance=off does not ask; give "
            "provenance=removal, or mitigate=none"
        )
    if settings.clients_per_round < FEWEST_CLIENTS and rule.gain_alone is None:
        raise ConfigError(
            f"mitigate={rule.name} could never act: with clients_per_round={settings.clients_per_round} nobody stands "
            f"out, and mitigate.gain_alone=null; raise the first to {FEWEST_CLIENTS}, or give mitigate.gain_alone=0.1"
        )
    if rule.gain_alone is not None and rule.gain_alone < rule.gain:
        raise ConfigError(
            f"mitigate.gain_alone={rule.gain_alone} is less than mitigate.gain={rule.gain}, which counts for clients "
            "that stand out; raise the first, or give mitigate.gain_alone=null"
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
