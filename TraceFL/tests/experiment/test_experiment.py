"""A prepared run, without a federation."""

import dataclasses
import json

import pytest
import torch

from tests.helpers.configuration import TINY, compose_settings
from tracefl.errors import ConfigError, LayerNotTraceableError
from tracefl.experiment.experiment import Experiment
from tracefl.experiment.preparation import prepare_run
from tracefl.federation.plan import Joined, RoundOutcome
from tracefl.learning.datasets import load_examples
from tracefl.provenance import RoundRecord
from tracefl.records.folder import RunFolder


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


def make_experiment(logs, *overrides, prepared=None):
    settings = compose_settings(*TINY, f"log_dir={logs}", "provenance.max_inputs=3", *overrides)
    return Experiment(settings, prepared or prepare_run(settings), RunFolder(settings.folder, settings))


@pytest.fixture(scope="module")
def prepared(logs):
    return make_experiment(logs).prepared


def unchanged_round(experiment, server_round, clients):
    """A round whose clients sent back the initial model."""
    weights = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    shares = dict.fromkeys(clients, 1 / len(clients))
    record = RoundRecord(server_round, dict.fromkeys(clients, weights), shares, weights, weights)
    return RoundOutcome(record, 0.7, experiment.evaluate(weights))


def test_the_plan_says_what_the_configuration_says(logs, prepared):
    experiment = make_experiment(logs, "strategy=fedprox", "strategy.proximal_mu=0.1", prepared=prepared)
    plan, job = experiment.plan(0), json.loads(experiment.plan(0).client_job)
    assert (plan.strategy, plan.proximal_mu, plan.rounds_done, plan.num_rounds) == ("fedprox", 0.1, 0, 2)
    assert plan.num_examples == {client: len(examples) for client, examples in prepared.data.clients.items()}
    assert set(plan.trainable) == {name for name, _ in experiment.model.named_parameters()}
    assert (job["data"], job["fault"]) == (None, None)
    assert job["data_path"] == str(experiment.folder.work.resolve())


def test_a_model_that_no_client_can_train_is_refused_before_anything_is_written(logs, prepared):
    with pytest.raises(ConfigError, match=r"no client can train this model on batches of 1: .*; change batch_size"):
        make_experiment(logs, "batch_size=1", "exp_key=untrainable", "dataset.image_size=16", prepared=prepared)
    assert not (logs / "untrainable").exists()


def test_the_clients_examples_leave_the_memory_when_they_are_written(tmp_path):
    experiment = make_experiment(tmp_path, "fault=label_flip", "fault.num_clients=1", "fault.min_examples=1")
    before = experiment.prepared
    experiment.folder.begin(resume=False)
    experiment.write_inputs()
    assert before.data.clients
    assert experiment.prepared.data.clients == experiment.prepared.fault.examples == {}
    assert experiment.prepared.truth == before.truth
    (faulty,) = before.truth.clients
    for client, examples in before.data.clients.items():
        assert torch.equal(
            load_examples(experiment.folder.work / f"client-{client}.safetensors").labels, examples.labels
        )
    written = load_examples(experiment.folder.work / f"client-{faulty}-faulty.safetensors")
    assert torch.equal(written.labels, before.fault.examples[faulty].labels)
    experiment.folder.close()


def test_clients_are_left_out_from_their_round_on(logs, prepared):
    experiment = make_experiment(logs, "without=[1]", "without_from=2", "clients_per_round=2", prepared=prepared)
    assert experiment.participation.excluded == set()
    experiment.assess(unchanged_round(experiment, 1, ("0", "1")), 1.0)
    assert experiment.participation.excluded == {"1"}


def test_a_round_is_evaluated_and_traced(logs, prepared):
    experiment = make_experiment(logs, "provenance.inputs=all", prepared=prepared)
    result = experiment.assess(unchanged_round(experiment, 1, ("0", "2")), 1.5)
    assert result.row["train_seconds"] == 1.5
    assert result.row["train_loss"] == 0.7
    assert 0 <= result.row["global_accuracy"] <= 1
    assert len(result.traced) == result.row["inputs_traced"] > 0
    assert {client for traced in result.traced for client, _ in traced.ranking} == {"0", "2"}
    assert result.row["epsilon"] is result.row["clipping_norm"] is None


def test_a_client_that_joins_counts_in_sampling_and_tracing(logs, prepared):
    experiment = make_experiment(logs, prepared=prepared)
    classes = prepared.data.num_classes
    experiment.admit("9", Joined([3] * classes, "SHA256:9"))
    assert experiment.num_examples["9"] == 3 * classes
    assert experiment.tracer.label_counts[9].tolist() == [3] * classes
    assert "9" not in {str(client) for client in range(len(prepared.data.label_counts))}


def test_a_layer_that_cannot_be_traced_is_refused_before_the_run(logs, prepared):
    with pytest.raises(LayerNotTraceableError, match="nowhere"):
        make_experiment(logs, "provenance.layers=[nowhere]", prepared=prepared)


def test_replies_refused_in_earlier_sessions_count(logs, prepared):
    experiment = make_experiment(logs, prepared=prepared)
    result = experiment.assess(unchanged_round(experiment, 1, ("0", "2")), 1.0)
    refused = dataclasses.replace(result, refused=("1",), dropped={"1": "a training loss of nan"})
    again = make_experiment(logs, prepared=prepared)
    again.resume([refused, refused])
    assert again.participation.excluded == set()
    again.resume([refused])
    assert again.participation.excluded == {"1"}
    assert make_experiment(logs, "strategy.max_refusals=null", prepared=prepared).participation.max_refusals is None


@pytest.mark.parametrize(
    ("deployed", "given", "share", "multiple"),
    [(False, "null", None, None), (True, "null", None, 3.0), (True, "0.5", 0.5, None), (False, "0.5", 0.5, None)],
)
def test_only_a_deployments_weights_are_bounded_by_themselves(logs, prepared, deployed, given, share, multiple):
    prepared = dataclasses.replace(prepared, client_job={} if deployed else None)
    plan = make_experiment(logs, f"strategy.max_weight={given}", prepared=prepared).plan(0)
    assert (plan.max_weight, plan.max_weight_multiple) == (share, multiple)
    assert (plan.max_update_norm, plan.timeout_seconds, plan.frozen) == (5, None, ())
    assert plan.training.batch_size == 32
