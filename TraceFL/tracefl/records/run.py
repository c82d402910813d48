"""A run, read from the folder that it left: what a later question needs, without Flower or Ray."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.common.inside import is_there, path_of
from tracefl.errors import ConfigError, RecordError, one_line, plain
from tracefl.learning.datasets import load_examples
from tracefl.learning.examples import Examples
from tracefl.learning.faults import ClientChange, Fault, Trigger
from tracefl.learning.models import ModelSpec, TextEncoder, build_stored
from tracefl.provenance import RoundRecord
from tracefl.records.checksums import CheckedFiles, listed_rounds, names_below, round_checksums
from tracefl.records.claim import drop_abandoned_work
from tracefl.records.fitting import check_changes, check_examples, check_fault, check_result
from tracefl.records.reading import RESULTS, check_rounds, read_json, read_results, reading
from tracefl.records.result import RoundResult
from tracefl.records.settings import read_config
from tracefl.records.store import RoundStore
from tracefl.records.weights import opened_weights, read_header

COMMAND = "command.txt"
SERVER = "server.safetensors"

_MOST_BYTES = 1 << 28  # of the command, and of a file of the tokenizer
_MOST_SERVER_BYTES = 1 << 34
_MOST_LACKING = 10_000  # rounds, each of which is named


class StoredRun:
    """A run, by its folder. When a file is read, it is compared with its checksum and holds what its schema says.

    Args:
        folder: The run's folder.

    Raises:
        RecordError: It is no run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = CheckedFiles(folder)
        self.settings = read_config(folder / "config.yaml")
        self.store = RoundStore(folder / "rounds", **vars(self.settings.store), run=self.files)
        drop_abandoned_work(folder)

    @property
    def command(self) -> str | None:
        """The command that made the run; None where it was made from Python."""
        if not self.files.has(COMMAND):
            return None
        return plain(self.files.read(COMMAND, _MOST_BYTES).decode(errors="replace").strip())

    @property
    def spec(self) -> ModelSpec:
        """The model's architecture.

        Raises:
            RecordError: model.json is missing or damaged.
        """
        from tracefl.records.schema import ModelFile

        return ModelSpec(**read_json(self.files, "model.json", ModelFile))

    @property
    def is_complete(self) -> bool:
        """The run says that it is over; what it says of its end is checked where it is read."""
        return is_there(self.folder, RESULTS)

    @property
    def environment(self) -> Mapping[str, Any] | None:
        """What results.json says, versions and hardware among it; None of a run that is not complete.

        Raises:
            RecordError: It is damaged.
        """
        return read_results(self.folder, self.settings.num_rounds) if self.is_complete else None

    @property
    def last_round(self) -> int:
        """The last recorded round, 0 for none.

        Raises:
            RecordError: One is missing.
        """
        last = self.settings.num_rounds if self.is_complete else max(listed_rounds(self.files), default=0)
        if not self.is_complete and last and not is_there(self.folder, f"rounds/{last:04d}"):
            last -= 1  # the run ended before the round that it had announced was in its place
        check_rounds(self.files, last)
        if not self.is_complete:
            self.files.has(round_checksums(self.store.last_round))
        return last

    def results(self, first: int = 1, fitted: bool = True) -> Iterator[RoundResult]:
        """Yield the result of every recorded round, in order.

        Args:
            first: The round to begin with.
            fitted: Compare what a result names with the run's clients, classes and examples.

        Raises:
            RecordError: One is missing or damaged, or says what cannot be of this run.
        """
        for number in range(first, self.last_round + 1):
            yield self._result(number) if fitted else self.store.result(number)

    def readable(self, until: int = 0) -> tuple[tuple[RoundResult, ...], dict[int, str]]:
        """Return the results that can be read, in order, and why each other recorded round cannot.

        Args:
            until: The last round that is known to have been recorded.

        Raises:
            RecordError: SHA256SUMS is missing or damaged, or nearly all of the rounds are missing.
        """
        found, lacking = [], {}
        listed = [number for number in listed_rounds(self.files) if number <= self.settings.num_rounds]
        last = min(max(until, *listed, 0), self.settings.num_rounds)
        if last - len(listed) > _MOST_LACKING:
            raise RecordError(f"{self.folder} has {len(listed)} of {last} rounds; use another copy of the run")
        for number in range(1, last + 1):
            try:
                found.append(self._result(number))
            except RecordError as error:
                if number == last > until and not (self.is_complete or is_there(self.folder, f"rounds/{number:04d}")):
                    continue  # announced when the run ended, and not there yet
                place_is_there = is_there(self.folder, f"rounds/{number:04d}")
                said = one_line(error)
                before, _, _ = said.rpartition("; ")  # without the advice for those who ask about this round alone
                lacking[number] = (before or said) if place_is_there else "its folder is missing"
        return tuple(found), lacking

    def model(self, server_round: int) -> nn.Module:
        """Return the architecture with weights by chance.

        Args:
            server_round: A stored round, whose weights it can hold; else the architecture is not built.

        Raises:
            RecordError: model.json is missing or damaged, or not of the round's weights.
        """
        spec, shapes = self.spec, self.store.shapes(server_round)
        with reading(self.folder / "model.json"):
            return build_stored(spec, shapes)

    def round(self, server_round: int | None = None, before_noise: bool = False) -> tuple[nn.Module, RoundRecord]:
        """Return a round's global model and the round.

        Args:
            server_round: The round; None for the last one that is stored.
            before_noise: The average before privacy's noise in place of the model that was deployed.

        Raises:
            RecordError: The round is not stored.
            ConfigError: The round has no noise.
        """
        server_round = self._last_stored() if server_round is None else server_round
        if server_round in listed_rounds(self.files):
            check_rounds(self.files, server_round, first=server_round)
        self.store.check_stored(server_round)
        model = self.model(server_round)
        record = self.store.read(server_round, model.state_dict())
        record = replace(record, aggregation=self.settings.strategy.aggregation)
        if before_noise:
            if record.before_noise is None:
                raise ConfigError(f"privacy.trace=before_noise, and round {server_round} of {self.folder} has no noise")
            record = record.without_noise()
        model.load_state_dict(dict(record.global_weights))
        return model, record

    @cached_property
    def server(self) -> Examples:
        """The server's examples.

        Raises:
            RecordError: server.safetensors is missing or damaged.
        """
        path, kind, classes = self.folder / SERVER, self.settings.dataset.kind, len(self.label_names)
        vocabulary = self.spec.config.get("vocab_size") if kind == "text" and self.files.has("model.json") else None
        with opened_weights(self.files, SERVER, most_bytes=_MOST_SERVER_BYTES) as descriptor, reading(path):
            examples = load_examples(path_of(descriptor), path)
            check_examples(examples, kind, classes, vocabulary)
        return examples

    @cached_property
    def _num_examples(self) -> int:
        with reading(self.folder / SERVER), self.files.opened_unchecked(SERVER) as descriptor:
            return int(read_header(descriptor, self.folder / SERVER)["labels"]["shape"][0])

    @cached_property
    def encoder(self) -> TextEncoder:
        """The tokenizer, of a run on texts.

        Raises:
            RecordError: A file of it is missing or damaged.
        """
        from tracefl.records.schema import EncoderFile

        read_json(self.files, "tokenizer/text_encoder.json", EncoderFile)
        there = (f"tokenizer/{name}" for name in names_below(self.folder / "tokenizer"))
        listed = (name for name in self.files.checksums if name.startswith("tokenizer/"))
        names = [name for name in dict.fromkeys((*listed, *there)) if self.files.has(name)]
        with tempfile.TemporaryDirectory() as copied:
            for name in names:
                (Path(copied) / Path(name).name).write_bytes(self.files.read(name, _MOST_BYTES))
            with reading(self.folder / "tokenizer" / "tokenizer.json"):
                return TextEncoder.load(copied)

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], Tensor, bool]:
        from tracefl.records.schema import LabelCountsFile

        found, clients = read_json(self.files, "label_counts.json", LabelCountsFile), self.settings.num_clients
        with reading(self.folder / "label_counts.json"):
            counts, names = torch.tensor(found["label_counts"], dtype=torch.int64), tuple(found["label_names"])
            if counts.shape[1:] != (len(names),) or len(counts) < clients:
                shape = tuple(counts.shape)
                raise ValueError(f"counts of shape {shape} for {clients} clients and {len(names)} classes")
        return names, counts, found.get("deployed", False)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self._labels[0]

    @property
    def label_counts(self) -> Tensor:
        """``(num_clients, C)`` training examples of each true class, row i for client i."""
        return self._labels[1]

    @property
    def is_deployed(self) -> bool:
        """The run was a deployment: its clients had data of their own."""
        return self._labels[2]

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Client id to the fingerprint of its SuperNode's key, of a deployment's clients.

        Raises:
            RecordError: label_counts.json is missing or damaged, or has no key of a client with examples.
        """
        from tracefl.records.schema import LabelCountsFile

        keys: dict[str, str] = read_json(self.files, "label_counts.json", LabelCountsFile).get("keys", {})
        holders = [str(client) for client, counts in enumerate(self.label_counts.tolist()) if sum(counts)]
        with reading(self.folder / "label_counts.json"):
            if not keys.keys() >= set(holders):
                raise ValueError("it has no keys of some clients that hold examples")
            unknown = [client for client in keys if int(client) >= len(self.label_counts)]
            if unknown:
                raise ValueError(f"it has the key of client {unknown[0]}, and no examples of it")
            if len(set(keys.values())) < len(keys):
                raise ValueError("it has one key of several clients")
        return keys

    @property
    def fault(self) -> Fault | None:
        """The injected fault; None without one.

        Raises:
            RecordError: fault.json is missing or damaged.
        """
        return None if self.settings.fault is None else self._fault[0]

    @property
    def changes(self) -> tuple[ClientChange, ...]:
        """What the fault changed, one entry for each faulty client; empty without a fault.

        Raises:
            RecordError: fault.json is missing or damaged.
        """
        return () if self.settings.fault is None else self._fault[1]

    @cached_property
    def _fault(self) -> tuple[Fault, tuple[ClientChange, ...]]:
        from tracefl.records.schema import FaultFile

        found = dict(read_json(self.files, "fault.json", FaultFile))
        changes: Any = found.pop("changes")
        trigger: Any = found.pop("trigger")
        flips: Any = found.pop("flips")
        clients: Any = found.pop("clients")
        fault = Fault(
            **found,  # whose types the schema has checked
            clients=tuple(clients),
            flips={int(label): becomes for label, becomes in flips.items()},
            trigger=None if trigger is None else Trigger(**trigger),
        )
        path = self.folder / "fault.json"
        check_fault(fault, self.settings.dataset.kind, tuple(self.label_counts.shape), path)
        made = tuple(ClientChange(**change) for change in changes)
        check_changes(made, fault, self.label_counts, path)
        return fault, made

    def _result(self, server_round: int) -> RoundResult:
        result = self.store.result(server_round)
        path = self.folder / f"rounds/{server_round:04d}/round.json"
        check_result(result, tuple(self.label_counts.shape), self._num_examples, path)
        return result

    @property
    def device(self) -> str:
        """The run's device, for the same rounding, where this machine has it; else the CPU."""
        return "cuda" if self.settings.device == "cuda" and torch.cuda.is_available() else "cpu"

    def _last_stored(self) -> int:
        """Return the last round whose weights are kept."""
        last, stored = self.last_round, self.store.stored_rounds()
        if not stored:
            raise RecordError(f"{self.folder} keeps no round's weights; run with store=last or store=all")
        if self.settings.store.keep != "none" and last not in stored:
            raise RecordError(
                f"{self.folder / f'rounds/{last:04d}/weights'} is missing: config.yaml says store.keep="
                f"{self.settings.store.keep}; use another copy, or ask for a round that is kept, such as "
                f"round={stored[-1]}"
            )
        return stored[-1]
