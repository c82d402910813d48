"""A run's settings: every key of the YAML files has a field, and every field a key."""

import re
from typing import get_args

import pytest
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tracefl.conf.composing import resolved_config
from tracefl.conf.constraints import keys_of
from tracefl.conf.key_text import CONF, choices
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.faults.settings import AnyFault
from tracefl.learning.privacy.settings import Privacy
from tracefl.learning.settings import OptimizerName
from tracefl.learning.training import OPTIMIZERS
from tracefl.provenance.layers import OPTIONS
from tracefl.questions.baselines import RULES
from tracefl.records.checksums import seal
from tracefl.records.settings import (
    BaselineName,
    Mitigate,
    ProvenanceSettings,
    SettingsKeys,
    read_config,
    read_keys,
)
from tracefl.records.store import DTYPES, Dtype
from tracefl.records.strategies import Strategy

PRINTS = {
    (): "2fc23df1",
    ("fault=label_flip", "fault.share=0.3", "fault.clients=[0,4]"): "a1e3eeec",
    ("fault=backdoor",): "84cf3495",
    ("privacy=central",): "9bdcaba4",
    ("privacy=dp_sgd",): "66970ef0",
    ("model=gpt", "dataset=synthetic_text", "model.pretrained=false", "model.config.n_layer=2"): "fc0e2444",
    ("strategy=provenance_selection",): "d1c54fd8",
    ("provenance=off",): "ea8dbc28",
    ("experiment=exp_1",): "081137d8",
}
"""The end of a run's name: it must not change, or a run that is there already is not found again."""


def dotted(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and f"{prefix}{key}" != "model.config":
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_key_of_the_default_configuration_has_a_field_and_the_other_way_round():
    assert set(dotted(OmegaConf.to_container(compose_config(), resolve=False))) == set(keys_of(SettingsKeys))


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_of_every_file_has_a_field(path):
    found = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
    for key in ("defaults", "hydra"):
        found.pop(key, None)
    is_global = "@package _global_" in path.read_text()
    keys = set(dotted(found, "" if is_global else f"{path.parent.name}."))
    mappings = {key for key in keys if key.startswith(("model.config.", "fault.flip."))}  # of sizes, of labels
    assert keys - mappings <= set(keys_of(SettingsKeys))


@pytest.mark.parametrize(
    ("group", "classes"), [("strategy", Strategy), ("privacy", Privacy), ("fault", AnyFault), ("mitigate", Mitigate)]
)
def test_every_choice_has_a_class_and_the_other_way_round(group, classes):
    assert {each.name for each in get_args(classes)} == set(choices(group)) - {"none"}


def test_literals_agree_with_what_they_name():
    assert set(get_args(OptimizerName)) == set(OPTIMIZERS)
    assert set(get_args(Dtype)) == set(DTYPES)
    assert get_args(BaselineName) == tuple(RULES)
    also = ProvenanceSettings.__annotations__["also"]
    assert get_args(get_args(also)[0]) == OPTIONS


@pytest.mark.parametrize(("overrides", "fingerprint"), PRINTS.items())
def test_names_of_runs_do_not_change(overrides, fingerprint):
    config = resolved_config(overrides)
    assert re.search("[0-9a-f]{8}$", read_keys(config).folder.name)[0] == fingerprint


def test_a_stored_configuration_is_read_as_the_one_that_was_composed(tmp_path):
    config = resolved_config(["fault=label_flip", "fault.flip={1: 0, 2: 0}", "model.config.layers=[1,1,1,1]"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    seal(tmp_path)
    settings = read_config(tmp_path / "config.yaml")
    assert settings == read_keys(config)
    assert settings.resolved == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["dataset"].pop("kind"), "is damaged or of another version of tracefl: dataset.kind is missing"),
        (lambda c: c.pop("fault"), "is damaged or of another version of tracefl: fault is missing"),
        (
            lambda c: c.update(seed="x"),
            "is damaged or of another version of tracefl: seed must be a whole number of at least 0, got 'x'",
        ),
        (lambda c: c["store"].update(older=1), "is damaged or of another version of tracefl: store.older is unknown"),
    ],
)
def test_a_damaged_configuration_names_the_key(tmp_path, change, message):
    config = resolved_config([])
    change(config)
    with pytest.raises(ConfigError):
        read_keys(config)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    seal(tmp_path)
    with pytest.raises(RecordError, match=message):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "keys", [["krum", "strategy.selected=3"], ["bulyan", "strategy.malicious=2"], ["trimmed_mean"], ["median"]]
)
def test_a_robust_strategy_asks_for_as_many_clients_as_its_rule_needs_without_one(keys):
    name, *more = keys
    config = resolved_config([f"strategy={name}", *more])
    strategy = read_keys(config).strategy
    assert strategy.fewest_clients == strategy.aggregation.fewest + 1
    assert strategy.aggregation.rule == name
