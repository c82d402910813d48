"""What the files of a run may hold: what a run writes, and nothing that is not that."""

import json
import math
from pathlib import Path

import pytest

from tests.helpers.finished import whole_results
from tests.helpers.random_rounds import result
from tests.helpers.tables import whole_row
from tracefl.errors import RecordError
from tracefl.federation.identities import HIGHEST_ID, fingerprint
from tracefl.records import schema
from tracefl.records.result import as_json
from tracefl.records.schema import parse

COUNTS = {"label_names": ["ant", "bee"], "label_counts": [[3, 0], [0, 5]]}
KEY = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
FAULT = {
    **{"name": "backdoor", "clients": ["3"], "from_round": 1, "flips": {}, "target": 1, "share": 0.5, "scale": None},
    **{"trigger": {"size": 4, "token": None}, "changes": []},
}
MODEL = {"family": "torchvision", "name": "resnet18", "num_classes": 2, "config": {"layers": [1]}, "norm": "own"}
STATUS = {"state": "done", "rounds_done": 2, "num_rounds": 2, "seconds": 1.5, "seconds_a_round": None, "updated": 1e9}
TENSORS = {"fc.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
WHOLE = {
    schema.RoundFile: as_json(result()),
    schema.LabelCountsFile: COUNTS,
    schema.FaultFile: FAULT,
    schema.ModelFile: MODEL,
    schema.ResultsFile: whole_results(),
    schema.StatusFile: STATUS | {"error": None},
    schema.EncoderFile: {"origin": "own"},
    schema.TensorsHeader: TENSORS,
}


def read(shape, content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse(shape, text, Path("run/file.json"))


def refused(shape, content):
    with pytest.raises(RecordError) as caught:
        read(shape, content)
    said = str(caught.value)
    assert said.startswith("run/file.json is damaged or of another version of tracefl: ")
    assert said.endswith("; use that version or run again")
    assert said.isprintable()
    assert len(said) < 500
    return said


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: getattr(shape, "__name__", "header"))
def test_what_a_run_writes_is_read_as_it_is(shape):
    found = read(shape, WHOLE[shape])
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(WHOLE[shape]))
    assert type(found) is dict


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: getattr(shape, "__name__", "header"))
@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"{",
            b"null",
            b"[]",
            b"3",
            b"\xff\xfe",
            b"\x00",
            b"{} {}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"1" * 9999,
        ),
        b'{"\\ud800": 1}',
    ],
)
def test_what_is_no_such_json_is_refused(shape, text):
    refused(shape, text)


@pytest.mark.parametrize("shape", [each for each in WHOLE if each not in (schema.ResultsFile, schema.TensorsHeader)])
def test_no_key_is_missing_and_none_is_new(shape):
    for key in WHOLE[shape]:
        assert f"it lacks {key}" in refused(shape, {k: v for k, v in WHOLE[shape].items() if k != key})
    assert "it has new, which is unknown" in refused(shape, WHOLE[shape] | {"new": 1})
    assert r"it has \x1b[31m, which is unknown" in refused(shape, WHOLE[shape] | {"\x1b[31m": 1})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("global_accuracy", value) for value in (1.01, -0.1, math.nan, math.inf, True, "0.5", [], 10**400)),
        *(("global_loss", value) for value in ("x", True, {})),
        *(("inputs_traced", value) for value in (-1, 1.5, 2**53, "3", True)),
        *(("round", value) for value in (0, -1, 2**31, None, "1", 1.5)),
        *(("counterfactual_correlation", value) for value in (1.1, -2, math.nan)),
        *(("train_seconds", value) for value in (-1, math.inf, 1e13)),
        *(("clipping_norm", value) for value in (-1e-9, math.nan)),
    ],
)
def test_a_column_has_its_range(column, value):
    content = as_json(result())
    content["row"] = whole_row(**{"round": 1, column: value})
    assert f"row.{column} should " in refused(schema.RoundFile, content)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e308, 0])
def test_a_loss_may_have_overflowed(loss):
    found = read(schema.RoundFile, as_json(result()) | {"row": whole_row(round=1, global_loss=loss)})
    assert found["row"]["global_loss"] == loss or math.isnan(loss)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "0:0.75 2:1",
        "0:1",
        "999999999:0",
        "3:1e-05 4:1e+06",
        "3:-0.5",
        "3:nan 4:inf 5:-inf",
        "3:-0.25 4:0.125",
    ],
)
def test_numbers_of_clients_are_text(value):
    row = whole_row(round=1, class_accuracy=value, epsilon_by_client=value)
    assert read(schema.RoundFile, as_json(result()) | {"row": row})["row"]["class_accuracy"] == value
    for pair in (value or "").split():
        float(pair.partition(":")[2])


@pytest.mark.parametrize(
    "value",
    [
        *(
            "x",
            "0",
            "0:",
            ":1",
            "0:1,",
            "0:e",
            "0:--1",
            "0:1 x",
            "0 :1",
            "-1:1",
            "0:1e",
            "0:infinity",
            "0:0x1",
            "0:1:2",
        ),
        *("9" * 5000 + ":1", "0:" + "9" * 5000, "0:1e9999", "\u0663:1", "0:1\n", "0:1  1:1", "0:1\x1b"),
    ],
)
def test_what_cannot_be_read_as_such_is_refused(value):
    row = whole_row(round=1, class_accuracy=value)
    assert "row.class_accuracy should match" in refused(schema.RoundFile, as_json(result()) | {"row": row})


@pytest.mark.parametrize("client", ["-1", "01", "1.0", " 1", "a", "", "../1", "1" * 10, "\u0661", "1\n"])
def test_a_client_is_a_number_without_leading_zeros(client):
    refused(schema.RoundFile, as_json(result()) | {"client_weights": {client: 1.0}})
    refused(schema.FaultFile, FAULT | {"clients": [client]})
    refused(schema.LabelCountsFile, COUNTS | {"keys": {client: KEY}})


@pytest.mark.parametrize("weight", [0, -0.5, 1.5, math.nan, None, "1", True])
def test_a_weight_is_a_share(weight):
    refused(schema.RoundFile, as_json(result()) | {"client_weights": {"3": weight}})


def test_a_deployment_s_counts_have_the_keys_of_its_clients():
    keys = {"0": KEY, str(HIGHEST_ID): KEY.replace("47", "48")}
    assert read(schema.LabelCountsFile, COUNTS | {"deployed": True, "keys": keys})["keys"] == keys
    assert read(schema.LabelCountsFile, COUNTS | {"deployed": True, "keys": {}})["keys"] == {}


def test_a_key_s_fingerprint_is_one():
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ec.generate_private_key(ec.SECP384R1()).public_key()  # as Flower's SuperNodes have them
    own = fingerprint(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert read(schema.LabelCountsFile, COUNTS | {"keys": {"0": own}})["keys"] == {"0": own}


@pytest.mark.parametrize(
    "key", ["", "x", KEY[:-1], KEY + "A", KEY + "=", "MD5:" + KEY[7:], KEY[:-1] + "\n", KEY[:-1] + "-", None, 3]
)
def test_what_is_no_fingerprint_is_refused(key):
    assert "keys.0 should " in refused(schema.LabelCountsFile, COUNTS | {"keys": {"0": key}})


@pytest.mark.parametrize(
    "change",
    [
        *({"label_counts": [[-1, 0]]}, {"label_counts": [[1.5]]}, {"label_counts": [3]}, {"label_names": []}),
        *({"label_names": ["x" * 10_001]}, {"deployed": 1}, {"keys": ["0"]}),
    ],
)
def test_counts_that_are_none(change):
    refused(schema.LabelCountsFile, COUNTS | change)


@pytest.mark.parametrize(
    "change",
    [
        *({"name": "other"}, {"from_round": 0}, {"flips": {"x": 1}}, {"flips": {"1": -1}}, {"share": 2}, {"scale": -1}),
        *(
            {"trigger": {"size": 0, "token": None}},
            {"trigger": {"size": 4}},
            {"target": -1},
            {"flips": {"9" * 5000: 1}},
        ),
    ],
)
def test_a_fault_that_is_none(change):
    refused(schema.FaultFile, FAULT | change)


@pytest.mark.parametrize(
    "change", [{"family": "os"}, {"num_classes": 1}, {"num_classes": 10**9}, {"config": []}, {"norm": "x"}, {"name": 3}]
)
def test_an_architecture_that_is_none(change):
    refused(schema.ModelFile, MODEL | change)


def test_results_may_say_more_and_no_less():
    read(schema.ResultsFile, whole_results(more={"a": 1}))
    for key in ("run", "seed", "rounds", "final", "classes", "seconds", "versions", "hardware"):
        refused(schema.ResultsFile, {k: v for k, v in whole_results().items() if k != key})
    refused(schema.ResultsFile, whole_results(seconds="9"))
    refused(schema.ResultsFile, whole_results(versions={"torch": 2}))


@pytest.mark.parametrize(
    "tensor",
    [
        *({"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}, {"dtype": "F32", "shape": [2], "data_offsets": [0]}),
        *({"dtype": "f32;", "shape": [2], "data_offsets": [0, 8]}, {"dtype": "F32", "shape": [2]}, [], {"a": 1}),
        {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 8]},
    ],
)
def test_a_tensor_that_is_none(tensor):
    refused(schema.TensorsHeader, {"fc.bias": tensor})


def test_a_message_is_short_and_shows_what_was_found():
    said = refused(schema.LabelCountsFile, COUNTS | {"label_names": ["\x1b[31m" + "x" * 100_000]})
    assert r"label_names.0 should have at most 10000 characters, got '\x1b[31mxxx" in said
