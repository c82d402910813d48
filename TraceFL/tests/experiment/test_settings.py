import itertools
import re

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config, compose_settings
from tracefl.conf.cli import prepare_overrides
from tracefl.conf.key_text import CONF, choices, help_text
from tracefl.errors import ConfigError
from tracefl.experiment.settings import client_gpus, read_settings, total_gpus
from tracefl.questions.ledger import WRONG_WEIGHT
from tracefl.records.naming import fingerprint

GROUPS = (
    "model",
    "dataset",
    "strategy",
    "privacy",
    "fault",
    "provenance",
    "mitigate",
    "baselines",
    "launcher",
    "experiment",
)


SELECTION = ("strategy=provenance_selection",)


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g in GROUPS for c in choices(g)])
def test_every_choice_composes(group, choice):
    overrides = [f"{group}={choice}"]
    if group == "model":
        text = choice in ("gpt", "bert", "hf")
        overrides += ["dataset=synthetic_text"] if text else []
        overrides += ["model.name=some/model"] if choice == "hf" else []
    if group == "dataset":
        overrides += ["model=gpt"] if choice in ("synthetic_text", "dbpedia_14", "yahoo_answers_topics") else []
        overrides += (
            ["dataset.name=x", "dataset.input_columns=[image]", "dataset.label_column=label"] if choice == "hub" else []
        )
    if choice in ("krum", "bulyan"):
        overrides += ["clients_per_round=8", "num_clients=8"]
    if group == "baselines":
        overrides += ["fault=label_flip"]
    if group == "mitigate":
        overrides += ["num_rounds=7"]  # the first in which a decision can hold
    settings = compose_settings(*overrides)
    assert (settings.provenance is None) == (choice == "off")


def test_a_selection_traces_both_kinds_and_weighs_them_as_the_ledger_does():
    settings = compose_settings(*SELECTION, "fault=label_flip")
    assert settings.provenance.inputs == "all"
    assert settings.strategy.wrong_weight == WRONG_WEIGHT
    assert compose_settings("fault=label_flip").provenance.inputs is None


def test_defaults_are_the_embedded_default():
    settings = compose_settings()
    assert (settings.model.name, settings.model.pretrained, settings.dataset.name) == ("resnet18", False, "digits")
    c = settings
    assert (c.num_clients, c.clients_per_round, c.num_rounds, c.dirichlet_alpha) == (10, 4, 3, 0.3)
    assert (settings.device, c.store.keep, settings.training.epochs, settings.training.batch_size) == (
        "cpu",
        "last",
        2,
        32,
    )


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("removal", (1.0, "leave_one_out", "global", "centered", None)),
        ("leave_one_out", (1.0, "leave_one_out", "global", "centered", "all")),
        ("artifact", (0.9, "none", "none", "predicted", None)),
        ("paper", (0.9, "num_examples", "none", "predicted", None)),
        ("unlike", (0.5, "none", "global", "centered", None)),
        ("fault", (1.0, "leave_one_out", "global", "centered", None)),
    ],
)
def test_presets_are_those_of_the_design(preset, values):
    provenance = compose_settings(f"provenance={preset}").provenance
    m = provenance.method
    assert (m.layer_decay, m.weighting, m.reference, m.target, m.verify) == values
    assert provenance.suspect_by == ("confusion" if preset == "fault" else "contribution")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clients_per_round=11"], "clients_per_round=11 is above num_clients=10"),
        (["clients_per_round=0"], "clients_per_round must be a whole number of at least 1, got 0"),
        (["num_clients=2.5"], "num_clients must be a whole number of at least 1, got 2.5"),
        (["num_rounds=true"], "num_rounds must be a whole number of at least 1, got True"),
        (["dirichlet_alpha=0"], "dirichlet_alpha must be a number above 0, got 0"),
        (["dirichlet_alpha=-1"], "dirichlet_alpha must be a number above 0, got -1"),
        (["dirichlet_alpha=much"], "dirichlet_alpha must be a number above 0, got 'much'"),
        (["seed=-1"], "seed must be a whole number of at least 0"),
        (["batch_size=0"], "batch_size must be"),
        (["client.lr=0"], "client.lr must be a number above 0"),
        (["client.epochs=0"], "client.epochs must be"),
        (["client.optimizer=sgd"], "client.optimizer must be one of adam, adamw, got 'sgd'"),
        (["client.precision=bf16"], "client.precision=bf16 needs device=cuda"),
        (["device=tpu"], "device must be one of cpu, cuda, got 'tpu'"),
        (["total_cpus=100000"], "total_cpus=100000, and this machine has"),
        (["total_gpus=99"], "total_gpus=99, and this machine has"),
        (["client_resources.cpus=100000"], "client_resources.cpus=100000 is above"),
        (["client_resources.gpus=0.5"], "client_resources.gpus=0.5 is above the 0 GPUs"),
        (["store.keep=some"], "store.keep must be one of none, last, all, got 'some'"),
        (["store.dtype=int8"], "store.dtype must be one of float32, bfloat16, got 'int8'"),
        (["strategy=krum"], "strategy=krum needs clients_per_round of at least 5, .*got 4"),
        (["strategy=trimmed_mean", "strategy.cut=0.2"], "strategy=trimmed_mean needs clients_per_round of at least 6"),
        (
            ["strategy=krum", "clients_per_round=5", "store.dtype=bfloat16"],
            "strategy=krum may choose other clients of weights that were rounded; store.dtype=bfloat16 rounds them",
        ),
        (["strategy=bulyan"], "strategy=bulyan needs clients_per_round of at least 8, .*got 4"),
        (["strategy=krum", "strategy.selected=4"], "strategy=krum needs clients_per_round of at least 5"),
        (["strategy=krum", "strategy.selected=0"], "strategy.selected must be a whole number of at least 1"),
        (["strategy=trimmed_mean", "strategy.cut=0.5"], r"strategy.cut must be a number in \[0, 0.5\), got 0.5"),
        (["strategy=median", "privacy=central"], "strategy=median and privacy=central each aggregate the updates"),
        (
            ["strategy=median", "provenance=artifact"],
            "strategy=median makes no average .*give provenance=leave_one_out",
        ),
        (["strategy=median", "fault=label_flip", "baselines=fast"], "leave strategy=median out"),
        (
            ["strategy=median", "mitigate=exclude", "num_rounds=9"],
            "strategy=median has no weights that mitigate=exclude",
        ),
        (["strategy.min_clients=5"], "strategy.min_clients=5 is above clients_per_round=4"),
        (["strategy.timeout_seconds=0"], "strategy.timeout_seconds must be a number above 0"),
        (["fault.flip={1: 0, a: 1}", "fault=label_flip"], "fault.flip must be"),
        (
            ["provenance.inputs=wrong"],
            "provenance.inputs must be one of correct, mispredicted, all or null, got 'wrong'",
        ),
        (["provenance.max_inputs=0"], "provenance.max_inputs must be a whole number of at least 1, got 0"),
        (["baselines=fast"], r"baselines.rules=\['artifact'.* look at mispredictions, and none are traced"),
        (["fault=label_flip", "baselines=fast", "provenance=off"], "look at mispredictions, and none are traced"),
        (["fault=label_flip", "baselines.rules=[krun]"], r"baselines.rules must be a list of .*got \['krun'\]"),
        (["fault=label_flip", "baselines.rules=[krum,krum]"], r"got \['krum', 'krum'\]"),
        (["provenance.layer_decay=1.5"], r"provenance.layer_decay must be a number in \(0, 1\], got 1.5"),
        (["provenance.target=best"], "provenance.target must be one of predicted, margin, centered, label"),
        (["provenance.weighting=some"], "provenance.weighting must be one of"),
        (["provenance.also=[batchnorm]"], r"provenance.also must be a list of batch_norm, embedding"),
        (["provenance.verify=-1"], "provenance.verify must be a whole number of at least 0 or all or null, got -1"),
        (["provenance.verify=some"], "provenance.verify must be a whole number of at least 0 or all or null"),
        (
            ["provenance=artifact", "provenance.verify=2"],
            "provenance.verify=2 checks what estimates the removal: .*; got 0.9, none, none, predicted and null",
        ),
        (
            ["provenance.layers=[fc]", "provenance.verify=2"],
            r"provenance.verify=2 checks .*layers=null; got 1, leave_one_out, global, centered and \['fc'\]",
        ),
        (["provenance.precision=bf16"], r"provenance.precision=bf16 needs device=cuda, got device=cpu"),
        (["provenance.precision=half"], r"provenance.precision must be one of float32, bf16, got 'half'"),
        (["provenance.memory_budget=0"], r"provenance.memory_budget must be a number above 0"),
        (["provenance.layers=fc"], r"provenance.layers must be a list of layer names"),
        (["model=gpt"], "model=gpt takes texts and dataset=digits holds images"),
        (["dataset=synthetic_text"], "model=resnet18 takes images and dataset=synthetic_text holds texts"),
        (["model=hf", "dataset=synthetic_text"], "model.name is not set: give model.name=..."),
        (["model.pretrained=3"], "model.pretrained"),
        (["dataset.mean=[0.5]"], "dataset.mean"),
        (["run_name=a/b"], "run_name must be a folder's name"),
        (["wandb.mode=on"], "wandb.mode must be one of disabled, online, offline"),
        (["log_dir=null"], "log_dir must be text"),
        (["strategy.name=fedfoo"], "strategy.name must be one of bulyan, .*fedavg, .*trimmed_mean, got 'fedfoo'"),
        (["strategy.proximal_mu=0.5"], "strategy.proximal_mu=0.5 needs strategy=fedprox"),
        (["strategy.temperature=2"], "strategy.temperature=2 needs strategy=provenance_selection"),
        ([*SELECTION, "strategy.temperature=0"], "strategy.temperature must be a number above 0, got 0"),
        (
            [*SELECTION, "strategy.temperature=null"],
            "strategy.temperature is null and strategy=provenance_selection needs it",
        ),
        (
            [*SELECTION, "strategy.wrong_weight=-1"],
            "strategy.wrong_weight must be a number of at least 0, got -1",
        ),
        ([*SELECTION, "strategy.exploration=0"], r"strategy.exploration must be a number in \(0, 1\], got 0"),
        (
            [*SELECTION, "strategy.exploration=1.5"],
            r"strategy.exploration must be a number in \(0, 1\], got 1.5",
        ),
        ([*SELECTION, "provenance=off"], "provenance=off traces none; give provenance=removal"),
        ([*SELECTION, "provenance.inputs=correct"], "got provenance.inputs=correct; give provenance.inputs=all"),
        ([*SELECTION, "provenance.inputs=null"], "got provenance.inputs=None; give provenance.inputs=all"),
        ([*SELECTION, "provenance.target=label"], "got provenance.target=label; give provenance.target=centered"),
        ([*SELECTION, "provenance=paper"], "give provenance.reference=global"),
        ([*SELECTION, "strategy.proximal_mu=0.5"], "strategy.proximal_mu=0.5 needs strategy=fedprox"),
        (["privacy.name=zzz"], "privacy.name must be one of central, central_adaptive, dp_sgd, none, got 'zzz'"),
        (["privacy=central", "privacy.noise_multiplier=-1"], "privacy.noise_multiplier must be a number of at least 0"),
        (["privacy=central", "privacy.noise_multiplier=null"], "privacy.noise_multiplier is null and privacy=central"),
        (["privacy=central", "privacy.clipping_norm=0"], "privacy.clipping_norm must be a number above 0, got 0"),
        (["privacy=central", "privacy.trace=noise"], "privacy.trace must be one of deployed, before_noise"),
        (["privacy=central", "privacy.target_epsilon=3"], "privacy.target_epsilon=3 needs privacy=dp_sgd, got privacy"),
        (["privacy.noise_multiplier=0.1"], "privacy.noise_multiplier=0.1 needs privacy=central or privacy=central_ada"),
        (["privacy.trace=before_noise"], "privacy.trace=before_noise needs privacy=central or"),
        (["privacy=dp_sgd", "privacy.trace=before_noise"], "privacy.trace=before_noise needs privacy=central or"),
        (["privacy=central_adaptive", "privacy.clipping_norm=5"], "privacy.clipping_norm=5 needs privacy=central, got"),
        (["privacy=central_adaptive", "privacy.initial_clipping_norm=null"], "privacy.initial_clipping_norm is null"),
        (["privacy=central_adaptive", "privacy.target_clipped_quantile=2"], r"quantile must be a number in \[0, 1\]"),
        (["privacy=central_adaptive", "privacy.clip_norm_lr=-1"], "privacy.clip_norm_lr must be a number above 0"),
        (["privacy=central_adaptive", "privacy.noise_multiplier=0.5"], "must be below twice .*, which is 0.2 .*lower"),
        (["privacy=dp_sgd", "privacy.target_epsilon=3"], "exactly one of privacy.noise_multiplier and .*got 1.0 and 3"),
        (["privacy=dp_sgd", "privacy.noise_multiplier=null"], "needs exactly one of .*, got None and None; set"),
        (
            ["privacy=dp_sgd", "privacy.noise_multiplier=0"],
            "privacy.noise_multiplier must be a number above 0 or null, got 0",
        ),
        (["privacy=dp_sgd", "privacy.target_delta=1"], r"privacy.target_delta must be a number in \(0, 1\), got 1"),
        (["privacy=dp_sgd", "privacy.max_grad_norm=x"], "privacy.max_grad_norm must be a number above 0"),
        (["privacy=dp_sgd", "privacy.max_physical_batch_size=0"], "privacy.max_physical_batch_size must be a whole"),
        (["model.name=resnet19"], "model.name='resnet19' is unknown"),
        (["dataset.source=digit"], "dataset.source is 'digit', .*did you mean 'digits'"),
        (["dataset=mnist", "dataset.path=5"], "dataset.path must be text"),
        (["client=null"], "client.epochs is missing"),
        (["~client.lr"], "client.lr is missing"),
    ],
)
def test_illegal_values_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_settings(*overrides)
    assert "\n" not in str(caught.value)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=cuda, and torch sees no CUDA device"):
        compose_settings("device=cuda")


def test_a_gpu_is_shared_as_asked(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    whole = compose_settings("device=cuda")
    assert (total_gpus(whole), client_gpus(whole)) == (2, 1.0)
    assert client_gpus(compose_settings("device=cuda", "client_resources.gpus=0.1")) == 0.1
    with pytest.raises(ConfigError, match="leaves clients without a GPU"):
        compose_settings("device=cuda", "client_resources.gpus=0")


def test_the_fingerprint_follows_what_changes_results_and_nothing_else():
    base = compose_settings()
    where = ("total_cpus=1", "backend=ray", "strategy.isolate=true", "log_dir=/x", "exp_key=other")
    for same in (*where, "store=all", "wandb.mode=offline", "overwrite=true"):
        assert fingerprint(compose_settings(same).resolved) == fingerprint(base.resolved), same
    others = [
        ("seed=1",),
        ("dirichlet_alpha=0.2",),
        ("provenance=paper",),
        ("dataset.partition=iid",),
        ("client.lr=0.01",),
    ]
    prints = {fingerprint(compose_settings(*other).resolved) for other in others} | {fingerprint(base.resolved)}
    assert len(prints) == len(others) + 1


def test_a_key_that_came_later_changes_no_runs_name():
    now = compose_settings().resolved
    before = {**now, "dataset": {k: v for k, v in now["dataset"].items() if k not in ("train_split", "test_split")}}
    assert fingerprint(now) == fingerprint(before)
    assert fingerprint(compose_settings("dataset.train_split=train_r1+train_r2").resolved) != fingerprint(before)


def test_run_names_say_the_setting():
    assert re.fullmatch(r"resnet18-digits-alpha0.3-4of10-3r-seed42-[0-9a-f]{8}", compose_settings().folder.name)
    assert compose_settings("run_name=mine").folder.name == "mine"
    assert "-iid-" in compose_settings("dataset.partition=iid").folder.name


def test_every_key_carries_a_comment():
    """Keys that a user sets say their unit and range on the same line, where they are defined first."""
    skipped = re.compile(
        r"^\s*(defaults|hydra|run|sweep|client|client_resources|ray|wandb|provenance|dataset|model):|^\s*-"
    )
    text = (CONF / "base.yaml").read_text().split("hydra:\n")[0]
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert [line for line in lines if "#" not in line and not skipped.match(line)] == []


def test_help_names_groups_choices_and_keys():
    text = help_text()
    for group in GROUPS:
        assert group in text
    for name in ("densenet121", "pathmnist", "fedprox", "artifact", "figure2", "dp_sgd", "clipping_norm: 15.0"):
        assert name in text
    keys = itertools.chain.from_iterable(_keys(OmegaConf.to_container(OmegaConf.load(CONF / "base.yaml"))))
    assert all(key in text for key in keys)


def _keys(node):
    for key, value in node.items():
        if key not in ("defaults", "hydra"):
            yield [key]
            if isinstance(value, dict):
                yield from _keys(value)


def test_unknown_groups_do_not_compose():
    with pytest.raises(HydraException):
        compose_config("model=resnet19")


def test_settings_are_plain_values():
    settings = read_settings(compose_config("model=bert", "dataset=synthetic_text", "++model.config.hidden_size=64"))
    assert settings.model.config == {"hidden_size": 64}
    assert isinstance(settings.resolved, dict)


def test_keys_of_several_kinds_still_make_a_name():
    config = dict(compose_settings("fault=label_flip", "fault.flip={1: 0}").resolved)
    config["fault"] = {**config["fault"], "flip": {1: 0, "a": 2}}
    assert len(fingerprint(config)) == 8


@pytest.mark.parametrize("argument", ["fault=null", "privacy=", "provenance=null"])
def test_a_group_without_a_choice_is_refused(argument):
    with pytest.raises(ConfigError, match=f"'{argument}' chooses nothing; choose one of"):
        prepare_overrides([argument])
