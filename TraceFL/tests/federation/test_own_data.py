import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture
from torch.testing import assert_close

from tests.helpers.configuration import compose_settings
from tests.helpers.plans import ScriptedFederation
from tests.helpers.tables import read_csv
from tracefl.errors import ConfigError, DataError, RoundFailedError
from tracefl.experiment.preparation import prepare_deployed
from tracefl.experiment.runner import run_settings
from tracefl.federation.own_data import check_label_names, client_job, load_split, own_examples, with_client
from tracefl.federation.plan import Joined
from tracefl.learning.datasets import load_source
from tracefl.learning.models import build_text_encoder
from tracefl.questions.retrace import retrace
from tracefl.records.run import StoredRun

HUB = (
    "dataset=hub",
    "dataset.name=shapes",
    "dataset.input_columns=[image]",
    "dataset.label_column=label",
    "dataset.image_size=8",
    "dataset.min_examples_per_label=2",
    "++model.config.layers=[1,1,1,1]",
    "batch_size=4",
    "num_clients=2",
    "clients_per_round=2",
)


def write(folder, split, labels):
    """Write pictures whose grey is 20 times their label."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [Picture.fromarray(np.full((8, 8), 20 * int(label), dtype=np.uint8)) for label in labels]
    features = Features({"image": Image(), "label": Value("int64")})
    Dataset.from_dict({"image": pictures, "label": list(labels)}, features=features).to_parquet(
        folder / f"{split}.parquet"
    )
    return folder


@pytest.fixture
def server(tmp_path):
    return write(tmp_path / "server", "test", [0, 1, 2, 3] * 3)


def joined(counts):
    return {client_id: Joined(held, f"SHA256:{client_id * 43}") for client_id, held in counts.items()}


def deployed(server, *overrides, counts=None, asked=None):
    """Prepare the server; clients answer with ``counts``."""

    def gather(num_clients, question, owners):
        assert owners == {}
        if asked is not None:
            asked.append((num_clients, json.loads(question)))
        return joined(counts or {"0": [5, 5, 0, 0], "1": [0, 0, 5, 5]})

    settings = compose_settings(*HUB, f"dataset.path={server}", *overrides)
    return prepare_deployed(settings, gather)


def test_the_server_reads_its_test_set_alone_and_asks_clients_what_they_hold(server):
    asked = []
    prepared = deployed(server, asked=asked)
    assert prepared.data.server.labels.tolist() == [0, 1, 2, 3] * 3
    assert prepared.data.clients == {}
    assert prepared.data.label_counts.tolist() == [[5, 5, 0, 0], [0, 0, 5, 5]]
    assert (prepared.fault, prepared.spec.num_classes) == (None, 4)
    ((num_clients, question),) = asked
    assert num_clients == 2
    assert question == json.loads(json.dumps(prepared.client_job))
    assert str(server) not in json.dumps(question)  # where the server's files are is its own business


def test_a_client_reads_its_training_split_alone_as_the_server_would(server, tmp_path):
    asked = []
    deployed(server, asked=asked)
    folder = write(tmp_path / "client", "train", [3, 3, 1, 1, 1, 2])
    examples = own_examples(str(folder), asked[0][1])
    assert examples.labels.tolist() == [3, 3, 1, 1, 1]  # one example of class 2 is below min_examples_per_label
    assert examples.label_counts(4).tolist() == [0, 3, 0, 2]
    assert examples.features["pixels"][:, 0, 0, 0].tolist() == [60, 60, 20, 20, 20]
    inputs, _ = examples.batch(torch.tensor([0]))
    assert_close(inputs, torch.full((1, 3, 8, 8), (60 / 255 - 0.5) / 0.5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0], "3 examples hold no full batch of 4"),
        ([0, 0, 0, 0, 7, 7], "holds 7, outside 0 to 3"),
    ],
)
def test_a_clients_data_that_do_not_fit_are_refused(server, tmp_path, labels, message):
    asked = []
    deployed(server, asked=asked)
    folder = write(tmp_path / "client", "train", labels)
    with pytest.raises(DataError, match=message):
        own_examples(str(folder), asked[0][1])


def test_a_client_without_its_folder_is_told_so(server, tmp_path):
    asked = []
    deployed(server, asked=asked)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        own_examples(str(tmp_path / "nowhere"), asked[0][1])


def test_texts_go_through_the_servers_tokenizer():
    settings = compose_settings(
        "dataset=synthetic_text", "model=gpt", "model.pretrained=false", "++model.config.n_layer=1"
    )
    texts = ["the cell divides", "the court rules on the case"] * 40
    encoder = build_text_encoder(settings.model, texts)
    job = json.loads(json.dumps(client_job(settings.dataset, ["a", "b"], 4, 0, encoder)))
    from tracefl.federation.own_data import _unpack

    there = _unpack(job["tokenizer"])
    expected, again = encoder.encode(texts, 16), there.encode(texts, 16)
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    assert (there.pad_id, there.vocab_size, there.origin) == (encoder.pad_id, encoder.vocab_size, encoder.origin)


def test_faults_and_bundled_data_are_for_simulations(server):
    with pytest.raises(ConfigError, match="fault=label_flip: faults are injected in simulations only"):
        deployed(server, "fault=label_flip")
    settings = compose_settings("dataset=digits")
    with pytest.raises(ConfigError, match="dataset=digits comes with the package and is no client's own"):
        prepare_deployed(settings, lambda *_: {})


def test_labels_that_each_client_would_number_otherwise_are_refused(tmp_path):
    server = write(tmp_path / "odd", "test", [1, 2, 3] * 3)
    with pytest.raises(ConfigError, match="the server's labels are 1, 2, 3, and clients with others would number them"):
        deployed(server)
    named = deployed(server, "dataset.label_names=[0,1,2,3]", counts={"0": [0, 4, 4, 4]})
    assert named.data.label_names == ("0", "1", "2", "3")
    check_label_names(compose_settings("dataset=digits").dataset, ["cat", "dog"])


def test_one_split_of_a_folder_is_read_as_both_would_be(tmp_path):
    write(tmp_path, "train", [0, 1, 2, 3])
    write(tmp_path, "test", [3, 2, 1, 0])
    settings = compose_settings(*HUB, f"dataset.path={tmp_path}").dataset
    whole = load_source(settings, 0)
    assert load_split(settings, "train", 0).train.labels.tolist() == whole.train.labels.tolist()
    assert load_split(settings, "test", 0).test.labels.tolist() == whole.test.labels.tolist()


def test_a_clients_counts_go_to_its_row():
    counts = with_client(torch.zeros(0, 3, dtype=torch.int64), "2", [1, 2, 3])
    assert counts.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert with_client(counts, "0", [4, 0, 0]).tolist() == [[4, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert with_client(counts, "2", [0, 0, 9]).tolist()[2] == [0, 0, 9]
    with pytest.raises(ConfigError, match="client 1 counts 2 classes and the server 3"):
        with_client(counts, "1", [1, 2])


def test_a_run_that_goes_on_knows_the_clients_of_earlier_sessions(server, tmp_path):
    """Client 2 is there in the first session alone: its rounds are traced to it, its examples counted, its id kept."""
    held = {"0": [5, 5, 0, 0], "2": [0, 0, 5, 5]}
    owned = []

    def session(clients, rounds, *overrides):
        settings = compose_settings(
            *HUB,
            f"dataset.path={server}",
            f"log_dir={tmp_path}",
            "run_name=run",
            "num_rounds=2",
            "store=all",
            *overrides,
        )

        def gather(num_clients, question, owners):
            owned.append(owners)
            return joined({client: held[client] for client in clients})

        run_settings(settings, ScriptedFederation(clients, rounds), lambda s: prepare_deployed(s, gather))

    with pytest.raises(RoundFailedError, match="everybody is gone"):
        session(("0", "2"), 1)
    session(("0",), 1, "resume=true")
    run = StoredRun(tmp_path / "default" / "run")
    assert run.label_counts.tolist() == [[5, 5, 0, 0], [0, 0, 0, 0], [0, 0, 5, 5]]
    assert owned == [{}, {client_id: f"SHA256:{client_id * 43}" for client_id in ("0", "2")}]
    assert run.keys == owned[1]
    assert [row["round"] for row in read_csv(run.folder / "rounds.csv")] == ["1", "2"]
    for n in (1, 2):
        retrace(run.folder, n)
