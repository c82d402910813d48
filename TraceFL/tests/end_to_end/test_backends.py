"""In this process and on Ray: the same weights, rows and scores, bit for bit.

``test_simulation.py`` compares a run on images in the same way, with two clients at once. One cluster serves all here.
"""

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.helpers.runs import LIGHT_MODEL, run, run_on_ray
from tests.helpers.tables import read_untimed

pytestmark = [pytest.mark.slow, pytest.mark.simulation]

TEXT = (
    *("model=bert", "model.pretrained=false", "++model.config.num_hidden_layers=1", "++model.config.hidden_size=32"),
    *("++model.config.num_attention_heads=2", "++model.config.intermediate_size=64"),
    *("dataset=synthetic_text", "dataset.max_tokens=32", "client.lr=0.003"),
)
DP_SGD = (*LIGHT_MODEL, "privacy=dp_sgd", "privacy.noise_multiplier=1.0", "batch_size=16")
FAULTY = (
    *(*LIGHT_MODEL, "strategy=fedprox", "dirichlet_alpha=100", "num_clients=4", "client.epochs=2"),
    *("dataset.max_examples_per_client=128", "dataset.max_server_examples=200"),
    *("fault=label_flip", "fault.clients=[2]", "fault.min_examples=1", "provenance=fault", "baselines=fast"),
    *("mitigate=exclude", "mitigate.gain=0.001", "mitigate.gain_alone=0.001", "mitigate.window=1"),
    *("mitigate.from_round=1", "provenance.stand_outs=true"),
)


@pytest.fixture(scope="module")
def address():
    """A Ray cluster with room for one client."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def left_by(folder):
    """Return all that a run has computed, by its file."""
    rows = {path.name: read_untimed(path) for path in folder.glob("*.csv")}
    for row in rows.get("suspects.csv", ()):
        del row["seconds"]
    weights = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}
    return rows | weights


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(TEXT, id="text", marks=pytest.mark.long),
        pytest.param(DP_SGD, id="dp_sgd", marks=pytest.mark.long),
        pytest.param(FAULTY, id="faulty"),
    ],
)
def test_a_run_is_the_same_to_the_last_bit(address, tmp_path, keys):
    here = left_by(run(tmp_path / "here", *keys, "store=all"))
    on_ray = left_by(run_on_ray(tmp_path / "ray", *keys, "store=all", f"ray.address={address}"))
    assert on_ray.keys() == here.keys()
    assert {"rounds.csv", "provenance.csv", "rounds/0002/global.safetensors"} <= here.keys()
    for name, content in here.items():
        assert on_ray[name] == content, name
    if keys is FAULTY:
        assert [row for row in here["mitigation.csv"] if row["decision"]]  # else nothing is carried over its rounds
        assert here["suspects.csv"]
