"""Overrides that Hydra's grammar cannot read: which key, the value received, and what to type."""

import random
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tracefl.conf.composing import compose_config, resolved_config
from tracefl.conf.override_text import explain_list, explain_override
from tracefl.conf.slips import quoted
from tracefl.errors import ConfigError

DEFAULTS = {
    "num_rounds": 3,
    "overwrite": False,
    "run_name": None,
    "log_dir": "logs",
    "without": [],
    "fault": {"flip": None},
    "fault.flip": None,
    "model.config": {},
    "store": {},
    "client.lr": None,
}


@pytest.mark.parametrize(
    ("override", "reason", "meant"),
    [
        ("num_rounds==3", "one = is enough", "num_rounds=3"),
        ("num_rounds=3\r", "carriage return, as lines of files from Windows", "num_rounds=3"),
        ("store=all\r", "carriage return", "store=all"),
        ("num_rounds=3\xa0", "invisible character U+00A0", "num_rounds=3"),
        ("\ufeffnum_rounds=3", "invisible character U+FEFF", "num_rounds=3"),
        ("num_rounds =3", "nothing but the key stands before the =", "num_rounds=3"),
        ("num_rounds=3!", "give a number alone", "num_rounds=3"),
        ("num_rounds=\u201c5\u201d", "give a number alone", "num_rounds=5"),
        ("num_rounds=é", "give a number alone", "num_rounds=3"),
        ("overwrite=true;", "give true or false", "overwrite=true"),
        ("run_name=été", "a text with é needs quotes", "run_name='été'"),
        ("log_dir=/data/a=b", "a text with = needs quotes", "log_dir='/data/a=b'"),
        ("run_name=it's", "a text with ' needs quotes", r"run_name='it\'s'"),
        ("log_dir=a]", "brackets", "log_dir='a]'"),
        ("without=[1,2]]", "brackets", "without=[1, 2]"),
        ("without=(1,2)", "brackets", "without=[1, 2]"),
        ("without=[1;2]", "brackets", "without=[1, 2]"),
        ("run_name=[été,b]", "brackets", "run_name=['été', b]"),
        ("fault.flip={1->0}", "brackets", "fault.flip={1: 0}"),
        ("++model.config={n_layer=2}", "brackets", "model.config={n_layer: 2}"),
        ("++model.config.n_layer==2", "one = is enough", "model.config.n_layer=2"),
    ],
)
def test_the_key_the_value_and_what_to_type(override, reason, meant):
    with pytest.raises(HydraException):
        OverridesParser.create().parse_override(override)
    line = explain_override(override, DEFAULTS)
    said, _, to_type = line.partition("; type ")
    assert reason in said
    assert repr(override.partition("=")[2]) in said
    assert shlex.split(to_type) == [meant]
    OverridesParser.create().parse_override(meant)


@pytest.mark.parametrize("key", ["número", "num rounds", "num[rounds]", "model.config.n layer"])
def test_a_key_that_is_none(key):
    assert explain_override(f"{key}=3", DEFAULTS).startswith(f"unknown key {key!r}, see --help")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("num_rounds=3,5", "type num_rounds=3.5, for"),
        ("without=1,2", "type 'without=[1,2]', for"),
        ("client.lr=0,1", "type 'client.lr=[0,1]' or client.lr=0.1, for"),
        ("log_dir=a,b", "type \"log_dir='a,b'\", for"),
    ],
)
def test_several_values_where_one_is_wanted(override, meant):
    line = explain_list(override, DEFAULTS)
    assert meant in line
    assert line.endswith("for one run of each value add --multirun")


@pytest.mark.parametrize("text", ["a", "a'b", 'a"b', "a\\", "a\\'", "\\\\", "a=b, c", "été", "a\\b"])
def test_a_quoted_text_is_read_as_it_is(text):
    assert OverridesParser.create().parse_override(f"key={quoted(text)}").value() == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("num_rounds==3", "num_rounds='=3' cannot be read: one = is enough; type num_rounds=3"),
        ("client.lr=0,1", "client.lr='0,1' is several values, as for a sweep"),
        ("exp_key=choice(a,b)", "is several values, as for a sweep"),
        ("@fault=label_flip", "unknown key '@fault'"),
        ("client@x=1", "unknown key 'client@x'"),
        ("num_rounds=${sed}", "num_rounds refers to the key 'sed', which does not exist; did you mean 'seed'?"),
        ("hydra.mode=FOO", "Invalid value 'FOO', expected one of"),
    ],
)
def test_hydras_errors_in_plain_words(override, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        resolved_config([override])


def test_sizes_may_be_given_together():
    config = compose_config(["model=bert", "model.pretrained=false", "model.config={hidden_size: 64, new: 2}"])
    assert config.model.config == {"hidden_size": 64, "new": 2}


def test_hundreds_of_small_slips_are_one_line_with_something_to_type():
    generator = random.Random(0)
    odd = [*"=:,;'\"[]{}()\\/ .+-~!@#$%^&*|<>?`\t\r\n", "é", "“", "\xa0", "\ufeff", "—", "\x00", "\x1b", "\udce9", "=="]
    lines = ["num_rounds=3", "run_name=été", "log_dir=/data/a b", "without=[1,2]", "fault.flip={1: 0}", "store=all"]
    parser, seen = OverridesParser.create(), 0
    for _ in range(600):
        line = generator.choice(lines)
        for _ in range(generator.choice((1, 1, 2))):
            place = generator.randrange(len(line) + 1)
            line = line[:place] + generator.choice(odd) + line[place:]
        try:
            parser.parse_override(line)
        except HydraException:
            seen += 1
            said = explain_override(line, DEFAULTS)
            assert said.isprintable() or "\udce9" in line, line
            assert re.match(r"unknown key |.* cannot be read: .*; type ", said), line
            if "; type " in said:
                (meant,) = shlex.split(said.rpartition("; type ")[2])
                assert not parser.parse_override(meant).is_sweep_override(), line
    assert seen > 300
