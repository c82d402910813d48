import pytest

from tracefl.conf.choice_keys import ChoiceKeys
from tracefl.errors import ConfigError

KEYS = ChoiceKeys(
    "drink",
    {
        "none": (),
        "tea": ("minutes", "[milk]"),
        "coffee": ("[milk]", "grind"),
        "cocoa": ("[milk]",),
        "malt": ("[milk]",),
    },
)


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        ("none", {"minutes": None, "milk": None, "grind": None}),
        ("tea", {"minutes": 3, "milk": None, "grind": None}),
        ("tea", {"minutes": 3, "milk": 1, "grind": None}),
    ],
)
def test_what_a_choice_reads_may_be_set(choice, values):
    KEYS.check(choice, values)


@pytest.mark.parametrize(
    ("choice", "values", "message"),
    [
        ("tea", {"minutes": None}, "drink.minutes is null and drink=tea needs it: give drink.minutes=..."),
        ("tea", {"minutes": 3, "grind": (1, 2)}, "drink.grind=[1, 2] needs drink=coffee, got drink=tea"),
        ("none", {"milk": 0}, "drink.milk=0 needs a drink, such as drink=tea, got drink=none"),
    ],
)
def test_other_keys_are_refused(choice, values, message):
    with pytest.raises(ConfigError) as caught:
        KEYS.check(choice, values)
    assert str(caught.value) == message


def test_an_unknown_key_is_refused():
    KEYS.refuse_unknown({"milk": 1}, ("milk", "grind"))
    with pytest.raises(ConfigError, match=r"drink\.sugar is unknown; see --help"):
        KEYS.refuse_unknown({"milk": 1, "sugar": 2}, ("milk", "grind"))
