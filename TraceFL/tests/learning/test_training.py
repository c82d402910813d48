import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from tracefl.learning.examples import Examples
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import evaluate, train, why_untrainable

SETTINGS = TrainingSettings(epochs=2, batch_size=8, optimizer="adam", lr=0.01)


def examples(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = (pixels.float().mean(dim=(1, 2, 3)) > 127).long()
    return Examples({"pixels": pixels}, labels, torch.arange(n), (0.5,) * 3, (0.5,) * 3)


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def test_agrees_with_a_plain_loop():
    """The steps written out: same shuffling, same dropout, plain Adam on plain cross-entropy."""
    data, ours, plain = examples(), model(), model()
    loss = train(ours, data, SETTINGS, seed=5)
    torch.manual_seed(5)
    plain.train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        losses = []
        for index in torch.randperm(40).split(8):
            x = (data.features["pixels"][index].float() / 255 - 0.5) / 0.5
            step = F.cross_entropy(plain(x), data.labels[index])
            optimizer.zero_grad()
            step.backward()
            optimizer.step()
            losses.append(step.item())
    assert_close(ours.state_dict(), plain.state_dict())
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_one_forward_a_step():
    network = model()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    train(network, examples(), SETTINGS, seed=0)
    assert len(calls) == 2 * 5


def test_same_seed_same_weights_other_seed_other_weights():
    runs = []
    for seed in (1, 1, 2):
        network = model()
        train(network, examples(), SETTINGS, seed=seed)
        runs.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_proximal_term_keeps_weights_near_the_global_ones():
    distances = []
    for mu in (0.0, 10.0):
        network = model()
        start = [p.detach().clone() for p in network.parameters()]
        train(network, examples(), SETTINGS, seed=0, proximal_mu=mu)
        distances.append(sum((p - s).square().sum() for p, s in zip(network.parameters(), start, strict=True)))
    assert distances[1] < 0.5 * distances[0]


def test_a_lone_last_example_does_not_break_batch_norm():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    train(network, examples(n=17), SETTINGS, seed=0)


def test_what_no_client_can_train_is_told_and_nothing_is_changed():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).eval()
    before, drawn = {name: tensor.clone() for name, tensor in network.state_dict().items()}, torch.get_rng_state()
    assert "more than 1 value per channel" in why_untrainable(network, examples(), 1)
    assert why_untrainable(network, examples(), 2) is None
    assert not network.training
    assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_evaluation_by_hand():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, torch.log(torch.tensor(3.0))]]).expand(len(x), 2)

    data = Examples(
        {"pixels": torch.zeros(5, 3, 1, 1, dtype=torch.uint8)},
        torch.tensor([1, 1, 1, 0, 0]),
        torch.arange(5),
        (0.5,) * 3,
        (0.5,) * 3,
    )
    found = evaluate(Constant(), data, batch_size=2)
    # Probabilities (1/4, 3/4): loss is the mean of 3 times -log 3/4 and 2 times -log 1/4, whatever the batches.
    expected = -(3 * torch.log(torch.tensor(0.75)) + 2 * torch.log(torch.tensor(0.25))) / 5
    assert found.loss == pytest.approx(float(expected), rel=1e-6)
    assert found.accuracy == pytest.approx(0.6)
    assert found.predicted.tolist() == [1] * 5
    assert found.probabilities.tolist() == pytest.approx([0.75] * 5)


@pytest.mark.parametrize("number", [3.0, -3e30, float("inf"), float("nan")])
def test_an_evaluation_says_how_large_the_largest_logit_is(number):
    class Fixed(nn.Module):
        def forward(self, x):
            logits = torch.tensor([[1.0, -2.0]]).repeat(len(x), 1)
            logits[0, 0] = number
            return logits

    found = evaluate(Fixed(), examples(5), batch_size=2)
    assert found.largest_logit == pytest.approx(abs(number), nan_ok=True)
