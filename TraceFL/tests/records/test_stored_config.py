"""config.yaml of a folder that nobody vouches for: plain values; nothing is looked up, called or multiplied."""

import time

import pytest
from omegaconf import OmegaConf
from yaml import YAMLError

from tests.helpers.configuration import compose_config
from tracefl.records.stored_config import parse_config

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine to the ninth entries."""


def parse(text):
    return parse_config(text.encode())


def test_what_a_run_writes_is_read_as_it_was():
    config = OmegaConf.to_container(
        compose_config("fault=label_flip", "fault.flip={1: 0}", "without=[3]"), resolve=True
    )
    assert parse(OmegaConf.to_yaml(OmegaConf.create(config))) == config


@pytest.mark.parametrize(
    "text",
    [
        "a: ${oc.env:A_SECRET}",
        "${oc.env:A_SECRET}: a",
        "a: [1, {b: 'x-${oc.env:A_SECRET}-y'}]",
        "a: |\n  ${oc.env:A_SECRET}\n",
        'a: "\\x24{oc.env:A_SECRET}"',
        "a: ${b}\nb: 1",
        "a: ${oc.decode:${oc.env:A_SECRET}}",
        "wandb:\n  mode: online\n  project: ${oc.env:A_SECRET}",
        "a: {_target_: os.system, x: 1}",
        "a: ['_target_']",
        '"\\x5ftarget_": os.system',
    ],
)
def test_nothing_is_looked_up_or_called(text, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    with pytest.raises(ValueError, match="which would be looked up or called here; a run writes neither") as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: &a 1", "a: &a [1]\nb: *a", "a: *nothing", "a: {b: &b {c: 1}, <<: *b}", BOMB])
def test_nothing_stands_for_something_else(text):
    began = time.process_time()
    with pytest.raises(ValueError, match="it has an anchor or an alias, and a run writes none"):
        parse(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!binary aGk=",
        "!!str 1",
        "!!set {a}",
        "!own 1",
        "! 1",
    ],
)
def test_a_tag_is_refused(tag):
    with pytest.raises(ValueError, match="it has the tag .*, and a run writes none"):
        parse(f"a: {tag}")


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("{a: ", "}")])
def test_nesting_has_an_end(opened, closed):
    parse(f"a: {opened * 19}1{closed * 19}")
    for depth in (20, 100_000):
        with pytest.raises(ValueError, match="it is nested more than 20 deep"):
            parse(f"a: {opened * depth}1{closed * depth}")


@pytest.mark.parametrize(
    "text", ["[1, 2]", "- 1\n", "3", "a: 1\na: 2", "a: [", "? [1]\n: 2", "a: 1\n---\nb: 2", f"a: {'1' * 5000}"]
)
def test_what_is_no_mapping_of_plain_values_is_refused(text):
    with pytest.raises((ValueError, OSError, YAMLError)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "found"), [("", {}), ("a: 2001-01-01", {"a": "2001-01-01"}), ("1: ???", {"1": "???"})]
)
def test_what_looks_special_is_plain(text, found):
    assert parse(text) == found


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="codec can't decode"):
        parse_config(b"a: \xff")
    with pytest.raises((ValueError, YAMLError)):
        parse_config(b"a: \x00")
