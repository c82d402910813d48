"""Every file of a run's folder, missing and damaged in every way: one line that names it."""

import json
import os
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.helpers.changed_runs import freshen_round
from tests.helpers.finished import finish
from tests.helpers.replayed_runs import make_replayed_run
from tests.helpers.stored_runs import make_stored_run
from tracefl.errors import RecordError
from tracefl.records import schema
from tracefl.records.checksums import CHECKSUMS, seal, write_checksums
from tracefl.records.run import StoredRun
from tracefl.records.status import read_run_state
from tracefl.records.tables import MITIGATION_COLUMNS, ROUND_COLUMNS, SUSPECT_COLUMNS

TEXTS = [b"", b"\xff\xfe", b"[]", b"{}", b"3", b'{"a": [', b"[[1, 2]]", b'{"row": 3, "label_counts": {}, "name": []}']
DEEP = b"[" * 100_000 + b"]" * 100_000
FILES = ["config.yaml", "model.json", "fault.json", "label_counts.json", "server.safetensors", "results.json"]
WEIGHTS = ["global.safetensors", "weights/previous_global.safetensors", "weights/client-2.safetensors"]
ROUND_FILES = ["round.json", *WEIGHTS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run, _ = make_replayed_run(tmp_path_factory.mktemp("run"), rounds=("02", "23"))
    change = {"client": "2", "examples": 9, "changeable": 7, "changed": 7}
    change |= {"label_counts": [0, 7, 0, 2], "faulty_label_counts": [7, 0, 0, 2]}
    fault = json.loads((run / "fault.json").read_text()) | {"changes": [change]}
    (run / "fault.json").write_text(json.dumps(fault))
    config = OmegaConf.load(run / "config.yaml")
    config.num_rounds = 2
    OmegaConf.save(config, run / "config.yaml")
    finish(run, 2)
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def read_all(folder):
    """Read every file of the folder."""
    run = StoredRun(folder)
    assert run.label_counts.shape[1] == len(run.label_names)
    _ = run.fault, run.changes, run.server, run.environment, run.spec
    for number in (1, 2):
        run.round(number)
    list(run.results())


def refused(folder, name):
    with pytest.raises(RecordError) as caught:
        read_all(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert name in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def test_a_whole_run_is_read(run):
    read_all(run)
    (change,) = StoredRun(run).changes
    assert (change.client, change.changed) == ("2", 7)


@pytest.mark.parametrize("freshen", [False, True])
@pytest.mark.parametrize("text", [*TEXTS, DEEP])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(run, name, text, freshen):
    (run / name).write_bytes(text)
    if freshen:
        seal(run)
    refused(run, name)


@pytest.mark.parametrize("text", [*TEXTS, DEEP])
@pytest.mark.parametrize("name", ROUND_FILES)
def test_a_damaged_file_of_a_round(run, name, text):
    place = run / "rounds" / "0002"
    (place / name).write_bytes(text)
    assert "its checksum is not the one in SHA256SUMS" in refused(run, name) or name.endswith("safetensors")
    write_checksums(place)
    refused(run, "0002/")  # its checksums are not those that the run's own know
    seal(run)
    refused(run, name)


@pytest.mark.parametrize("name", [*FILES[:-1], CHECKSUMS, *(f"rounds/0002/{name}" for name in ROUND_FILES)])
def test_a_missing_file(run, name):
    (run / name).unlink()
    refused(run, name)
    (run / name).mkdir()  # something else in its place
    refused(run, name)


def lose_line(folder, name):
    """Take a file's line from the checksums of a folder; the file stays."""
    lines = (folder / CHECKSUMS).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.endswith(f"  {name}\n")]
    assert len(kept) == len(lines) - 1
    (folder / CHECKSUMS).write_text("".join(kept))


@pytest.mark.parametrize("name", [*FILES, f"rounds/0001/{CHECKSUMS}", f"rounds/0002/{CHECKSUMS}"])
def test_checksums_that_have_lost_a_line(run, name):
    lose_line(run, name)
    assert f"{name} has no line in SHA256SUMS" in refused(run, name)


def test_checksums_with_a_line_twice(run):
    lines = (run / CHECKSUMS).read_text().splitlines(keepends=True)
    (run / CHECKSUMS).write_text("".join([*lines, lines[0]]))
    assert f"line {len(lines) + 1} is there twice" in refused(run, CHECKSUMS)


def test_checksums_that_were_cut(run):
    """Wherever that is: in a line, after one, or before the end of the last one, which loses nothing."""
    whole = (run / CHECKSUMS).read_bytes()
    for length in (len(whole) - 1, len(whole) - 2, whole.rindex(b"\n", 0, -1) + 1, 1, 0):
        (run / CHECKSUMS).write_bytes(whole[:length])
        refused(run, CHECKSUMS)


def test_a_run_that_goes_on_is_not_shorter_for_a_lost_line(run):
    (run / "results.json").unlink()
    lose_line(run, f"rounds/0002/{CHECKSUMS}")
    with pytest.raises(RecordError, match=r"0002/SHA256SUMS has no line in SHA256SUMS"):
        list(StoredRun(run).results())


def test_a_round_that_the_checksums_do_not_speak_of(run):
    shutil.copytree(run / "rounds" / "0002", run / "rounds" / "0004")
    with pytest.raises(RecordError, match=r"0004/SHA256SUMS has no line in SHA256SUMS"):
        StoredRun(run).store.stored_rounds()
    refused(run, "0004")


def test_a_command_is_not_left_out_for_a_lost_line(run):
    (run / "command.txt").write_text("tracefl run\n")
    with pytest.raises(RecordError, match=r"command\.txt has no line in SHA256SUMS"):
        _ = StoredRun(run).command


def test_a_tokenizer_is_not_read_in_part_for_a_lost_line(tmp_path):
    run = make_stored_run(tmp_path, "text")
    lose_line(run, "tokenizer/tokenizer_config.json")
    with pytest.raises(RecordError, match=r"tokenizer_config\.json has no line in SHA256SUMS"):
        _ = StoredRun(run).encoder


@pytest.mark.parametrize("name", [*FILES, CHECKSUMS, *(f"rounds/0002/{name}" for name in ROUND_FILES)])
@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_what_is_no_file_of_the_folder_s_own_is_not_opened(run, tmp_path, name, kind):
    """Not even a link to the same content, and a pipe is not waited for."""
    elsewhere = shutil.move(run / name, tmp_path / "elsewhere")
    if kind == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(elsewhere if kind == "link" else "/dev/zero")
    assert ("is a pipe" if kind == "pipe" else "is a link") in refused(run, name)


@pytest.mark.parametrize("folder", ["rounds", "rounds/0002", "rounds/0002/weights"])
def test_a_folder_that_leads_elsewhere(run, tmp_path, folder):
    (run / folder).symlink_to(shutil.move(run / folder, tmp_path / "elsewhere"))
    assert f"{folder} is a link" in refused(run, folder)


@pytest.mark.parametrize("name", [*FILES, "rounds/0002/round.json", "rounds/0002/global.safetensors"])
def test_a_huge_file_is_not_read(run, name):
    os.truncate(run / name, 1 << 42)
    refused(run, name)


def test_a_run_that_is_not_complete_has_no_results(run):
    (run / "results.json").unlink()
    assert StoredRun(run).environment is None


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_without_one_of_its_rounds_is_not_complete(run, number):
    shutil.rmtree(run / "rounds" / f"000{number}")
    assert f"round {number} is missing" in refused(run, str(run))
    assert read_run_state(run, 2).state == "failed"
    (run / "results.json").unlink()  # an unfinished run may lack the last round, which it announced before it was there
    if number == 1:
        with pytest.raises(RecordError, match="round 1 is missing"):
            list(StoredRun(run).results())
    else:
        assert [result.server_round for result in StoredRun(run).results()] == [1]


def test_the_last_round_s_weights_are_not_replaced_by_those_of_an_earlier_one(run):
    shutil.rmtree(run / "rounds" / "0002" / "weights")
    with pytest.raises(RecordError, match=r"0002/weights is missing: config.yaml says store.keep="):
        StoredRun(run).round()
    assert StoredRun(run).round(1)[1].server_round == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("row", {"round": 2}, "it lacks row.global_loss"),
        ("suspects", [{"round": 2}], "it lacks suspects.0.rule"),
        ("traced", [{"label": 3}], "it lacks traced.0.input_index"),
        ("client_weights", None, "client_weights should be an object, got None"),
        ("client_weights", {"2": 1.0, "3": 1.0}, "the clients' weights sum to 2"),
        ("client_weights", {"2": 0.5, "9": 0.5}, "it names client 9, and the run's are 0 to 3"),
        ("client_weights", {"../2": 1.0}, "should match pattern"),
        ("dropped", {"1": 3}, "dropped.1 should be a valid string, got 3"),
        ("new", 1, "it has new, which is unknown"),
    ],
)
def test_a_round_that_says_what_cannot_be(run, key, value, words):
    path = run / "rounds" / "0002" / "round.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    write_checksums(path.parent)
    seal(run)
    with pytest.raises(RecordError, match=r"0002/round\.json is damaged") as caught:
        list(StoredRun(run).results())
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["round.json", "weights/client-2.safetensors", "global.safetensors"])
def test_a_round_in_the_place_of_another(run, name):
    shutil.copyfile(run / "rounds" / "0001" / name, run / "rounds" / "0002" / name)
    refused(run, name)
    write_checksums(run / "rounds" / "0002")
    seal(run)
    if name == "round.json":
        assert "it speaks of round 1, in the place of round 2" in refused(run, name)


def test_two_clients_are_not_exchanged(run):
    """Where their shares are equal the average stays the same; who is blamed would not."""
    place = run / "rounds" / "0002"
    one, other = (place / "weights" / f"client-{k}.safetensors" for k in "23")
    one.rename(place / "kept")
    other.rename(one)
    (place / "kept").rename(other)
    write_checksums(place)
    seal(run)
    assert "it was recorded with other weights than weights/client-2.safetensors, whose checksum was" in refused(
        run, ""
    )


def test_weights_of_another_model(run):
    place = run / "rounds" / "0002"
    path = place / "weights" / "client-2.safetensors"
    save_file({name: tensor[:1] if tensor.ndim else tensor for name, tensor in load_file(path).items()}, path)
    freshen_round(place)
    seal(run)
    assert "does not fit the run's model in" in refused(run, "client-2.safetensors")


@pytest.mark.parametrize("name", ["global", "weights/previous_global"])
def test_a_global_model_in_another_type(run, name):
    path = run / "rounds" / "0002" / f"{name}.safetensors"
    save_file({name: t.double() if t.is_floating_point() else t for name, t in load_file(path).items()}, path)
    freshen_round(run / "rounds" / "0002")
    seal(run)
    assert "does not fit the run's model in" in refused(run, path.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"client": "1"}, "it has changes of other clients than the faulty ones"),
        ({"examples": 8}, "it has other examples of client 2 than label_counts.json"),
        ({"label_counts": [7, 0, 0, 2]}, "it has other examples of client 2 than label_counts.json"),
        ({"faulty_label_counts": [80, 0, 0, 2]}, "it has other examples of client 2 than label_counts.json"),
        ({"faulty_label_counts": [9]}, "it has other examples of client 2 than label_counts.json"),
        ({"changed": 8}, "it has 8 of 7 examples changed on client 2, which holds 9"),
    ],
)
def test_a_fault_that_changed_what_no_client_holds(run, change, words):
    found = json.loads((run / "fault.json").read_text())
    found["changes"][0] |= change
    (run / "fault.json").write_text(json.dumps(found))
    seal(run)
    assert words in refused(run, "fault.json")


def test_too_few_clients_are_counted(run):
    found = json.loads((run / "label_counts.json").read_text())
    (run / "label_counts.json").write_text(json.dumps(found | {"label_counts": found["label_counts"][:2]}))
    seal(run)
    assert r"counts of shape (2, 4) for 4 clients and 4 classes; use" in refused(run, "label_counts.json")


@pytest.mark.parametrize("labels", [torch.tensor([4] * 40), torch.tensor([-1] * 40), torch.zeros(40, 2)])
def test_labels_that_are_no_classes(run, labels):
    save_file(load_file(run / "server.safetensors") | {"labels": labels}, run / "server.safetensors")
    seal(run)
    assert "its labels are not numbers of 4 classes" in refused(run, "server.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": torch.zeros(40, 3, 16, 8, dtype=torch.uint8)},
        {"pixels": torch.zeros(40, 3, 16, 16)},
        {"mean": torch.tensor([0.5])},
        {"std": torch.tensor([0.0] * 3)},
    ],
)
def test_images_that_are_none(run, change):
    given = {f"features.{name}" if name == "pixels" else name: tensor for name, tensor in change.items()}
    save_file(load_file(run / "server.safetensors") | given, run / "server.safetensors")
    seal(run)
    refused(run, "server.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        *({"name": "resnet50"}, {"name": "nothing"}, {"num_classes": 7}, {"config": {"x": 1}}, {"norm": "no"}),
        *({"config": {"layers": [10**7] * 4}}, {"config": {"layers": [10**12, 1, 1, 1]}}, {"num_classes": 10**6}),
    ],
)
def test_an_architecture_that_is_not_the_weights(run, change):
    """Nor is one built that would take more memory or time than the weights do."""
    spec = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(spec | change))
    seal(run)
    with pytest.raises(RecordError, match=r"(model\.json|global\.safetensors)"):
        read_all(run)


@pytest.mark.parametrize(
    "value",
    [
        {"auto_map": {"AutoModelForSequenceClassification": "somebody/model--code.Model"}},
        {"auto_map": {}},
        {"_attn_implementation": "somebody/kernel"},
        {"sub": {"attn_implementation": "flash_attention_2"}},
        {"quantization_config": {"quant_method": "x"}},
    ],
)
def test_a_model_never_runs_code_nor_asks_to(tmp_path, monkeypatch, value):
    run = make_stored_run(tmp_path, "text")
    spec = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(spec | {"config": spec["config"] | value}))
    seal(run)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    with pytest.raises(RecordError, match=r"model\.json is damaged .*would run|its configuration has"):
        StoredRun(run).round(1)


@pytest.mark.parametrize("key", ["dataset.kind", "client.lr", "fault", "seed", "store.keep"])
def test_a_configuration_that_lacks_a_key(run, key):
    config = OmegaConf.load(run / "config.yaml")
    group, _, name = key.rpartition(".")
    (config[group] if group else config).pop(name)
    OmegaConf.save(config, run / "config.yaml")
    seal(run)
    assert f"{key} is missing" in refused(run, "config.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x]\nb: *a\n", "it has an anchor or an alias"),
        ("a: !!python/object/apply:os.system [true]\n", "it has the tag"),
        ("a: ${oc.env:HOME}\n", "it has '${oc.env:HOME}'"),
        ("a: {_target_: os.system}\n", "it has '_target_'"),
        ("{a: " * 25 + "1" + "}" * 25, "it is nested more than 20 deep"),
        ("- 1\n", "it is no run's configuration"),
    ],
)
def test_a_configuration_that_is_no_plain_data(run, text, words):
    (run / "config.yaml").write_text(text)
    seal(run)
    assert words in refused(run, "config.yaml")


@pytest.mark.parametrize(
    "text",
    [*TEXTS, DEEP, b'{"state": "running", "rounds_done": 1, "num_rounds": 2, "seconds": "x"}'],
)
def test_a_damaged_status_is_as_good_as_none(run, text):
    (run / "results.json").unlink()
    (run / "status.json").write_bytes(text)
    assert read_run_state(run, 2).state == "stopped"


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        (schema.RoundRow, ROUND_COLUMNS),
        (schema.SuspectRow, SUSPECT_COLUMNS),
        (schema.MitigationRow, MITIGATION_COLUMNS),
    ],
)
def test_the_schema_has_every_column_of_a_table(shape, columns):
    assert set(shape.__annotations__) == set(columns)
