"""What a run would do and take, from its settings; nothing is fetched, trained or written.

The clients' rows are drawn as in the run, so their numbers are exact. Let W be the bytes of the model's state and P the
participants of a round.

    server's memory = (P + 3) W, for the participants, the model, and the average before and after the round,
                      + the server's examples + provenance.memory_budget where rounds are traced
    client's memory = 4 W, for weights, gradients and Adam's two moments; 5 W with FedProx, which keeps the old weights
    disk            = what ``RoundStore`` keeps, + the examples of the server, and while it runs of the clients
"""

import dataclasses
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracefl.errors import ConfigError, DataError
from tracefl.experiment.backend import TIMED_EXAMPLES, backend_for, backend_of, estimate_work, read_resources
from tracefl.experiment.preparation import architecture
from tracefl.learning.datasets import (
    DatasetSettings,
    Encode,
    RawDataset,
    load_source,
    partition_rows,
    prepare_server,
)
from tracefl.learning.datasets.client_rows import select_rows
from tracefl.learning.models import ModelSpec, TextEncoder, initial_model
from tracefl.learning.privacy.settings import ServerPrivacy
from tracefl.records.folder import RunFolder
from tracefl.records.settings import Settings
from tracefl.records.strategies import ProximalSettings
from tracefl.report.forecast import Forecast, Work


def forecast_run(settings: Settings, started_by_flower: bool = False) -> Forecast:
    """Return what a run would do.

    Args:
        settings: The configuration.
        started_by_flower: Flower has started the clients; they may hold data of their own, which are not known here.

    Raises:
        ConfigError: As in the run.
        DataError: The data are here and cannot be divided as asked.
        RecordError: The folder holds a run of another configuration, or is being written.
    """
    folder = RunFolder(settings.folder, settings)
    done = folder.rounds.last_round
    known = Forecast(
        folder.path,
        settings.model.name,
        settings.dataset.name,
        settings.num_clients,
        settings.num_rounds,
        done,
        folder.is_complete and not settings.overwrite,
        settings.resume,
        settings.store.keep,
        shutil.disk_usage(next(place for place in folder.path.absolute().parents if place.exists())).free,
        overwrites=settings.overwrite,
    )
    if known.is_complete:
        return known
    folder.refuse_if_claimed()
    if started_by_flower:
        return dataclasses.replace(known, missing="Flower starts the clients, which may hold data of their own")
    dataset, model = settings.dataset, settings.model
    with _without_network():
        try:
            raw = load_source(_local(dataset), settings.seed)
        except DataError:
            if dataset.path is None and dataset.root is None:
                return dataclasses.replace(known, missing=f"{dataset.name} is not on this machine; a run fetches it")
            raise
        try:
            made = architecture(settings, raw)
        except ConfigError:
            if raw.kind == "text" and model.pretrained is not False:
                missing = f"the tokenizer of {model.name} is not on this machine; a run fetches it"
                return dataclasses.replace(known, missing=missing)
            raise
        return dataclasses.replace(known, work=_work(settings, folder, raw, made, done if settings.resume else 0))


def _work(
    settings: Settings,
    folder: RunFolder,
    raw: RawDataset,
    made: tuple[ModelSpec, TextEncoder | None, Encode | None],
    rounds_done: int,
) -> Work:
    parts = partition_rows(raw.train.labels, settings.num_clients, settings.partition, settings.seed)
    rows = select_rows(raw.train.labels, parts, settings.dataset, settings.batch_size, settings.seed).rows
    able = {client: len(its) for client, its in rows.items() if int(client) not in settings.without}
    if settings.clients_per_round > len(rows):
        raise DataError(
            f"clients_per_round={settings.clients_per_round}, and only {len(rows)} of {settings.num_clients} clients "
            f"hold a full batch of {settings.batch_size}; lower clients_per_round, batch_size or num_clients"
        )
    if not able:
        raise DataError("without names all clients that hold a full batch; name fewer, or lower batch_size")
    participants = min(settings.clients_per_round, len(able))
    spec, _, encode = made
    dataset = dataclasses.replace(settings.dataset, max_server_examples=TIMED_EXAMPLES)
    some, _ = prepare_server(raw, dataset, settings.seed, encode)
    model = initial_model(dataclasses.replace(settings.model, pretrained=False), spec, settings.seed, some)
    state = model.state_dict()
    whole = sum(tensor.nbytes for tensor in state.values())
    an_example = sum(tensor.nbytes for tensor in some.features.values()) / len(some)
    server_examples = int(an_example * min(len(raw.test), settings.dataset.max_server_examples))

    to_make = dataclasses.replace(settings, num_rounds=settings.num_rounds - rounds_done)
    work = estimate_work(to_make, model, some, sum(able.values()) / max(len(able), 1))
    resources = read_resources(settings)
    at_once = min(participants, max(resources.clients_here, 1))
    backend = backend_of(settings, resources) or backend_for(work, at_once)
    at_once = 1 if backend.in_process else at_once
    stored = settings.clients_per_round, settings.num_rounds, isinstance(settings.privacy, ServerPrivacy)
    budget = 0 if settings.provenance is None else settings.provenance.memory_bytes
    return Work(
        examples=sum(map(len, rows.values())),
        clients=len(able),
        participants=participants,
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        backend=str(backend),
        training_seconds=work.seconds / settings.clients_per_round * math.ceil(participants / at_once),
        server_bytes=(participants + 3) * whole + server_examples + budget,
        client_bytes=(5 if isinstance(settings.strategy, ProximalSettings) else 4) * whole,
        clients_at_once=at_once,
        disk_bytes=folder.rounds.bytes_needed(state, *stored) + int(an_example * sum(able.values())) + server_examples,
        kept_bytes=folder.rounds.bytes_kept(state, *stored) + server_examples,
    )


def _local(dataset: DatasetSettings) -> DatasetSettings:
    """Return the settings with MedMNIST's own folder named: where it is not, the package fetches what is missing."""
    if dataset.source != "medmnist" or dataset.root is not None:
        return dataset
    from medmnist.info import DEFAULT_ROOT

    return dataclasses.replace(dataset, root=str(DEFAULT_ROOT or Path.home()))


@contextmanager
def _without_network() -> Iterator[None]:
    """Let Hugging Face's libraries read their cache alone, as with HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
