"""A run's folder, opened from Python: its tables as pandas' frames, and the commands' questions as methods.

Needs neither Flower nor Ray, except to train again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tracefl.common.imports import imported
from tracefl.common.inside import read_bytes
from tracefl.conf.readers import clients as read_clients
from tracefl.conf.run_names import find_run
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.examples import PIXELS, Examples
from tracefl.provenance import Answer, Explanation, RoundRecord
from tracefl.provenance.asking import answer_round
from tracefl.questions.one_input import WAYS, explain_stored, read_question
from tracefl.questions.overrides import asks_before_noise, read_tracer
from tracefl.records.reading import read_results, reading
from tracefl.records.result import TABLES, tables_of
from tracefl.records.run import StoredRun
from tracefl.records.tables import PROVENANCE_COLUMNS, provenance_rows, to_csv

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 1 << 32  # of a table

_TEXT_COLUMNS = (
    *("client", "traced_client", "expected_clients", "counterfactual_client", "verified", "faulty_clients"),
    *("ranking", "contributions", "epsilon_by_client", "clients_removed", "class"),
)
"""Columns that hold clients' ids, which are text, alone or among other things."""


def load(run: str | Path = "last") -> "Run":
    """Open a run.

    Args:
        run: Its folder, the beginning of its name, or ``"last"`` for the run that was written last, as on the command
            line: the latter two are looked up below ``logs/`` and ``results/``.

    Raises:
        RecordError: There is no such run, or several; or its configuration cannot be read.
    """
    return Run(find_run(str(run)))


class Run:
    """A run that is over, or not yet: what it left, and what can be asked about it.

    Words of the configuration, such as ``"provenance=artifact"``, ask a question in another way than the run did.

    Args:
        folder: The run's folder.

    Raises:
        RecordError: It is no run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stored = StoredRun(folder)

    @property
    def config(self) -> dict[str, Any]:
        """Every key of the configuration."""
        return dict(self._stored.settings.resolved)

    @property
    def results(self) -> dict[str, Any]:
        """What results.json says: a summary, versions, hardware, seconds.

        Raises:
            RecordError: The run is not complete.
        """
        return read_results(self.folder, self._stored.settings.num_rounds)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._stored.label_names

    @property
    def stored_rounds(self) -> list[int]:
        """The rounds whose weights are kept, and which can be asked about."""
        return list(self._stored.store.stored_rounds())

    @cached_property
    def server(self) -> Examples:
        """The server's examples, by whose positions inputs are counted."""
        return self._stored.server

    def round(self, round: int | None = None) -> tuple[nn.Module, RoundRecord]:
        """Return a round's global model and its weights; None for the last round that is stored.

        Raises:
            RecordError: The round is not stored.
        """
        return self._stored.round(round)

    @cached_property
    def tables(self) -> "Mapping[str, pd.DataFrame]":
        """Every table of the folder by its file's name without ``.csv``; ids of clients are text.

        The run's own tables are made of its rounds, which are compared with their checksums.

        Raises:
            ConfigError: pandas is not installed.
            RecordError: A round or a table is damaged.
        """
        results = tuple(self._stored.results())
        own = {name: to_csv(*table) for name, table in tables_of(results).items()} if results else {}
        others = [path.name for path in self.folder.glob("*.csv") if path.name not in TABLES]
        frames = {name: self._parsed(StringIO(text)) for name, text in own.items()}
        for name in others:
            with reading(self.folder / name):
                frames[name] = self._parsed(StringIO(read_bytes(self.folder, name, _MOST_BYTES).decode()))
        return {name.removesuffix(".csv"): frames[name] for name in sorted(frames)}

    @property
    def rounds(self) -> "pd.DataFrame":
        """rounds.csv: a row for each round, indexed by it.

        Raises:
            ConfigError: As ``tables``.
            RecordError: The run has no round yet.
        """
        return self._table("rounds").set_index("round")

    @property
    def inputs(self) -> "pd.DataFrame":
        """provenance.csv: a row for each traced input of each round.

        Raises:
            ConfigError: As ``tables``.
            RecordError: The run has no round yet.
        """
        return self._table("provenance")

    @property
    def clients(self) -> "pd.DataFrame":
        """A row for each client, indexed by its id.

        ``examples``, and of each class by its name; ``faulty`` where a fault is known; ``rounds`` that it is averaged
        in, as a list.

        Raises:
            ConfigError: pandas is not installed.
            RecordError: A file is damaged.
        """
        fault, rounds = self._stored.fault, list(self._stored.results())
        counts = self._stored.label_counts.tolist()
        rows = []
        for number, held in enumerate(counts):
            client = str(number)
            faulty = {} if fault is None else {"faulty": client in fault.clients}
            averaged = [result.server_round for result in rounds if client in result.client_weights]
            by_class = dict(zip(self.class_names, held, strict=True))
            rows.append({"client": client, "examples": sum(held), **by_class, **faulty, "rounds": averaged})
        return self._frame(rows).set_index("client")

    def who(
        self,
        inputs: int | Sequence[int] | None = None,
        *words: str,
        image: str | Path | None = None,
        text: str | None = None,
        round: int | None = None,
    ) -> Answer:
        """Say which clients carried predictions of a round's model.

        Args:
            inputs: Positions in the server's examples, one or several; None for those that the run traced in the round.
            words: Of the configuration's groups provenance and privacy.trace.
            image: An image's file in their place, prepared as the run's images were.
            text: Or a text.
            round: The round; None for the last that is stored.

        Raises:
            ConfigError: An argument is illegal, or names what does not exist.
            DataError: The image cannot be read.
            RecordError: The round is not stored, or traced no inputs.
        """
        tracer = read_tracer(self._stored, words)
        model, record = self._stored.round(round, asks_before_noise(self._stored, words))
        if image is None and text is None:
            positions = self._positions(inputs, record.server_round)
            examples = tracer.examples_to_trace(self.server)
            batch, labels = examples.batch(positions)
            answer = answer_round(model, record, batch, labels, tracer.provenance.method, compute=tracer.compute)
            return replace(answer, class_names=self.class_names, **self._shown(examples, positions))
        way, given = self._one(inputs, image, text)
        question = read_question(self._stored, tracer, way, given)
        answer = answer_round(model, record, question.inputs, None, tracer.provenance.method, compute=tracer.compute)
        return replace(
            answer,
            class_names=self.class_names,
            texts=None if question.text is None else (question.text,),
            pictures=None if question.pixels is None else question.pixels[None],
        )

    def explain(
        self,
        input: int | None = None,
        *words: str,
        image: str | Path | None = None,
        text: str | None = None,
        against: int | str | None = None,
        round: int | None = None,
    ) -> Explanation:
        """Explain one prediction of a round's model, as ``tracefl trace RUN input=`` does.

        Args:
            input: Its position in the server's examples.
            words: Of the configuration's groups provenance and privacy.trace.
            image: An image's file in its place, prepared as the run's images were.
            text: Or a text.
            against: Another class to compare the predicted one with, by number or name.
            round: The round; None for the last that is stored.

        Raises:
            ConfigError: An argument is illegal, or names what does not exist.
            DataError: The image cannot be read.
            RecordError: The round is not stored.
        """
        way, given = self._one(input, image, text)
        other = None if against is None else str(against)
        found = explain_stored(self.folder, way, given, round, other, words)
        return replace(
            found.found, class_names=tuple(found.names), text=found.question.text, picture=found.question.pixels
        )

    def trace(self, *words: str, round: int | None = None) -> "pd.DataFrame":
        """Trace a stored round again, as ``tracefl trace`` does: a row for each traced input, as in ``inputs``.

        Args:
            words: Of the configuration's groups provenance, baselines and privacy.trace.
            round: The round; None for the last that is stored.

        Raises:
            ConfigError: A word is illegal, or pandas is not installed.
            RecordError: The round is not stored.
        """
        from tracefl.questions.retrace import retrace

        server_round, trace = retrace(self.folder, round, words)
        return self._frame(list(provenance_rows(server_round, trace.traced)), PROVENANCE_COLUMNS)

    def counterfactual(
        self,
        inputs: str | int | Sequence[int] = "traced",
        *words: str,
        shapley: str | None = None,
        permutations: int | None = None,
        round: int | None = None,
    ) -> "pd.DataFrame":
        """Leave each client out exactly, as ``tracefl counterfactual``: a row for each input and client.

        Args:
            inputs: ``traced``, ``all``, ``correct`` or ``mispredicted``, or positions in the server's examples.
            words: Of the configuration's groups provenance and privacy.trace.
            shapley: ``exact``, ``sampled`` or ``true`` to add Shapley values.
            permutations: Orders of the clients to estimate them from.
            round: The round; None for the last that is stored.

        Raises:
            ConfigError: An argument is illegal, or pandas is not installed.
            RecordError: The round is not stored, or has one client or no such input.
        """
        from tracefl.questions.counterfactual import leave_each_out
        from tracefl.report.counterfactual import COUNTERFACTUAL_COLUMNS, counterfactual_rows

        asked = (
            inputs if isinstance(inputs, str) else ",".join(map(str, [inputs] if isinstance(inputs, int) else inputs))
        )
        truth = leave_each_out(self.folder, round, asked, shapley=shapley, permutations=permutations, overrides=words)
        return self._frame(list(counterfactual_rows(truth)), COUNTERFACTUAL_COLUMNS)

    def ledger(self) -> "pd.DataFrame":
        """Return what each client contributed over the run, as ``tracefl ledger``: a row for each client and class.

        Raises:
            ConfigError: pandas is not installed.
            RecordError: A round is missing, or no prediction was traced.
        """
        from tracefl.questions.ledger import read_ledger
        from tracefl.report.ledger import LEDGER_COLUMNS, ledger_rows

        return self._frame(list(ledger_rows(read_ledger(self.folder))), LEDGER_COLUMNS)

    def replay(
        self,
        without: int | str | Sequence[int | str],
        without_from: int = 1,
        *,
        how: str | None = None,
        carry: float | None = None,
        words: Sequence[str] = (),
    ) -> "pd.DataFrame":
        """Replay the run without some clients, as ``tracefl replay``: a row for each round and class.

        Args:
            without: The clients to leave out.
            without_from: The first round without them.
            how: ``reaggregate`` or ``train``; None for the former where all weights are stored.
            carry: For averaging again, 0 to 1; None for the default.
            words: For training again: where, such as ``"dataset.path=/data/mnist"``, as ``tracefl replay`` takes them.

        Raises:
            ConfigError: An argument is illegal, or pandas is not installed.
            RecordError: A round is missing.
            TraceFLError: The retrained run cannot start, failed or was stopped.
        """
        from tracefl.questions.replay import HOWS, ReplayRequest, replay
        from tracefl.report.replay import REPLAY_COLUMNS, replay_rows

        if how is not None and how not in HOWS:
            raise ConfigError(f"how must be one of {', '.join(HOWS)}, got {how!r}")
        names = [without] if isinstance(without, int | str) else without
        ids = read_clients("without", ",".join(map(str, names)))
        request = ReplayRequest(self.folder, without_from, ids, how, carry, tuple(words))

        def train(
            run: StoredRun, name: str, first: int, clients: Sequence[str], words: Sequence[str]
        ) -> tuple[Path, str | None]:
            from tracefl.experiment.retraining import retrain  # Flower, only where it is needed

            return retrain(run, name, first, clients, words)

        return self._frame(list(replay_rows(replay(request, train))), REPLAY_COLUMNS)

    def __repr__(self) -> str:
        """Return the run's folder and how far it is."""
        done, wanted = self._stored.store.last_round, self._stored.settings.num_rounds
        return f"<Run {str(self.folder)!r}, {done} of {wanted} rounds>"

    def _positions(self, inputs: int | Sequence[int] | None, server_round: int) -> torch.Tensor:
        if inputs is None:
            traced = self.inputs
            asked = traced[traced["round"] == server_round]["input_index"].tolist()
            if not asked:
                raise RecordError(f"round {server_round} of {self.folder} traced no inputs; name some")
        else:
            asked = [inputs] if isinstance(inputs, int) else list(inputs)
        wrong = [number for number in asked if not 0 <= number < len(self.server)]
        if wrong or not asked:
            raise ConfigError(f"inputs={wrong or asked}: the server has examples 0 to {len(self.server) - 1}")
        return torch.tensor(asked)

    @staticmethod
    def _one(number: int | Sequence[int] | None, image: str | Path | None, text: str | None) -> tuple[str, str]:
        given = {way: value for way, value in zip(WAYS, (image, text, number), strict=True) if value is not None}
        if len(given) != 1:
            raise ConfigError(
                f"one input is asked about, got {' and '.join(given) or 'none'}; give one of {', '.join(WAYS)}"
            )
        ((way, value),) = given.items()
        return way, str(value)

    def _shown(self, examples: Examples, positions: torch.Tensor) -> dict[str, Any]:
        features = {name: tensor[positions] for name, tensor in examples.features.items()}
        if PIXELS in features:
            return {"pictures": features[PIXELS]}
        return {"texts": tuple(self._stored.encoder.decode(features))}

    def _table(self, name: str) -> "pd.DataFrame":
        if name not in self.tables:
            raise RecordError(f"{self.folder} has no {name}.csv: no round of it is finished")
        return self.tables[name].copy()

    @staticmethod
    def _parsed(csv: StringIO) -> "pd.DataFrame":
        return imported("pandas", "tables").read_csv(csv, dtype=dict.fromkeys(_TEXT_COLUMNS, "str"))

    @staticmethod
    def _frame(rows: list[dict[str, Any]], columns: Sequence[str] | None = None) -> "pd.DataFrame":
        return imported("pandas", "a table").DataFrame(rows, columns=None if columns is None else list(columns))
