"""Clipping and noise of the server against hand computations, through Flower's own strategies."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch.testing import assert_close

from tracefl.common.seeds import derive_seed
from tracefl.federation.central_privacy import CentralPrivacy
from tracefl.learning.privacy.central import effective_noise_multiplier, next_clipping_norm, seeded_numpy
from tracefl.learning.privacy.settings import AdaptivePrivacySettings, CentralPrivacySettings

SIZE = 200
PREVIOUS = {
    "fc.weight": torch.linspace(-1, 1, SIZE * SIZE).view(SIZE, SIZE),
    "bn.running_var": torch.ones(3),
    "bn.num_batches_tracked": torch.tensor(10),
    "fc.bias": torch.zeros(4),
}
TRAINABLE = ("fc.weight", "fc.bias")


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """Messages name the task that makes them; here none runs."""
    for part in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)


def client(norm, seed):
    """Return a client whose trainable update has a given norm, with buffers of its own, large ones."""
    generator = torch.Generator().manual_seed(seed)
    update = {name: torch.randn(PREVIOUS[name].shape, generator=generator) for name in TRAINABLE}
    length = torch.cat([u.flatten() for u in update.values()]).norm()
    return {
        "fc.weight": PREVIOUS["fc.weight"] + update["fc.weight"] * norm / length,
        "bn.running_var": torch.full((3,), 100.0 * seed),
        "bn.num_batches_tracked": torch.tensor(10 + seed),
        "fc.bias": PREVIOUS["fc.bias"] + update["fc.bias"] * norm / length,
    }


def reply(state, num_examples):
    message = Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
    metrics = MetricRecord({"num-examples": num_examples, "train-loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)


def settings(noise_multiplier=0.0, clipping_norm=2.0):
    return CentralPrivacySettings(noise_multiplier, clipping_norm, "deployed")


def adaptive(noise_multiplier=0.0, initial=1.0, target=0.5, stddev=None):
    return AdaptivePrivacySettings(
        noise_multiplier,
        initial_clipping_norm=initial,
        target_clipped_quantile=target,
        clip_norm_lr=0.2,
        clipped_count_stddev=stddev,
        trace="deployed",
    )


def aggregate(privacy, states, num_examples=None, server_round=1, seed=0, central=None):
    """Return the new weights, those before the noise, and the clients as they count."""
    central = central or CentralPrivacy(privacy, len(states), TRAINABLE, {}, seed)
    replies = [reply(s, n) for s, n in zip(states, num_examples or [1] * len(states), strict=True)]
    noisy, metrics, before = central.aggregate_train(server_round, ArrayRecord(PREVIOUS), replies)
    assert float(metrics["train-loss"]) == pytest.approx(1.0)
    clients = [r.content["arrays"].to_torch_state_dict() for r in replies]
    return noisy.to_torch_state_dict(), before.to_torch_state_dict(), clients


def update_norm(state):
    return torch.cat([(state[name] - PREVIOUS[name]).flatten() for name in TRAINABLE]).double().norm()


def test_clients_are_clipped_by_the_norm_of_their_trainable_parameters_alone():
    states = [client(4.0, 1), client(1.0, 2)]
    noisy, before, clipped = aggregate(settings(), states)
    for name in TRAINABLE:
        # 4 is clipped to 2: half of the update is left. 1 stays.
        assert_close(clipped[0][name], PREVIOUS[name] + (states[0][name] - PREVIOUS[name]) / 2, atol=1e-6, rtol=1e-6)
        assert_close(clipped[1][name], states[1][name])
        assert_close(before[name], (clipped[0][name] + clipped[1][name]) / 2)
        assert_close(noisy[name], before[name], rtol=0, atol=0)
    assert [float(update_norm(state)) for state in clipped] == pytest.approx([2.0, 1.0], rel=1e-5)
    for name in ("bn.running_var", "bn.num_batches_tracked"):
        assert torch.equal(clipped[0][name], states[0][name])
    assert_close(noisy["bn.running_var"], torch.full((3,), 150.0))
    assert float(noisy["bn.num_batches_tracked"]) == 11.5
    assert list(clipped[0]) == list(states[0])
    assert set(noisy) == set(PREVIOUS)


def test_the_average_is_weighted_by_examples():
    states = [client(1.0, 1), client(1.0, 2)]
    _, before, _ = aggregate(settings(), states, [30, 10])
    for name in (*TRAINABLE, "bn.running_var"):
        assert_close(before[name], 0.75 * states[0][name] + 0.25 * states[1][name])


def test_the_noise_has_the_standard_deviation_that_it_should():
    noisy, before, _ = aggregate(settings(0.5, 2.0), [client(1.0, k) for k in range(4)])
    noise = torch.cat([(noisy[name] - before[name]).flatten() for name in TRAINABLE]).double()
    expected = 0.5 * 2.0 / 4
    n = len(noise)
    assert abs(noise.mean()) < 5 * expected / n**0.5
    assert abs(noise.std() / expected - 1) < 5 / (2 * n) ** 0.5
    assert torch.equal(noisy["bn.running_var"], before["bn.running_var"])
    assert torch.equal(noisy["bn.num_batches_tracked"], before["bn.num_batches_tracked"])


def test_the_noise_is_as_seeded_and_the_deployed_model_is_the_average_with_it():
    noisy, before, _ = aggregate(settings(0.5, 2.0), [client(1.0, k) for k in range(4)], server_round=3, seed=7)
    draw = np.random.RandomState(derive_seed(7, "privacy", 3))
    for name in TRAINABLE:
        noise = draw.normal(0, 0.25, PREVIOUS[name].shape).astype(np.float32)
        assert torch.equal(noisy[name], before[name] + torch.from_numpy(noise))


def test_the_same_seed_gives_the_same_noise_and_another_round_or_seed_gives_another():
    def noised(**which):
        return aggregate(settings(0.5), [client(1.0, 1)], **which)[0]["fc.weight"]

    first = noised(server_round=2)
    np.random.seed(99)
    before = np.random.get_state()[1].copy()
    assert torch.equal(noised(server_round=2), first)
    assert (np.random.get_state()[1] == before).all()  # Flower's draws left no trace
    assert not torch.equal(noised(server_round=3), first)
    assert not torch.equal(noised(server_round=2, seed=1), first)


def test_a_client_that_changed_nothing_counts():
    states = [{name: tensor.clone() for name, tensor in PREVIOUS.items()}, client(1.0, 1)]
    for privacy in (settings(), adaptive(initial=2.0)):
        _, before, clipped = aggregate(privacy, states)
        for name in TRAINABLE:
            assert torch.equal(clipped[0][name], PREVIOUS[name])
            assert_close(before[name], (states[0][name] + states[1][name]) / 2)


def test_fewer_replies_mean_more_noise_each():
    central = CentralPrivacy(settings(0.5, 2.0), 4, TRAINABLE, {}, 0)
    noisy, before, _ = aggregate(None, [client(1.0, k) for k in range(2)], central=central)
    noise = (noisy["fc.weight"] - before["fc.weight"]).double()
    assert float(noise.std()) == pytest.approx(0.5 * 2.0 / 2, rel=0.02)


def test_the_adaptive_norm_grows_where_too_many_are_clipped_and_shrinks_where_too_few_are():
    central = CentralPrivacy(adaptive(initial=1.0, target=0.25), 4, TRAINABLE, {}, 0)
    _, _, clipped = aggregate(None, [client(norm, norm) for norm in (3, 4, 5, 6)], central=central)
    assert [float(update_norm(state)) for state in clipped] == pytest.approx([1.0] * 4, rel=1e-5)
    assert central.clipping_norm == pytest.approx(np.exp(0.2 * (1 - 0.25)))  # all 4 clipped, a quarter wanted
    central = CentralPrivacy(adaptive(initial=10.0, target=0.25), 4, TRAINABLE, {}, 0)
    aggregate(None, [client(norm, norm) for norm in (3, 4, 5, 6)], central=central)
    assert central.clipping_norm == pytest.approx(10 * np.exp(0.2 * (0 - 0.25)))


@pytest.mark.parametrize("initial", [0.5, 60.0])
def test_the_adaptive_norm_settles_at_the_quantile(initial):
    central = CentralPrivacy(adaptive(initial=initial, target=0.5), 4, TRAINABLE, {}, 0)
    for server_round in range(1, 60):
        aggregate(None, [client(norm, norm) for norm in (2, 4, 6, 8)], server_round=server_round, central=central)
    assert 3.5 < central.clipping_norm < 6.5  # the median lies between 4 and 6


def test_adaptive_noise_is_that_of_the_norm_that_clipped():
    # Part of the noise multiplier is spent on the count: (z^-2 - (2 stddev)^-2)^-1/2, Andrew et al. 2021, Theorem 1.
    central = CentralPrivacy(adaptive(0.3, initial=1.0, stddev=0.5), 2, TRAINABLE, {}, 0)
    noisy, before, _ = aggregate(None, [client(3.0, 1), client(4.0, 2)], central=central)
    z = (0.3**-2 - 1.0**-2) ** -0.5
    noise = (noisy["fc.weight"] - before["fc.weight"]).double()
    assert float(noise.std()) == pytest.approx(z * 1.0 / 2, rel=0.02)
    assert central.clipping_norm != 1.0


def test_the_adaptive_state_depends_on_the_norm_it_starts_from_alone():
    """Round 2 of a run that stops after round 1 is round 2 of one that goes on."""
    states = [client(norm, norm) for norm in (1, 2, 3)]
    through = CentralPrivacy(adaptive(0.1, stddev=0.4), 3, TRAINABLE, {}, 5)
    aggregate(None, states, server_round=1, central=through)
    resumed = CentralPrivacy(adaptive(0.1, initial=through.clipping_norm, stddev=0.4), 3, TRAINABLE, {}, 5)
    first = aggregate(None, states, server_round=2, central=through)[0]
    second = aggregate(None, states, server_round=2, central=resumed)[0]
    assert all(torch.equal(first[name], second[name]) for name in PREVIOUS)
    assert through.clipping_norm == resumed.clipping_norm


def test_the_next_norm_by_hand():
    assert next_clipping_norm(2.0, 0.75, 0.5, 0.4) == pytest.approx(2 * np.exp(0.1))


def test_the_heaviest_client_sees_less_noise():
    # Half of the average is one client's: of 4 clients it counts twice, and the noise is worth half to it.
    assert effective_noise_multiplier(1.0, 0.5, 4) == 0.5
    assert effective_noise_multiplier(1.0, 0.25, 4) == 1.0


def test_numpy_is_restored_after_an_error():
    state = np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="scale"), seeded_numpy(1):
        np.random.normal([0.0, 1.0], scale=-1)
    assert (np.random.get_state()[1] == state).all()
