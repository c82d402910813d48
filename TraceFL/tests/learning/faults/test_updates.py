import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.images import images
from tracefl.learning.faults.updates import add_update_noise, ride_free


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 3))
    net[4].bias.requires_grad_(False)
    return net


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def rms(tensor):
    return float(tensor.double().square().mean().sqrt())


def test_noise_on_an_update_is_as_large_as_asked_tensor_by_tensor(model):
    start = copy_of(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "1.bias":  # a tensor that did not move gets no noise
                parameter += torch.randn_like(parameter) * (0.01 if name == "0.weight" else 0.1)
    trained = copy_of(model)
    add_update_noise(model, start, 2.0, seed=0)
    sent = model.state_dict()
    for name in ("0.weight", "4.weight"):
        noise = sent[name] - trained[name]
        assert rms(noise) == pytest.approx(2 * rms(trained[name] - start[name]), rel=0.1)
        assert abs(float(noise.mean())) < 0.1 * rms(noise)
    for name in ("1.bias", "4.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(sent[name], trained[name]), name


def test_a_free_rider_sends_the_global_weights_with_little_noise_and_a_loss_of_its_data(model):
    start = copy_of(model)
    examples = images([0, 1, 2] * 4)
    loss = ride_free(model, examples, 64, 0.001, seed=0)
    sent = model.state_dict()
    for name in ("0.weight", "4.weight"):
        assert rms(sent[name] - start[name]) == pytest.approx(0.001 * rms(start[name]), rel=0.1)
    for name in ("4.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(sent[name], start[name]), name
    model.load_state_dict(start)
    model.eval()
    inputs, labels = examples.batch(torch.arange(12))
    with torch.no_grad():  # the batch is as large as the data
        assert loss == pytest.approx(float(F.cross_entropy(model(inputs), labels)), rel=1e-5)


def test_without_noise_a_free_rider_sends_what_it_got_and_looks_at_one_batch(model):
    start = copy_of(model)
    examples = images([0, 1, 2] * 40)
    first, again, other = (ride_free(model, examples, 8, 0.0, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_the_noise_follows_the_seed(model):
    start = copy_of(model)

    def sent(seed):
        model.load_state_dict(start)
        ride_free(model, images([0, 1]), 2, 0.1, seed)
        return copy_of(model)["4.weight"]

    assert torch.equal(sent(0), sent(0))
    assert not torch.equal(sent(0), sent(1))


def test_a_diverged_update_stays_visible(model):
    start = copy_of(model)
    with torch.no_grad():
        model[4].weight[0, 0] = torch.nan
    add_update_noise(model, start, 1.0, seed=0)
    assert not model[4].weight.isfinite().all()
