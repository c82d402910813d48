"""One prediction of a stored run, asked about on the command line."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import ask_main, flat
from tests.helpers.configuration import TINY
from tests.helpers.forked import ForkedMain
from tests.helpers.made_runs import give_fault
from tests.helpers.stored_runs import NAMES, TEXTS, P
from tracefl.errors import ConfigError
from tracefl.learning.datasets import load_examples
from tracefl.learning.faults import Fault, Trigger
from tracefl.provenance import attribute_round
from tracefl.questions.one_input import find_class
from tracefl.questions.overrides import read_tracer
from tracefl.questions.retrace import retrace
from tracefl.records.run import StoredRun
from tracefl.trace import main


@pytest.fixture
def ask(monkeypatch, capfd):
    """Ask about a prediction; returns what is printed, or the error's line."""
    return partial(ask_main, monkeypatch, capfd, main, "trace")


def test_the_numbers_are_the_rounds_attribution(image_run, ask):
    found = json.loads(ask(image_run, "input=2", "--json", "round=1"))
    run = StoredRun(image_run)
    tracer = read_tracer(run)
    model, record = run.round(1)
    inputs, labels = run.server.batch(torch.tensor([2]))
    method = tracer.provenance.method
    answer = attribute_round(model, record, inputs, labels, method)  # its first clients are verified
    expected = attribute_round(model, record, inputs, labels, replace(method, verify=0))
    assert found["round"] == 1
    assert found["predicted"]["class"] == int(expected.predicted)
    assert found["predicted"]["name"] == NAMES[int(expected.predicted)]
    assert found["input"] == {"kind": "input", "given": "2", "text": None, "label": 2, "unlike": None}
    assert [(c["client_id"], pytest.approx(c["score"])) for c in found["clients"]] == list(answer.ranking(0))
    for client in found["clients"][:3]:
        exact = float(answer.contributions[0, list(P).index(client["client_id"])])
        assert client["removal"]["effect"] == pytest.approx(exact, rel=1e-4, abs=1e-6)
    column = int(expected.predicted)
    for rank, client in enumerate(found["clients"], 1):
        k = list(P).index(client["client_id"])
        assert client["rank"] == rank
        assert client["contribution"] == pytest.approx(float(answer.contributions[0, k]), rel=1e-4, abs=1e-6)
        assert client["estimate"] == pytest.approx(float(expected.contributions[0, k]), rel=1e-4, abs=1e-6)
        assert sum(client["by_layer"]) == pytest.approx(client["estimate"], rel=1e-4, abs=1e-6)
        assert len(client["by_layer"]) == len(found["layers"])
        assert client["held"] == int(run.label_counts[int(client["client_id"]), column])
        assert client["weight"] == P[client["client_id"]]
        assert set(client["removal"]) == {"effect", "against_effect", "predicted", "probability"}
    held = [client["held"] > 0 for client in found["clients"]]
    assert found["responsible"] == answer.responsible[0]
    assert found["holders_fraction"] == pytest.approx(sum(held) / 3)
    assert sum(found["probabilities"]) == pytest.approx(1)


@pytest.fixture
def one_thread():
    """The backward of a convolution of one small image rounds otherwise from call to call on several threads of MKL."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_round_as_json(image_run, ask):
    told = json.loads(ask(image_run, "--json"))
    server_round, trace = retrace(image_run)
    assert (told["run"], told["round"]) == (str(image_run), server_round)
    assert told["inputs"] == json.loads(json.dumps([asdict(t) | {"responsible": t.responsible} for t in trace.traced]))
    assert told["mean"]["inputs_traced"] == len(trace.traced) > 0
    assert (told["suspects"], told["provenance_seconds"] > 0) == ([], True)


def test_a_rounds_rows_are_written_and_that_is_said(image_run, tmp_path, ask):
    assert ask(image_run, f"csv={tmp_path / 'rows.csv'}").splitlines()[-1] == f"written: {tmp_path / 'rows.csv'}"
    assert (tmp_path / "rows.csv").read_text().startswith("round,input_index,")


@pytest.mark.usefixtures("one_thread")
def test_an_image_file_is_prepared_as_the_data_were(image_run, tmp_path, ask):
    pixels = load_examples(image_run / "server.safetensors").features["pixels"][1]
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "one.png")
    from_file = json.loads(ask(image_run, f"image={tmp_path / 'one.png'}", "--json"))
    stored = json.loads(ask(image_run, "--json", "input=1"))
    assert (from_file["input"]["label"], stored["input"]["label"]) == (None, 1)
    assert from_file | {"input": 0} == stored | {"input": 0}
    assert from_file["round"] == 2  # the last one that is stored
    Image.fromarray(np.full((40, 30), 90, np.uint8)).save(tmp_path / "grey.png")
    assert json.loads(ask(image_run, f"image={tmp_path / 'grey.png'}", "--json"))["clients"]


def test_a_text_goes_through_the_runs_tokenizer(text_run, ask):
    given = json.loads(ask(text_run, f"text={TEXTS[3]}", "--json", "provenance=artifact"))
    stored = json.loads(ask(text_run, "input=3", "--json", "provenance=artifact"))
    assert given["input"]["text"] == stored["input"]["text"] == TEXTS[3]
    assert given | {"input": 0} == stored | {"input": 0}
    assert given["method"]["layer_decay"] == 0.9
    long = json.loads(ask(text_run, f"text={'roses and seas ' * 20}", "--json"))
    assert 0 < len(long["input"]["text"]) < 60  # what the model sees of it


def test_tables_and_picture(image_run, tmp_path, ask):
    found = json.loads(ask(image_run, "input=0", "--json"))
    other = next(number for number in range(4) if number != found["predicted"]["class"])
    shown = ask(image_run, "input=0", f"against={NAMES[other].upper()}", f"png={tmp_path / 'why.png'}")
    assert f"predicted {found['predicted']['class']} ({found['predicted']['name']}) with probability" in flat(shown)
    assert "server's example 0, labelled 0 (ant)" in flat(shown)
    assert f"ahead of {other} ({NAMES[other]}) by" in flat(shown)
    assert f"{found['clients'][0]['contribution']:+.3f}" in shown
    assert "layer4.0" in shown
    assert f"lead over {other} falls by" in shown
    assert Image.open(tmp_path / "why.png").size[0] > 1000
    assert shown.splitlines()[-1] == f"written: {tmp_path / 'why.png'}"
    assert "written" not in ask(image_run, "input=0", f"png={tmp_path / 'why.png'}", "--json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["against=1"], "none is given; give one of image=FILE, text=WORDS or input=INDEX"),
        (["input=1", "image=a.png"], "image= and input= are given"),
        (["input=1", "input=2"], "input is given twice: '1' and '2'"),
        (["input="], "'input=' has no value; see tracefl trace --help"),
        (["input=4"], "input='4': the server has examples 0 to 3"),
        (["input=-1"], "the server has examples 0 to 3"),
        (["input=two"], "the server has examples 0 to 3"),
        (["input=1", "against=4"], "against='4' is no class of the run: give a number from 0 to 3 or a name"),
        (["input=1", "against=do"], "did you mean 'dog'?"),
        (["input=1", "round=3"], "round 3 has no weights"),
        (["input=1", "round=0"], "round must be a whole number from 1, got '0'"),
        (["input=1", "csv=a.csv"], "csv does not go with input=; leave one of them out"),
        (["input=1", "baselines=all"], "baselines=all does not go with input=; leave one of them out"),
        (["input=1", "top=3"], "unknown argument 'top=3'"),
        (["input=1", "png=why.txt"], "give a file that ends in .png"),
        (["input=1", "png=nowhere/why.png"], "png='nowhere/why.png': give a file in a folder that exists"),
        (["input=1", "provenance=best"], "unknown provenance 'best'"),
        (["input=1", "provenance=off"], "traces nothing"),
        (["text=hello"], "text='hello': model.name=resnet18 of"),
        (["image=nowhere.png"], "image='nowhere.png' cannot be read: No such file"),
        (["image=."], "image='.' cannot be read: Is a directory"),
        (["image=words.png"], "image='words.png' is no image that can be read"),
        (["image=float.tif"], "image='float.tif' has floating-point pixels"),
        (["image=cut.png"], "image='cut.png' is damaged and cannot be decoded"),
        (["image=float.tif", "provenance.target=label"], "has floating-point pixels"),
        (["image=good.png", "provenance.target=label"], "the input's label is not known"),
    ],
)
def test_bad_input_is_one_line(image_run, tmp_path, monkeypatch, ask, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.png").write_text("words")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    noise = np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:2000])
    line = ask(image_run, *arguments)
    assert line.startswith("tracefl: ")
    assert len(line.splitlines()) == 1
    assert words in line


def test_the_predicted_class_is_not_compared_with_itself(image_run, ask):
    predicted = json.loads(ask(image_run, "input=1", "--json"))["predicted"]["class"]
    assert f"class {predicted} is the predicted one" in ask(image_run, "input=1", f"against={predicted}")


def test_an_image_on_a_text_model(text_run, ask):
    assert "takes text; give text= or input=" in ask(text_run, "image=a.png")
    assert "is not UTF-8" in ask(text_run, "text=\udcff")


def test_a_backdoor_is_asked_with_its_trigger(image_run, tmp_path, ask):
    run = shutil.copytree(image_run, tmp_path / "backdoor")
    give_fault(run, Fault("backdoor", ("0",), from_round=1, target=0, trigger=Trigger(size=5), share=0.5))
    shown = ask(run, "input=1")
    assert "server's example 1, with the trigger in it, labelled 1 (bee)" in flat(shown)
    plain = ask(run, "input=1", "provenance.inputs=correct")
    assert "server's example 1, labelled 1 (bee)" in plain
    assert shown.splitlines()[1:] != plain.splitlines()[1:]


def test_no_folder(ask, tmp_path):
    assert "no run is given" in ask("--json")
    assert "is no run's folder" in ask(tmp_path, "input=1")


def test_classes_by_number_or_name():
    assert [find_class(given, NAMES) for given in ("2", "bee", "cat", "DOG")] == [2, 1, 2, 3]
    assert find_class("1", ["3", "2", "1"]) == 1  # a number first
    assert find_class("3", ["3", "2", "1"]) == 0  # and else a name
    assert find_class("a", ["a", "A"]) == 0
    with pytest.raises(ConfigError, match="means 2 classes"):
        find_class("b", ["B", "B"])


@pytest.mark.slow
@pytest.mark.simulation
def test_a_real_run_is_explained_without_flower_and_ray(ask, tmp_path):
    overrides = (*TINY, f"log_dir={tmp_path}", "run_name=run", "store=last", "total_cpus=1")
    made = ForkedMain(*overrides, cwd=tmp_path, output=tmp_path / "output")
    assert made.wait() == 0, made.said()
    code = """
import sys
for name in ("flwr", "ray"):
    sys.modules[name] = None  # any import of it raises
from tracefl.trace import main
main()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "default" / "run"), "input=5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    typed = shlex.split((tmp_path / "default" / "run" / "command.txt").read_text())
    assert typed == ["tracefl", "run", *overrides]
    found = json.loads(done.stdout)
    kept = json.loads((tmp_path / "default" / "run" / "rounds" / "0002" / "round.json").read_text())
    assert {c["client_id"]: c["weight"] for c in found["clients"]} == kept["client_weights"]
    of_run = {t["input_index"]: t for t in kept["traced"]}
    for index, traced in list(of_run.items())[:2]:
        found = json.loads(ask(tmp_path / "default" / "run", f"input={index}", "--json"))
        assert [c["client_id"] for c in found["clients"]] == [k for k, _ in traced["ranking"]]
        assert found["predicted"]["class"] == traced["predicted"]
