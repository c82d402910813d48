"""Published numbers stand beside their own setting alone."""

import pytest
from omegaconf import OmegaConf

from tests.helpers.configuration import compose_config
from tests.helpers.made_runs import FLIP, NO_FAULT
from tracefl.paper.grid_points import point_of
from tracefl.paper.published import find_published, find_published_suspects
from tracefl.records.settings import read_keys

TABLE1 = ("clients_per_round=10", "num_rounds=15")


def config_of(*overrides, fault=FLIP):
    config = OmegaConf.to_container(compose_config(*overrides), resolve=True)
    return read_keys(config | {"fault": dict(fault)})


@pytest.mark.parametrize(
    ("model", "dataset", "alpha", "feddebug", "provenance"),
    [
        ("densenet121", "organamnist", 0.7, 0.215, 1.0),
        ("densenet121", "pathmnist", 1.0, 0.687, 1.0),
        ("densenet121", "cifar10", 0.3, 0.2, 1.0),
        ("densenet121", "mnist", 0.7, 0.86, 1.0),
        ("gpt", "dbpedia_14", 0.7, None, 0.94),
        ("gpt", "yahoo_answers_topics", 1.0, None, 1.0),
    ],
)
def test_table_1(model, dataset, alpha, feddebug, provenance):
    config = config_of(*TABLE1, f"model={model}", f"dataset={dataset}", f"dirichlet_alpha={alpha}")
    assert find_published_suspects(point_of(config)) == {"feddebug": feddebug, "artifact": provenance}


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (("dirichlet_alpha=0.5",), {}),
        (("model=resnet18",), {}),
        (("num_rounds=5",), {}),
        (("clients_per_round=5",), {}),
        (("dataset.partition=iid",), {}),
        (("privacy=central",), {}),
        ((), {"share": 0.5}),
        ((), {"clients": [0, 1]}),
        ((), {"num_clients": 2, "clients": None}),
        ((), {"name": "backdoor", "target": 0}),
        ((), NO_FAULT),
        ((), {"from_round": 3}),
        ((), {"all_to": None, "flip": {1: 0}}),
        ((), {"all_to": 1}),
    ],
)
def test_another_setting_is_not_in_table_1(overrides, fault):
    setting = (*TABLE1, "model=densenet121", "dataset=mnist", "dirichlet_alpha=0.3")
    assert find_published_suspects(point_of(config_of(*setting))) != {}
    assert find_published_suspects(point_of(config_of(*setting, *overrides, fault=FLIP | fault))) == {}


def test_a_run_with_a_fault_has_no_published_number_of_runs_without():
    setting = ("experiment=figure3", "model=gpt", "dataset=dbpedia_14", "dirichlet_alpha=0.3")
    assert find_published(point_of(config_of(*setting, fault=NO_FAULT))) is not None
    assert find_published(point_of(config_of(*setting, fault=FLIP))) is None
