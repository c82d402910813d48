"""Which runs the job scripts are for: those of the paper, and each composes."""

import functools

import pytest

from tests.helpers.configuration import compose_settings
from tests.helpers.job_scripts import COUNTS, listed
from tracefl.conf.cli import prepare_overrides
from tracefl.jobs.__main__ import read_request
from tracefl.jobs.miniature import TINY_MODELS, miniature
from tracefl.learning.faults.words import describe_fault, faulty_clients
from tracefl.paper.grid_points import point_of, point_of_job
from tracefl.paper.published import find_published_suspects
from tracefl.paper.runs import JOBS

COMMAND = ["tracefl", "run"]

composed = functools.cache(compose_settings)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(jobs, name):
    assert jobs(name, "--count") == (0, f"{COUNTS[name]}\n", "")
    commands = listed(jobs, name)
    assert len({tuple(command) for command in commands}) == COUNTS[name]


def test_the_training_runs_are_those_of_figure_2(jobs):
    found = set()
    for command in listed(jobs, "training"):
        c = composed(*command[2:])
        found.add((c.model.name, c.dataset.name, c.dirichlet_alpha, c.num_rounds))
        assert (c.num_clients, c.clients_per_round, c.client.epochs, c.batch_size) == (100, 10, 2, 32)
    images = {(m, d, n) for m in ("resnet18", "densenet121") for d, n in _ROUNDS.items() if d not in _TEXTS}
    texts = {(m, d, 25) for m in ("gpt", "bert") for d in _TEXTS}
    assert found == {(m, d, alpha, n) for m, d, n in images | texts for alpha in (0.1, 0.2, 0.3)}


_TEXTS = ("dbpedia_14", "yahoo_answers_topics")
_ROUNDS = {"mnist": 50, "cifar10": 50, "pathmnist": 25, "organamnist": 25}


def test_the_privacy_runs_are_those_of_figure_4_and_table_2(jobs):
    found = set()
    for command in listed(jobs, "dp"):
        c = composed(*command[2:])
        assert (c.privacy.name, c.num_rounds, c.dirichlet_alpha) == ("central", 15, 0.3)
        p = c.privacy
        found.add((c.model.name, c.dataset.name, p.noise_multiplier, p.clipping_norm))
    settings = (("densenet121", "mnist"), ("densenet121", "pathmnist"), ("gpt", "dbpedia_14"))
    noises = (0.0001, 0.0003, 0.0007, 0.0009, 0.001, 0.003)
    expected = {(m, d, noise, clip) for m, d in settings for noise in noises for clip in (15, 50)}
    assert found == expected | {("gpt", "dbpedia_14", 0.006, 10), ("gpt", "dbpedia_14", 0.012, 15)}


def test_the_scalability_runs_are_those_of_table_3_and_figure_5(jobs):
    found = []
    for command in listed(jobs, "scalability"):
        c = composed(*command[2:])
        assert (c.model.name, c.dataset.name, c.dirichlet_alpha) == ("gpt", "dbpedia_14", 0.3)
        found.append((c.num_clients, c.clients_per_round, c.num_rounds))
    clients = [(n, 10, 15) for n in (200, 400, 600, 800, 1000)]
    assert found == [*clients, *((400, n, 15) for n in (20, 30, 40, 50)), (400, 10, 100)]


def test_the_dirichlet_runs_are_those_of_figure_3(jobs):
    found = set()
    for command in listed(jobs, "dirichlet"):
        c = composed(*command[2:])
        assert (c.num_clients, c.clients_per_round, c.num_rounds) == (100, 10, 15)
        found.add((c.model.name, c.dataset.name, c.dirichlet_alpha))
    settings = {("gpt", d) for d in _TEXTS} | {("densenet121", d) for d in _ROUNDS}
    assert found == {(m, d, n / 10) for m, d in settings for n in range(1, 11)}


def test_the_faulty_runs_are_those_of_table_1(jobs):
    found = set()
    for command in listed(jobs, "faulty"):
        c = composed(*command[2:])
        assert (c.num_clients, c.clients_per_round, c.num_rounds) == (10, 10, 15)
        assert (c.fault.name, c.fault.share, c.fault.from_round) == ("label_flip", 1.0, 1)
        assert (c.fault.flip, c.fault.all_to) == (None, None)  # all to 0
        assert "feddebug" in c.baselines.rules
        assert faulty_clients(c.fault) == 1
        assert find_published_suspects(point_of(c))
        found.add((c.model.name, c.dataset.name, c.dirichlet_alpha))
    assert found == {(m, d, alpha) for m, d in _TABLE1 for alpha in (0.3, 0.7, 1.0)}


_TABLE1 = {("gpt", d) for d in _TEXTS} | {("densenet121", d) for d in _ROUNDS}


def test_extended_adds_other_faults_to_table_1_s_settings_and_moves_no_index(jobs):
    assert jobs("faulty", "--extended", "--count") == (0, "66\n", "")
    commands = listed(jobs, "faulty", "--extended")
    assert commands[:18] == listed(jobs, "faulty")
    found = []
    for command in commands[18:]:
        c = composed(*command[2:])
        assert (c.num_clients, c.clients_per_round, c.num_rounds) == (10, 10, 15)
        assert (c.dirichlet_alpha, c.exp_key) == (0.3, "table1")
        found.append(
            (
                c.model.name,
                c.dataset.name,
                describe_fault(c.fault, c.num_clients).split(",")[0],
                faulty_clients(c.fault),
            )
        )
    flips = {("label_flip 10 %", 1), ("label_flip 30 %", 1), ("label_flip 50 %", 1)}
    flips |= {("label_flip 100 %", 2), ("label_flip 100 %", 3)}
    others = {("backdoor 50 %", 1), ("random_labels 100 %", 1), ("free_rider scale=0.001", 1)}
    assert len(found) == 48
    assert set(found) == {(*setting, *fault) for setting in _TABLE1 for fault in flips | others}


def test_an_extended_run_is_named_by_its_fault(jobs):
    names = [job.label for job in read_request(["faulty", "--extended", "21,23"]).jobs]
    setting = "table1 densenet121 organamnist dirichlet_alpha=0.3"
    assert names == [f"{setting} fault.num_clients=2", f"{setting} backdoor"]


@pytest.mark.parametrize("name", COUNTS)
def test_every_run_is_as_in_the_paper_and_has_a_folder_of_its_own(jobs, name):
    folders = set()
    for command, overrides in zip(listed(jobs, name), JOBS[name], strict=True):
        assert command[:2] == COMMAND
        settings = composed(*command[2:])
        assert point_of_job(overrides) == point_of(settings)
        method = settings.provenance.method
        published = (0.9, "none", "none", "predicted")
        if (method.layer_decay, method.weighting, method.reference, method.target) != published:
            assert "artifact" in settings.baselines.rules  # then the published formula stands beside it
        assert (settings.provenance.inputs_per_label, settings.model.pretrained) == (2, True)
        assert (settings.resume, settings.store.keep) == (True, "last")
        folders.add(settings.folder)
    assert len(folders) == COUNTS[name]


def covering(commands):
    """Choose commands among which every word of all of them stands in one at least."""
    seen, chosen = set(), []
    for command in commands:
        if not seen >= set(command):
            chosen.append(command)
            seen |= set(command)
    return chosen


SETS = [*([name] for name in COUNTS), ["faulty", "--extended"]]


@pytest.mark.parametrize("arguments", SETS)
def test_a_miniature_of_each_word_composes(jobs, arguments):
    check_miniatures(covering(listed(jobs, *arguments)))


@pytest.mark.long
@pytest.mark.parametrize("arguments", SETS)
def test_every_miniature_composes(jobs, arguments):
    check_miniatures(listed(jobs, *arguments))


def check_miniatures(commands):
    whole = [composed(*command[2:]) for command in commands]
    for command, config in zip(commands, whole, strict=True):
        small, words = miniature(config, None)
        settings = composed(*prepare_overrides([*command[2:], *small]))
        assert words == f"{settings.dataset.name} in place of {config.dataset.name}"
        assert settings.model.name == config.model.name
        assert settings.num_clients >= settings.clients_per_round
        for key in ("dirichlet_alpha", "privacy", "provenance", "baselines", "store", "exp_key"):
            assert settings.resolved[key] == config.resolved[key]
        for key in ("name", "share", "from_round", "flip", "all_to"):
            assert settings.resolved["fault"][key] == config.resolved["fault"][key]
        assert faulty_clients(settings.fault) >= faulty_clients(config.fault)
        all_take_part = config.clients_per_round == config.num_clients
        assert all_take_part == (settings.clients_per_round == settings.num_clients)
    assert {config.model.name for config in whole} <= set(TINY_MODELS)
