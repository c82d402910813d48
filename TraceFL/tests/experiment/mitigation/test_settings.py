import pytest

from tests.helpers.configuration import compose_settings
from tracefl.errors import ConfigError
from tracefl.records.settings import DownweightSettings, ExclusionSettings


def test_the_choices():
    assert compose_settings().mitigate is None
    excluded = compose_settings("mitigate=exclude", "num_rounds=7").mitigate
    assert excluded == ExclusionSettings(0.25, 0.03, 0.1, 3, 4, 20)
    light = compose_settings("mitigate=downweight", "mitigate.factor=0.5", "mitigate.window=1", "num_rounds=5").mitigate
    assert light == DownweightSettings(0.25, 0.03, 0.1, 1, 4, 20, 0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mitigate.name=punish"], "mitigate.name must be one of downweight, exclude, none, got 'punish'"),
        (["mitigate=exclude", "mitigate.share=0"], r"mitigate.share must be a number in \(0, 1\], got 0"),
        (["mitigate=exclude", "mitigate.gain=0.2"], r"mitigate.gain_alone=0.1 is less than mitigate.gain=0.2, which"),
        (["mitigate=exclude", "mitigate.gain=0"], r"mitigate.gain must be a number in \(0, 1\), got 0"),
        (["mitigate=exclude", "mitigate.window=0"], "mitigate.window must be a whole number of at least 1, got 0"),
        (["mitigate=exclude", "mitigate.from_round=0"], "mitigate.from_round must be a whole number of at least 1"),
        (["mitigate=exclude", "mitigate.min_mispredictions=x"], "mitigate.min_mispredictions must be a whole number"),
        (["mitigate=downweight", "mitigate.factor=1"], r"mitigate.factor must be a number in \(0, 1\), got 1"),
        (["mitigate=downweight", "mitigate.factor=null"], "mitigate.factor is null and mitigate=downweight needs it"),
        (["mitigate=exclude", "mitigate.factor=0.5"], "mitigate.factor=0.5 needs mitigate=downweight, got mitigate="),
        (["mitigate.share=0.5"], "mitigate.share=0.5 needs mitigate=exclude or mitigate=downweight, got mitigate=none"),
        (["mitigate=exclude", "provenance=off"], "acts on traced mispredictions, and provenance=off traces none"),
        (
            ["mitigate=exclude", "provenance.target=label"],
            "got provenance.target=label; give provenance.target=centered",
        ),
        (
            ["mitigate=exclude", "clients_per_round=3"],
            "mitigate.share=0.25 is no more than what chance gives each of clients_per_round=3; raise one of them",
        ),
        (
            ["mitigate=exclude", "mitigate.share=1", "clients_per_round=1"],
            "mitigate.share=1 is no more than what chance gives each of clients_per_round=1; raise one of them",
        ),
        (
            ["mitigate=exclude", "num_rounds=6"],
            "mitigate.window=3 traced rounds from mitigate.from_round=4 on, and no round of num_rounds=6 comes after "
            "them; give at least num_rounds=7",
        ),
        (["mitigate=exclude", "num_rounds=15", "provenance.every=5"], "give at least num_rounds=16"),
        (
            ["mitigate=exclude", "num_rounds=16", "mitigate.min_mispredictions=51"],
            "mitigate.min_mispredictions=51 is more than provenance.max_inputs=50 are traced; lower the first",
        ),
    ],
)
def test_illegal_values_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_settings(*overrides)
    assert "\n" not in str(caught.value)


def test_the_last_round_in_which_a_decision_can_hold():
    assert compose_settings("mitigate=exclude", "num_rounds=16", "provenance.every=5").mitigate is not None
