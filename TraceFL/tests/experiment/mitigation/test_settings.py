import pytest
from hydra.errors import ConfigCompositionException

from tests.helpers.configuration import compose_settings
from tracefl.errors import ConfigError
from tracefl.records.settings import DownweightSettings, ExclusionSettings


def test_the_choices():
    assert compose_settings().mitigate is None
    excluded = compose_settings("mitigate=exclude", "num_rounds=7").mitigate
    assert excluded == ExclusionSettings(-0.03, 0.1, 3, 4)
    light = compose_settings("mitigate=downweight", "mitigate.factor=0.5", "mitigate.window=1", "num_rounds=5").mitigate
    assert light == DownweightSettings(-0.03, 0.1, 1, 4, 0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mitigate.name=punish"], "mitigate.name must be one of downweight, exclude, none, got 'punish'"),
        (["mitigate=exclude", "mitigate.gain=0.2"], r"mitigate.gain_alone=0.1 is less than mitigate.gain=0.2, which"),
        (["mitigate=exclude", "mitigate.gain=-1"], r"mitigate.gain must be a number in \(-1, 1\), got -1"),
        (["mitigate=exclude", "mitigate.gain=1"], r"mitigate.gain must be a number in \(-1, 1\), got 1"),
        (["mitigate=exclude", "mitigate.gain_alone=0"], r"mitigate.gain_alone must be a number in \(0, 1\) or null"),
        (["mitigate=exclude", "mitigate.window=0"], "mitigate.window must be a whole number of at least 1, got 0"),
        (["mitigate=exclude", "mitigate.from_round=0"], "mitigate.from_round must be a whole number of at least 1"),
        (["mitigate=downweight", "mitigate.factor=1"], r"mitigate.factor must be a number in \(0, 1\), got 1"),
        (["mitigate=downweight", "mitigate.factor=null"], "mitigate.factor is null and mitigate=downweight needs it"),
        (["mitigate=exclude", "mitigate.factor=0.5"], "mitigate.factor=0.5 needs mitigate=downweight, got mitigate="),
        (["mitigate.gain=0.5"], "mitigate.gain=0.5 needs mitigate=exclude or mitigate=downweight, got mitigate=none"),
        (
            ["mitigate=exclude", "provenance=off"],
            "mitigate=exclude acts on who stands out, which provenance=off does not ask; give provenance=removal",
        ),
        (
            ["mitigate=exclude", "clients_per_round=3", "mitigate.gain_alone=null"],
            "mitigate=exclude could never act: with clients_per_round=3 nobody stands out, and "
            "mitigate.gain_alone=null; raise the first to 4, or give mitigate.gain_alone=0.1",
        ),
        (
            ["mitigate=exclude", "num_rounds=6"],
            "mitigate.window=3 traced rounds from mitigate.from_round=4 on, and no round of num_rounds=6 comes after "
            "them; give at least num_rounds=7",
        ),
        (["mitigate=exclude", "num_rounds=15", "provenance.every=5"], "give at least num_rounds=16"),
    ],
)
def test_illegal_values_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_settings(*overrides)
    assert "\n" not in str(caught.value)


def test_the_last_round_in_which_a_decision_can_hold():
    assert compose_settings("mitigate=exclude", "num_rounds=16", "provenance.every=5").mitigate is not None


def test_what_could_ever_act_is_taken():
    keys = ("mitigate=exclude", "num_rounds=7")
    assert compose_settings(*keys, "clients_per_round=3").mitigate.gain_alone == 0.1
    assert compose_settings(*keys, "clients_per_round=4", "mitigate.gain_alone=null").mitigate.gain_alone is None
    assert compose_settings(*keys, "mitigate.gain=0").mitigate.gain == 0
    assert compose_settings(*keys, "provenance=fault", "provenance.target=label").mitigate is not None  # as any trace


@pytest.mark.parametrize("key", ["mitigate.share=0.25", "mitigate.min_mispredictions=20"])
def test_what_clients_are_named_for_is_not_asked_any_more(key):
    with pytest.raises(ConfigCompositionException, match=key.partition("=")[0]):
        compose_settings("mitigate=exclude", "num_rounds=7", key)
