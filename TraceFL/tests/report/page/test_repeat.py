"""The command composes, by Hydra, to the very configuration that it was made from."""

import random
import shlex

import pytest

from tracefl.conf.cli import choices
from tracefl.conf.composing import compose_configs
from tracefl.report.page.repeat import repeat_command

COMMANDS = {
    "the default": [],
    "a GPT from a folder": [
        *("model=gpt", "dataset=dbpedia_14", "model.pretrained=false"),
        *("model.config.n_layer=2", 'dataset.path="/a b/c"'),
    ],
    "a list in a model": ["model=resnet18", "++model.config.layers=[1,1,1,1]", "client.lr=1e-5"],
    "Table I": ["experiment=table1"],
    "Table II": ["experiment=table2", "privacy.noise_multiplier=0.01"],
    "a fault": ["fault=label_flip", "fault.flip={1: 0, 2: 0}", "fault.clients=[8]", "baselines=fast"],
    "names with spaces": ["dataset=yahoo_answers_topics", "model=bert", "store=all", "store.dtype=bfloat16"],
    "texts like numbers": ['exp_key="1"', 'model.pretrained="true"', 'run_name="null"', 'log_dir="1e5"'],
    "the user's own": [
        *("model=hf", "model.name=me/x", "dataset=hub", "dataset.name=me/y", "dataset.kind=text"),
        *('dataset.input_columns=["a b",c]', "dataset.label_column=l"),
    ],
    "a launcher": ["launcher=joblib", "runs_at_once=3"],
    "privacy": ["privacy=dp_sgd", "privacy.target_epsilon=8", "privacy.noise_multiplier=null", "device=cuda"],
    "rules": ["baselines.rules=[krum,random]", "provenance.inputs=mispredicted", "strategy=fedprox"],
}  # fmt: skip


def round_trip(overrides):
    (config,) = compose_configs([overrides])
    command = repeat_command(config)
    program, flag, module, *given = shlex.split(command.line)
    assert (program, flag, module) == ("python", "-m", "tracefl.main")
    assert compose_configs([given])[0] == config
    assert command.left_out == ()
    return given


@pytest.mark.parametrize("overrides", COMMANDS.values(), ids=COMMANDS)
def test_it_composes_to_the_same(overrides):
    round_trip(overrides)


@pytest.mark.parametrize(
    "group", ["model", "dataset", "strategy", "privacy", "fault", "provenance", "baselines", "store"]
)
def test_every_choice_is_found_again(group):
    needs = {"model=hf": ["model.name=me/x"]}
    needs["dataset=hub"] = ["dataset.name=me/y", "dataset.input_columns=[a]", "dataset.label_column=l"]
    for choice in choices(group):
        override = f"{group}={choice}"
        given = round_trip([override, *needs.get(override, ())])
        assert given in ([override, *needs.get(override, ())], [])  # nothing beside the choice


def test_what_becomes_of_a_run_that_is_there_is_not_repeated():
    (config,) = compose_configs([["resume=true", "seed=7"]])
    assert repeat_command(config).overrides == ("seed=7",)


def test_a_key_that_is_no_more_is_named():
    (config,) = compose_configs([[]])
    config["client"]["momentum"] = 0.9
    config["gone"] = {"a": 1}
    assert repeat_command(config).left_out == ("client.momentum", "gone")


def test_any_text_survives_hydra_and_the_shell():
    letters, texts = random.Random(7), []
    while len(texts) < 40:
        text = "".join(letters.choices("ab 1\"'\\$,:={}[]()<>&;%é", k=letters.randint(1, 9)))
        if "${" not in text:  # an interpolation, which no resolved configuration has
            texts.append(text)
    (config,) = compose_configs([[]])
    for text in texts[:10]:
        config["exp_key"] = config["run_name"] = text
        config["dataset"]["label_names"] = [*texts, "null", text]
        given = shlex.split(repeat_command(config).line)[3:]
        assert compose_configs([given])[0] == config, text
