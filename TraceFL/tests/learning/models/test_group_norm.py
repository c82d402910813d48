"""GroupNorm in place of BatchNorm, of a specification and with weights of the architecture's own normalisation."""

import dataclasses
import logging

import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers.model_settings import image_settings
from tracefl.learning.models import ModelSpec, build_model, initial_model
from tracefl.learning.models.group_norm import with_group_norm

SPEC = ModelSpec("torchvision", "resnet18", 10, norm="group")


def test_a_specification_rebuilds_it_and_says_what_was_replaced(caplog):
    with caplog.at_level(logging.INFO):
        model = initial_model(image_settings(), SPEC, seed=1)
    assert "20 BatchNorm layers are replaced by GroupNorm: bn1, layer1.0.bn1, layer1.0.bn2, ..." in caplog.text
    again = build_model(ModelSpec.from_json(SPEC.to_json()))
    again.load_state_dict(model.state_dict())
    kinds = {type(module) for module in again.modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds
    own = initial_model(image_settings(), dataclasses.replace(SPEC, norm="own"), seed=1).state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_weights_of_a_file_are_read_before_the_norms_are_replaced(tmp_path):
    own = build_model(dataclasses.replace(SPEC, norm="own"))
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    settings = dataclasses.replace(image_settings(), pretrained=str(tmp_path / "weights.pt"))
    model = initial_model(settings, SPEC, seed=1)
    assert torch.equal(model.conv1.weight, own.conv1.weight)
    assert isinstance(model.bn1, nn.GroupNorm)


def test_groups_are_at_most_32_and_divide_the_channels():
    model = with_group_norm(nn.Sequential(nn.BatchNorm2d(64), nn.BatchNorm2d(24), nn.BatchNorm1d(7)))
    assert [layer.num_groups for layer in model] == [32, 8, 1]
    x = torch.randn(2, 64, 3, 3)
    parts = x.view(2, 32, -1)
    normal = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert_close(model[0](x), normal.view_as(x))


def test_a_model_without_batch_norm_stays():
    model = nn.Linear(2, 2)
    assert with_group_norm(model) is model
