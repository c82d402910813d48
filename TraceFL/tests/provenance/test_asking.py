"""``tracefl.who``, as a new user calls it."""

import html.parser
import re
import struct
import subprocess
import sys
import zlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

import tracefl
from tracefl.errors import CheckError, ConfigError, ModelMismatchError
from tracefl.provenance import RoundRecord, removal_effects
from tracefl.provenance.showing import png

SIZES = {"clinic a": 1200, "clinic b": 300, "clinic c": 500}
OTHERS = "the model that is asked is the clients' average; the weights that the model itself holds are others"
P = {"clinic a": 0.6, "clinic b": 0.15, "clinic c": 0.25}


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 4))


@pytest.fixture
def situation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small().eval()
        clients = {
            k: {n: w + 0.2 * torch.rand_like(w) if w.is_floating_point() else w for n, w in model.state_dict().items()}
            for k in SIZES
        }
        return model, clients, torch.randn(5, 1, 8, 8)


def averaged(clients, p=P):
    return {
        n: sum(p[k] * clients[k][n] for k in p) if w.is_floating_point() else w for n, w in clients["clinic a"].items()
    }


def exact_effects(model, clients, x, p=P):
    """By how much each removal lowers the centered logit, each average made by hand in float64."""

    def logits(weights):
        doubles = {n: w.double() if w.is_floating_point() else w for n, w in weights.items()}
        with torch.no_grad():
            return torch.func.functional_call(model.double(), doubles, (x.double(),))

    doubles = {k: {n: w.double() if w.is_floating_point() else w for n, w in c.items()} for k, c in clients.items()}
    whole = logits(averaged(doubles, p))
    predicted = whole.argmax(dim=1, keepdim=True)
    found = []
    for left in p:
        rest = {k: p[k] / (1 - p[left]) for k in p if k != left}
        without = {
            n: sum(rest[k] * doubles[k][n] for k in rest) if w.is_floating_point() else w
            for n, w in doubles[left].items()
        }
        z = logits(without)
        found.append(
            (whole - whole.mean(1, keepdim=True) - z + z.mean(1, keepdim=True)).gather(1, predicted).squeeze(1)
        )
    model.float()
    return torch.stack(found, dim=1)


def test_it_averages_the_clients_by_their_sizes_and_leaves_the_model_as_it_was(situation):
    model, clients, x = situation
    before = {n: w.clone() for n, w in model.state_dict().items()}
    answer = tracefl.who(model, clients, x, sizes=SIZES)
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
    logits = torch.func.functional_call(model, averaged(clients), (x,))
    assert_close(answer.predicted, logits.argmax(dim=1))
    assert_close(answer.probabilities.float(), logits.softmax(dim=1).max(dim=1).values.detach(), rtol=1e-4, atol=1e-5)
    assert answer.weights == pytest.approx((0.6, 0.15, 0.25))
    expected = exact_effects(model, clients, x)
    assert_close(answer.contributions[answer.exact].double(), expected[answer.exact], rtol=1e-3, atol=1e-4)
    record = RoundRecord(1, clients, P, averaged(clients), averaged(clients))
    assert_close(removal_effects(model, record, x), expected, rtol=1e-3, atol=1e-4)  # by the engine's own exact way
    assert answer.notes == (OTHERS,)


def test_sizes_may_be_shares_or_in_the_order_of_the_clients(situation):
    model, clients, x = situation
    model.load_state_dict(averaged(clients))
    expected = tracefl.who(model, clients, x, sizes=SIZES)
    assert expected.notes == ()
    for sizes in (P, [1200, 300, 500], torch.tensor([0.6, 0.15, 0.25], dtype=torch.float64)):
        assert_close(tracefl.who(model, clients, x, sizes).contributions, expected.contributions)


def test_without_sizes_all_count_equally_and_that_is_said(situation):
    model, clients, x = situation
    third = dict.fromkeys(P, 1 / 3)
    model.load_state_dict(averaged(clients, third))
    answer = tracefl.who(model, clients, x)
    assert answer.notes == ("no sizes were given: the clients count equally",)
    assert "no sizes were given" in str(answer)
    assert "no sizes were given" in answer._repr_html_()
    expected = exact_effects(model, clients, x, third)
    assert_close(answer.contributions[answer.exact].double(), expected[answer.exact], rtol=1e-3, atol=1e-4)


def test_a_model_that_holds_another_average_is_warned_of(situation):
    model, clients, x = situation
    model.load_state_dict(averaged(clients))
    with pytest.warns(UserWarning, match=f"count equally; {OTHERS}; .*give sizes") as caught:
        tracefl.who(model, clients, x)
    assert caught[0].filename == __file__


def test_clients_may_be_models(situation):
    model, clients, x = situation
    models = {}
    for k, weights in clients.items():
        models[k] = Small()
        models[k].load_state_dict(weights)
    assert_close(
        tracefl.who(model, models, x, SIZES).contributions, tracefl.who(model, clients, x, SIZES).contributions
    )


def test_clients_may_be_files_arrays_or_of_names_with_a_prefix(situation, tmp_path):
    model, clients, x = situation
    expected = tracefl.who(model, clients, x, SIZES).contributions
    files = {k: tmp_path / f"{k}.safetensors" for k in clients}
    for k, path in files.items():
        save_file({n: w.contiguous() for n, w in clients[k].items()}, path)
    arrays = {k: [w.numpy() for w in weights.values()] for k, weights in clients.items()}
    prefixed = {k: {f"module.{n}": w for n, w in weights.items()} for k, weights in clients.items()}
    for given in (files, {k: str(path) for k, path in files.items()}, arrays, prefixed):
        assert_close(tracefl.who(model, given, x, SIZES).contributions, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clients": {}}, ValueError, "no clients"),
        ({"clients": []}, TypeError, "clients must be a mapping of ids to weights, got list"),
        ({"sizes": {"clinic a": 3}}, ValueError, "sizes has no number for clients 'clinic b', 'clinic c'"),
        ({"inputs": torch.zeros(1, 8, 8)}, ValueError, r"without a batch dimension: give inputs.unsqueeze\(0\)"),
        ({"inputs": torch.zeros(0, 1, 8, 8)}, ValueError, "no inputs"),
        ({"inputs": torch.zeros(2, 1, 9, 9)}, ValueError, r"the model cannot take inputs of shape \(2, 1, 9, 9\)"),
        ({"labels": [0, 1]}, ValueError, "labels must be 5 whole numbers"),
        ({"labels": [0, 1, 2, 3, 4]}, ValueError, r"labels must lie in 0\.\.3"),
        ({"class_names": ["a"]}, ValueError, "class_names must name the model's 4 classes, got 1 names"),
        ({"texts": ["a"]}, ValueError, "texts must be 5"),
    ],
)
def test_what_is_refused(situation, change, error, message):
    model, clients, x = situation
    call = {"clients": clients, "inputs": x, "sizes": SIZES, **change}
    with pytest.raises(error, match=message):
        tracefl.who(model, **call)


def test_one_vector_without_a_batch_dimension():
    model = nn.Linear(6, 4)
    clients = {k: nn.Linear(6, 4) for k in "ab"}
    with pytest.raises(ValueError, match="one input without a batch dimension"):
        tracefl.who(model, clients, torch.randn(6), [1, 1])


def test_a_client_that_lacks_a_tensor_is_named(situation):
    model, clients, x = situation
    clients["clinic b"] = {n: w for n, w in clients["clinic b"].items() if n != "4.bias"}
    with pytest.raises(ModelMismatchError, match=r"clinic b.*4\.bias"):
        tracefl.who(model, clients, x, SIZES)


@pytest.fixture
def answer(situation):
    model, clients, x = situation
    model.load_state_dict(averaged(clients))
    return tracefl.who(model, clients, x, SIZES, labels=[0, 1, 2, 3, 0], class_names=["<zero>", "one", "two", "three"])


def test_a_ranking_is_plain_python(answer):
    rows = answer.ranked(2)
    assert {row["client"] for row in rows} == set(SIZES)
    assert [row["contribution"] for row in rows] == sorted((row["contribution"] for row in rows), reverse=True)
    for row in rows:
        k = answer.client_ids.index(row["client"])
        assert row["contribution"] == float(answer.contributions[2, k])
        assert row["exact_effect"] == (row["contribution"] if answer.exact[2, k] else None)
        assert all(type(value) in (str, float, type(None)) for value in row.values())
    assert answer.chance == pytest.approx(1 / 3)


def test_one_of_several(answer):
    assert len(answer) == 5
    one = answer[-1]
    assert len(one) == 1
    assert one.ranked() == answer.ranked(4)
    assert [each.responsible[0] for each in answer] == list(answer.responsible)
    assert len(answer[1:3]) == 2
    with pytest.raises(IndexError, match="input 5 of 5"):
        answer[5]


def test_the_frame_has_a_row_for_each_input_and_client(answer):
    frame = answer.to_frame()
    assert list(frame.columns) == [
        *("input", "predicted", "probability", "label", "client", "rank"),
        *("weight", "contribution", "exact_effect", "score", "chance"),
    ]
    assert len(frame) == 15
    assert frame["rank"].tolist() == [1, 2, 3] * 5
    assert set(frame["predicted"]) <= {"<zero>", "one", "two", "three"}
    assert frame["label"].tolist()[::3] == ["<zero>", "one", "two", "three", "<zero>"]
    first = frame[frame["rank"] == 1].set_index("input")
    assert first["contribution"].tolist() == pytest.approx(answer.contributions.max(dim=1).values.tolist())
    assert frame["exact_effect"].notna().sum() == int(answer.exact.sum())


def test_text_fits_a_terminal(situation):
    model, clients, x = situation
    clients = {f"{k}, of a hospital with a rather long name": w for k, w in clients.items()}
    many = tracefl.who(model, clients, torch.cat([x] * 3), list(SIZES.values()), texts=["word " * 40] * 15)
    lines = str(many).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Who carried 15 predictions, of 3 clients (chance 33.3%)"
    assert "and 5 more inputs: to_frame() has all" in lines
    assert repr(many) == str(many)


class Reader(html.parser.HTMLParser):
    """Notes the tags that are open, and refuses those that are closed in another order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_shows_pictures_and_escapes_names(situation, answer):
    page = Reader()
    page.feed(answer._repr_html_())
    assert page.open == []
    assert page.seen.count("img") == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.seen.count("tr") == 5 * 4
    assert "&lt;zero&gt;" in answer._repr_html_()
    assert "<zero>" not in answer._repr_html_()
    model, clients, x = situation
    evil = {f"<script>{k}": w for k, w in clients.items()}
    shown = tracefl.who(model, evil, x, list(SIZES.values()), texts=["<b>&"] * 5)._repr_html_()
    assert "<script>" not in shown
    assert "<blockquote>&lt;b&gt;&amp;</blockquote>" in shown


def test_a_picture_is_a_png():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    data = png(picture)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (2, 2)
    body = re.search(rb"IDAT(.*)....\x00\x00\x00\x00IEND", data, re.DOTALL).group(1)
    assert list(zlib.decompress(body)) == [0, 0, 255, 0, 128, 64]


@pytest.mark.parametrize("count", [1, 5])
def test_a_plot_shows_signed_contributions(answer, count):
    import matplotlib as mpl

    mpl.use("agg")
    ax = answer[:count].plot()
    if count == 1:
        drawn = dict(
            zip([t.get_text() for t in ax.get_yticklabels()], [b.get_width() for b in ax.patches], strict=True)
        )
        assert drawn == pytest.approx({row["client"]: row["contribution"] for row in answer.ranked(0)})
    else:
        assert_close(torch.tensor(ax.images[0].get_array().tolist()), answer.contributions)


def test_a_missing_library_is_named_with_its_extra(answer, monkeypatch):
    for name in ("pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"to_frame\(\) needs pandas, .*pip install 'tracefl\[run\]'"):
        answer.to_frame()
    with pytest.raises(ConfigError, match=r"plot\(\) needs matplotlib, .*pip install 'tracefl\[run\]'"):
        answer.plot()


def test_importing_the_package_is_cheap_and_its_programs_stay_modules():
    code = (
        "import sys, types, tracefl; assert 'torch' not in sys.modules; "
        "from tracefl import trace; assert isinstance(trace, types.ModuleType); "
        "assert callable(tracefl.who); import tracefl.trace; assert tracefl.trace is trace"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Wayward(nn.Module):
    """A classifier whose answer is not its input's alone."""

    def __init__(self, way):
        super().__init__()
        self.inner, self.way, self.calls = Small(), way, 0

    def forward(self, inputs):
        self.calls += 1
        if self.way == "dropout":
            return self.inner(nn.functional.dropout(inputs, 0.5, training=True))
        return self.inner(inputs) * self.calls


@pytest.mark.parametrize("way", ["dropout", "counts its calls"])
def test_a_model_that_answers_in_another_way_each_time_is_refused(situation, way):
    _, clients, inputs = situation
    prefixed = {k: {f"inner.{name}": tensor for name, tensor in state.items()} for k, state in clients.items()}
    with pytest.raises(CheckError, match="gives other logits for input . when it is asked again"):
        tracefl.who(Wayward(way).eval(), prefixed, inputs, SIZES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: torch.complex(tensor, tensor), "complex64"),
        (lambda tensor: tensor > 0, "bool"),
        (lambda tensor: tensor.to(torch.int8), "int8"),
        (torch.Tensor.to_sparse, "sparse_coo"),
        (lambda tensor: tensor.to("meta"), "meta"),
    ],
    ids=["complex", "bool", "int8", "sparse", "meta"],
)
def test_a_client_has_dense_floating_point_numbers(situation, change, words):
    model, clients, inputs = situation
    odd = clients["clinic b"] | {"4.weight": change(clients["clinic b"]["4.weight"])}
    with pytest.raises(ModelMismatchError, match=f"client 'clinic b' has '4.weight' in .*{words}.* floating-point"):
        tracefl.who(model, clients | {"clinic b": odd}, inputs, SIZES)


def test_a_client_may_be_the_model_that_is_asked_itself(situation):
    model, clients, inputs = situation
    model.load_state_dict(clients["clinic a"])
    expected = tracefl.who(Small().eval(), clients, inputs, SIZES).attribution
    found = tracefl.who(model, clients | {"clinic a": model.state_dict()}, inputs, SIZES).attribution
    assert_close(found.contributions, expected.contributions)


class TiedText(nn.Module):
    """A classifier of tokens whose last layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens):
        return self.out(self.words(tokens).mean(dim=1))


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in files"])
def test_a_client_has_one_value_of_a_tied_tensor(tmp_path, stored):
    def given(clients):
        if not stored:
            return clients
        for k, state in clients.items():
            save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / f"{k}.safetensors")
        return {k: tmp_path / f"{k}.safetensors" for k in clients}

    torch.manual_seed(0)
    model, inputs = TiedText().eval(), torch.tensor([[0, 1], [2, 3]])
    states = [torch.randn(4, 3) for _ in SIZES]
    clients = {k: {"words.weight": w, "out.weight": w.clone()} for k, w in zip(SIZES, states, strict=True)}
    tracefl.who(model, given(clients), inputs, SIZES)
    clients["clinic b"]["out.weight"] = -states[1]
    said = (
        "client 'clinic b' has other values in 'words.weight' than in 'out.weight', which are one tensor of the model"
    )
    with pytest.raises(ModelMismatchError, match=said):
        tracefl.who(model, given(clients), inputs, SIZES)
