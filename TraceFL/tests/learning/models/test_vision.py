import time
import zipfile

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from tests.helpers.model_settings import image_settings, text_settings
from tracefl.errors import ConfigError, ModelMismatchError
from tracefl.learning.models import ModelSpec, build_model, initial_model, model_spec

BUILT = ("resnet18", "densenet121")
OUTLINED = ("resnet34", "resnet50", "resnet101", "resnet152")


@pytest.fixture(scope="module")
def weights():
    settings = image_settings()
    return initial_model(settings, model_spec(settings, 10), 1).state_dict()


def load(path, num_classes=10, name="resnet18"):
    settings = image_settings(name, pretrained=str(path))
    return initial_model(settings, model_spec(settings, num_classes), 2).state_dict()


@pytest.mark.parametrize("name", BUILT)
def test_small_images_give_a_logit_for_each_class(name):
    model = build_model(model_spec(image_settings(name), 10)).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", OUTLINED)
def test_shapes_of_the_larger_models(name):
    with torch.device("meta"):
        model = build_model(model_spec(image_settings(name), 10)).eval()
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_of_a_file(suffix, weights, tmp_path):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save(weights, path)
    loaded = load(path)
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_classifier_of_another_shape_is_drawn_from_the_seed(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", num_classes=4)
    settings = image_settings()
    fresh = initial_model(settings, model_spec(settings, 4), 2).state_dict()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, (fresh if name.startswith("fc.") else weights)[name]), name


def test_published_densenet_names(tmp_path):
    state = build_model(model_spec(image_settings("densenet121"), 10)).state_dict()
    old = {}
    for name, tensor in state.items():
        for kind in ("norm", "conv"):
            if "denselayer" in name:
                name = name.replace(f".{kind}1.", f".{kind}.1.").replace(f".{kind}2.", f".{kind}.2.")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    assert set(old) - set(state)
    torch.save(old, tmp_path / "densenet121.pth")
    loaded = load(tmp_path / "densenet121.pth", name="densenet121")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_weights_of_another_model_are_counted(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pt")
    message = r"604 \(features\..*\) missing, 122 \(bn1\.bias, .*, \.\.\.\) unexpected, 0 of .*model\.pretrained"
    with pytest.raises(ModelMismatchError, match=message):
        load(tmp_path / "w.pt", name="densenet121")


def test_missing_and_misshapen_weights_are_named(weights, tmp_path):
    state = {**weights, "conv1.weight": torch.zeros(1)}
    del state["bn1.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        ModelMismatchError, match=r"1 \(bn1\.weight\) missing, 0 unexpected, 1 \(conv1\.weight\) of another"
    ):
        load(tmp_path / "w.pt")


def test_files_that_hold_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelMismatchError, match="holds list, expected a state dict"):
        load(tmp_path / "list.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        load(tmp_path / "module.pt")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(ConfigError, match=rf"model\.pretrained=.*{name}"):
            load(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        load(tmp_path / "archive.pt")


@pytest.mark.parametrize("path", ["nowhere.pt", "weights.npz", "folder"])
def test_paths_that_cannot_be_weights(path, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.pretrained="):
        load(tmp_path / path)


def test_cached_imagenet_weights_are_used_with_an_own_classifier(tmp_path):
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    imagenet = build_model(model_spec(image_settings(), 1000)).state_dict()
    torch.save(imagenet, folder / "resnet18-f37072fd.pth")
    settings = image_settings(pretrained=True)
    loaded = initial_model(settings, model_spec(settings, 10), 1).state_dict()
    assert all(torch.equal(loaded[name], imagenet[name]) for name in loaded if not name.startswith("fc."))
    assert loaded["fc.weight"].shape == (10, 512)


def test_without_network_the_message_says_what_to_fetch():
    settings = image_settings(pretrained=True)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"curl -LO https://\S+/resnet18-\S+\.pth.*model\.pretrained=PATH") as caught:
        initial_model(settings, model_spec(settings, 10), 1)
    assert time.monotonic() - started < 60
    assert "\n" not in str(caught.value)


SMALL = {
    "resnet18": {"layers": [1, 1, 1, 1]},
    "resnet50": {"layers": [1, 1, 1, 1]},
    "densenet121": {"growth_rate": 4, "block_config": [1, 1, 1, 1], "num_init_features": 8},
}


@pytest.mark.parametrize("name", SMALL)
def test_sizes_can_be_changed_and_are_carried_to_where_the_model_is_rebuilt(name):
    spec = model_spec(image_settings(name, config=SMALL[name]), 10)
    model = build_model(ModelSpec.from_json(spec.to_json())).eval()
    published = build_model(model_spec(image_settings(name), 10))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(w.numel() for w in model.parameters()) < sum(w.numel() for w in published.parameters()) / 2


@pytest.mark.parametrize("name", [*BUILT, *OUTLINED])
def test_published_sizes_are_torchvisions(name):
    spec = model_spec(image_settings(name), 10)
    assert spec.config == {}
    with torch.device("meta"):
        ours = build_model(spec)
        theirs = torchvision.models.get_model(name, weights=None, num_classes=10)
    assert str(ours) == str(theirs)


def test_random_weights_are_those_that_torchvision_draws():
    torch.manual_seed(5)
    ours = build_model(model_spec(image_settings(), 10)).state_dict()
    torch.manual_seed(5)
    theirs = torchvision.models.resnet18(weights=None, num_classes=10).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_layer": 2}, r"model\.config\.n_layer is not a size of resnet18, which has layers"),
        ({"layer": [1, 1, 1, 1]}, "did you mean 'layers'"),
        ({"layers": [1, 1]}, r"model\.config\.layers=\[1, 1\]: give 4 whole numbers"),
        ({"layers": 2}, r"model\.config\.layers=2: give 4 whole numbers"),
        ({"layers": [0, 1, 1, 1]}, "of at least 1"),
        ({"layers": [1.5, 1, 1, 1]}, "of at least 1"),
    ],
)
def test_illegal_sizes(config, message):
    with pytest.raises(ConfigError, match=message):
        model_spec(image_settings(config=config), 10)


def test_a_size_that_is_one_number():
    with pytest.raises(ConfigError, match=r"model\.config\.growth_rate=\[4\]: give a whole number of at least 1"):
        model_spec(image_settings("densenet121", config={"growth_rate": [4]}), 10)


def test_text_options_do_not_go_with_images(encoder):
    with pytest.raises(ConfigError, match=r"model\.architecture='gpt2' is for text models"):
        model_spec(image_settings(architecture="gpt2"), 10)
    with pytest.raises(ConfigError, match="resnet18 takes images"):
        model_spec(image_settings(), 10, encoder)
    with pytest.raises(ConfigError, match="gpt takes text"):
        model_spec(text_settings(), 10)
