"""The pages' Python gives what they say it does; test_commands.py runs all of it, and all commands."""

import re
import textwrap

import pytest
import torch
from torch import nn

from tests.helpers.configuration import REPOSITORY
from tests.helpers.documented import PAGES, blocks
from tests.helpers.stored_runs import make_stored_run
from tracefl.provenance import removal_effects, weights_without

DOCS = REPOSITORY / "docs"


def python_blocks(page):
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


def test_no_line_of_python_is_cut_beside_both_sidebars():
    """Of a page 1,280 pixels wide, code has 733: 85 columns, as measured in Chromium."""
    python = [block for page in PAGES for block in blocks(page) if block.language == "python"]
    assert len(python) > 5
    assert [(str(block), line) for block in python for line in block.text.splitlines() if len(line) > 85] == []


@pytest.fixture
def federation():
    """A reader's own model of four classes, three clients that were trained from it, and five inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    states = [{name: w + 0.3 * torch.randn_like(w) for name, w in model.state_dict().items()} for _ in range(3)]
    average = {name: sum(p * s[name] for p, s in zip((0.6, 0.15, 0.25), states, strict=True)) for name in states[0]}
    names = dict(zip(("state_a", "state_b", "state_c"), states, strict=True))
    return {"model": model, "average": average, "x": torch.randn(5, 6), **names}


def test_the_librarys_ten_lines(federation, tmp_path, capsys):
    first, formula, check, proof, stored = python_blocks("library.md")
    assert len(first.splitlines()) - 2 <= 10  # without the import
    assert first == python_blocks("index.md")[0] == python_blocks("../README.md")[0]
    names = dict(federation)
    exec(first, names)
    answer = names["answer"]
    assert capsys.readouterr().out.startswith("Who carried 5 predictions, of 3 clients")
    assert len(names["frame"]) == 15
    exec(formula, names)
    exec(check, names)
    found, record, x = names["found"], names["record"], names["x"]
    assert found.contributions.shape == (5, 3)
    for k, client in enumerate(("clinic a", "clinic b", "clinic c")):  # the definition: the model without the client
        rest = sum(n for name, n in names["sizes"].items() if name != client)
        others = {
            name: sum(names["sizes"][c] / rest * names["clients"][c][name] for c in names["clients"] if c != client)
            for name in names["average"]
        }
        for name, left in weights_without(record, client).items():
            torch.testing.assert_close(left, others[name])
        logits = [torch.func.functional_call(names["model"], w, x) for w in (names["average"], others)]
        centered = [(z - z.mean(dim=1, keepdim=True)).gather(1, found.predicted.view(-1, 1)) for z in logits]
        torch.testing.assert_close(
            removal_effects(names["model"], record, x)[:, k],
            (centered[0] - centered[1]).squeeze(1).double(),
            atol=1e-5,
            rtol=1e-4,
        )
    exact = removal_effects(names["model"], record, x)
    torch.testing.assert_close(answer.contributions[answer.exact].double(), exact[answer.exact], atol=1e-5, rtol=1e-4)
    said = capsys.readouterr().out
    assert "correlation:" in said
    exec(proof, names)
    proven = names["proven"]
    assert proven.verified.all()
    torch.testing.assert_close(
        proven.contributions[proven.verified].double(), exact[proven.verified], atol=1e-5, rtol=1e-4
    )
    capsys.readouterr()
    folder = make_stored_run(tmp_path)
    exec(stored, {"folder": str(folder)})
    said = capsys.readouterr().out
    assert said.startswith("round\n1    0.25\n2    0.50\n")
    assert "Who carried 2 predictions, of 3 clients" in said
    assert "Who carried this prediction, of 3 clients" in said


def test_the_example_of_one_prediction(federation, capsys):
    (block,) = python_blocks("explain.md")
    names = {**federation, "x": federation["x"][:1]}
    predicted = int(torch.func.functional_call(names["model"], names["average"], names["x"]).argmax())
    exec(block.replace("against=2", f"against={(predicted + 1) % 4}"), names)
    assert names["found"].predicted == predicted
    assert "clinic" in capsys.readouterr().out


def test_a_strategy_as_extending_says_is_between_flower_and_provenance():
    from flwr.serverapp.strategy import FedAvg, FedMedian

    from tests.helpers.plans import make_hooks, make_plan
    from tracefl.federation.strategy import TracedFedAvg, TracedFedProx

    (block,) = (block for block in python_blocks("extending.md") if "FedMedian" in block)
    names = {"FedMedian": FedMedian, "TracedFedAvg": TracedFedAvg, "TracedFedProx": TracedFedProx}
    exec(block, names)
    made = names["STRATEGIES"]["fedmedian"]
    order = made.__mro__
    assert order.index(TracedFedAvg) < order.index(FedMedian) < order.index(FedAvg)
    strategy = made(make_plan(), make_hooks(), dict)
    assert super(TracedFedAvg, strategy).aggregate_train.__func__ is FedMedian.aggregate_train
