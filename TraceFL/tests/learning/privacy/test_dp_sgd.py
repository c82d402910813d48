"""DP-SGD against a slow reading of Abadi et al. (2016), Algorithm 1, one example at a time."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import nn
from torch.testing import assert_close

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError
from tracefl.learning.examples import PIXELS, Examples
from tracefl.learning.models.group_norm import with_group_norm
from tracefl.learning.privacy.accounting import DpSgd
from tracefl.learning.privacy.dp_sgd import train_privately
from tracefl.learning.privacy.per_sample import check_per_sample_gradients
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import make_optimizer
from tracefl.provenance.inputs import forward

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")

CLASSES = 5
TRAINING = TrainingSettings(epochs=1, batch_size=4, optimizer="adam", lr=0.01)


class Residual(nn.Module):
    """Adds in place to a normalised output, as torchvision's ResNet, and rectifies in place, as its DenseNet."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(x))
        out += x
        return self.fc(F.relu(out, inplace=True).mean(dim=(2, 3)))


def residual():
    return with_group_norm(Residual())


def text_model(config, **sizes):
    torch.manual_seed(0)
    config = config(vocab_size=60, num_labels=CLASSES, pad_token_id=0, bos_token_id=None, eos_token_id=None, **sizes)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def gpt():
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 12}
    return text_model(transformers.OpenAIGPTConfig, **sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def bert():
    return text_model(
        transformers.BertConfig,
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


MODELS = {"residual": residual, "gpt": gpt, "bert": bert}


def examples(kind, n=10):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    if kind == "residual":
        pixels = torch.randint(0, 256, (n, 3, 6, 6), dtype=torch.uint8, generator=generator)
        return Examples({PIXELS: pixels}, labels, torch.arange(n), (0.5,) * 3, (0.25,) * 3)
    ids = torch.randint(5, 60, (n, 7), dtype=torch.int32, generator=generator)
    mask = torch.ones_like(ids)
    for i in range(n):  # padded on the right, to lengths from 3 on
        ids[i, 3 + i % 5 :] = mask[i, 3 + i % 5 :] = 0
    return Examples({"input_ids": ids, "attention_mask": mask}, labels, torch.arange(n))


def slowly(model, data, training, privacy, seed, proximal_mu=0.0):
    """Train as the paper says: clip each example's gradient, sum, add noise, divide by the expected batch, step."""
    parameters = list(model.parameters())
    anchors = [parameter.detach().clone() for parameter in parameters]
    optimizer = make_optimizer(training, parameters)
    noise = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    sampling = torch.Generator().manual_seed(derive_seed(seed, "sampling"))
    model.train()
    drawn = []
    for _ in range(privacy.steps):
        total = [torch.zeros_like(parameter) for parameter in parameters]
        batch = torch.nonzero(torch.rand(len(data), generator=sampling) < privacy.sample_rate).flatten()
        drawn.append(len(batch))
        for i in batch:
            inputs, labels = data.batch(i.view(1))
            gradients = torch.autograd.grad(F.cross_entropy(forward(model, inputs), labels), parameters)
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            for sums, gradient in zip(total, gradients, strict=True):
                sums += gradient * min(1.0, privacy.max_grad_norm / float(norm))
        for parameter, anchor, sums in zip(parameters, anchors, total, strict=True):
            stddev = privacy.noise_multiplier * privacy.max_grad_norm
            sums += torch.normal(0.0, stddev, sums.shape, generator=noise)
            parameter.grad = sums / (len(data) * privacy.sample_rate) + proximal_mu * (parameter.detach() - anchor)
        optimizer.step()
    return drawn


@pytest.mark.parametrize("proximal_mu", [0.0, 0.5])
@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_one_example_at_a_time(name, proximal_mu):
    torch.manual_seed(0)
    model = MODELS[name]()
    data = examples(name)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    # Seldom drawn, so that some batches are empty; a norm that clips some and not others; three parts a batch at most.
    privacy = DpSgd(sample_rate=0.2, steps=8, noise_multiplier=0.3, max_grad_norm=1.5, max_physical_batch_size=2)
    train_privately(model, data, TRAINING, privacy, seed=3, proximal_mu=proximal_mu)
    fast = {n: t.clone() for n, t in model.state_dict().items()}
    model.load_state_dict(start)
    drawn = slowly(model, data, TRAINING, privacy, seed=3, proximal_mu=proximal_mu)
    assert min(drawn) == 0
    assert max(drawn) > 2
    assert list(fast) == list(start)
    for n, tensor in model.state_dict().items():
        assert_close(fast[n], tensor, atol=2e-4, rtol=1e-3)
    assert any((fast[n] - start[n]).abs().max() > 0.01 for n in start)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_model_clean():
    data = examples("residual")
    privacy = DpSgd(0.5, 4, 1.0, 1.0, 3)

    def trained(seed):
        torch.manual_seed(0)
        model = residual()
        loss = train_privately(model, data, TRAINING, privacy, seed=seed)
        assert 0.5 < loss < 5
        return model

    one, again, other = trained(1), trained(1), trained(2)
    weights = one.state_dict()
    assert all(torch.equal(weights[n], tensor) for n, tensor in again.state_dict().items())
    assert not torch.equal(weights["fc.weight"], other.state_dict()["fc.weight"])
    assert not any(name.startswith("_module") for name in weights)
    for module in one.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert not module._forward_pre_hooks
    assert not any(hasattr(p, a) for p in one.parameters() for a in ("grad_sample", "summed_grad", "_forward_counter"))


def test_parts_of_a_batch_change_nothing():
    data = examples("residual")

    def trained(at_once):
        torch.manual_seed(0)
        model = residual()
        train_privately(model, data, TRAINING, DpSgd(0.7, 3, 0.5, 1.0, at_once), seed=1)
        return model.state_dict()

    whole = trained(100)
    for at_once in (1, 4):
        assert_close(trained(at_once), whole, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("build", "shape"),
    [(torchvision.models.resnet18, (2, 3, 32, 32)), (torchvision.models.densenet121, (2, 3, 32, 32))],
)
def test_the_models_of_the_paper_have_per_sample_gradients(build, shape):
    torch.manual_seed(0)
    model = with_group_norm(build(num_classes=CLASSES))
    names = list(model.state_dict())
    check_per_sample_gradients(model, torch.randn(shape), torch.tensor([0, 1]))
    assert list(model.state_dict()) == names
    assert not any("running" in name for name in names)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("config", [transformers.GPT2Config, transformers.RobertaConfig, transformers.DistilBertConfig])
def test_other_text_models_have_per_sample_gradients_too(config):
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
    model = text_model(config, **sizes)
    inputs, labels = examples("text").batch(torch.tensor([0, 1]))
    check_per_sample_gradients(model, inputs, labels)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


class Mixing(nn.Module):
    """Its rows are of the batch and not of the example."""

    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(3, 2), nn.Linear(1, 1)

    def forward(self, x):
        return self.fc(x) * self.scale(x.new_ones(1, 1))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        y = self.fc(x)
        z = y * 1
        z.add_(y)
        return z


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Unused(), r"layer 'idle' gives no gradient for each example \(parameter idle.weight\)"),
        (Mixing(), "layer 'scale' gives no gradient for each example"),
        (InPlace(), "adds to a tensor in place without using what that returns"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), "layer '1' has buffers"),
    ],
)
def test_a_model_that_cannot_be_trained_so_is_refused(model, words):
    with pytest.raises(ConfigError, match=rf"privacy=dp_sgd cannot train this model: .*{words}") as refused:
        check_per_sample_gradients(model.eval(), torch.randn(2, 3), torch.tensor([0, 1]))
    assert "\n" not in str(refused.value)
    assert not model.training
