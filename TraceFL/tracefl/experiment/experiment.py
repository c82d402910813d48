"""One run from its settings: data, federation, provenance after each round, records."""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from tracefl.common.environment import describe_environment, peak_memory
from tracefl.common.seeds import derive_seed
from tracefl.common.signals import StopRequest
from tracefl.errors import RunStopped
from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.experiment.mitigation.evidence import mitigate_round
from tracefl.experiment.mitigation.summary import mitigation_words, summarize_mitigation
from tracefl.experiment.preparation import Prepared, save_inputs, save_label_counts
from tracefl.experiment.results import _NO_MEAN, _row
from tracefl.experiment.settings import Settings
from tracefl.federation.participation import Participation
from tracefl.federation.plan import FederationHooks, FederationPlan, RoundOutcome
from tracefl.federation.selection import read_selection
from tracefl.federation.server import Federation
from tracefl.learning.datasets import save_examples
from tracefl.learning.measures import measure, measure_columns
from tracefl.learning.models import initial_model
from tracefl.learning.privacy import PrivacySettings
from tracefl.learning.privacy.accounting import DpSgd, PrivacyLedger, client_dp_sgd
from tracefl.learning.training import evaluate
from tracefl.provenance import RoundRecord
from tracefl.provenance.capture import traced_layers
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.suspects import Row, mean_suspects
from tracefl.questions.trace import RoundTrace, Tracer
from tracefl.records.folder import RunFolder
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.report.fault_figure import draw_label_counts
from tracefl.report.run_figure import draw_run

log = logging.getLogger(__name__)


class Experiment:
    """A prepared run; ``run`` trains, traces and records every round.

    Raises:
        ConfigError: The initial model cannot be made as asked.
        LayerNotTraceableError: A layer named in ``provenance.layers`` cannot be traced.
    """

    def __init__(self, settings: Settings, prepared: Prepared, folder: RunFolder) -> None:
        self.settings = settings
        self.prepared = prepared
        seed = derive_seed(settings.config["seed"], "model")
        self.model = initial_model(settings.model, prepared.spec, seed)
        if settings.provenance is not None and settings.provenance.method.layers is not None:
            traced_layers(self.model, settings.provenance.method.layers, settings.provenance.method.also)
        held = prepared.data.label_counts.sum(dim=1).tolist()
        self.num_examples = {str(client): examples for client, examples in enumerate(held) if examples}
        self.tracer = self._tracer()
        self.ledger = self._ledger()
        self.selection = read_selection(settings.config["strategy"])
        self.participation = Participation()
        self._leave_out(1)
        self.mitigation: Mitigation | None = None
        if settings.mitigation is not None:
            least = max(2, settings.config["strategy"]["min_clients"])
            self.mitigation = Mitigation(settings.mitigation, self.participation, least)
        self.folder = folder
        self.progress: Progress
        self.observers: tuple[Observer, ...] = ()
        self.stop: StopRequest
        self._round_began = 0.0
        self._writer: ThreadPoolExecutor
        self._writing: Future[None] | None = None

    def run(
        self, federation: Federation, progress: Progress, observers: tuple[Observer, ...], stop: StopRequest
    ) -> None:
        """Run the rounds that are still to do, record each, and write the results.

        Args:
            federation: The clients, by the ids of the prepared data.
            progress: Where to go on from.
            observers: Who follows the run.
            stop: Asked between two rounds.

        Raises:
            RoundFailedError: Too few clients answered; earlier rounds stay recorded.
            RunStopped: A signal asked for it; what is recorded can be gone on with.
            RecordError: A round cannot be written; earlier rounds stay recorded.
        """
        self.progress = progress
        self.observers = observers
        self.stop = stop
        if self.prepared.client_job is not None and progress.rounds_done:
            self._remember_clients()
        self._leave_out(progress.rounds_done + 1)
        self._write_inputs()
        for result in self.folder.rounds.results():
            if self.ledger is not None:
                self.ledger.add_round((*result.client_weights, *result.left_out))
            if self.selection is not None:
                self.selection.ledger.add_round(result)
            if self.mitigation is not None:
                self.mitigation.restore(result.mitigation)
        for note in self.prepared.data.notes:
            log.info("data: %s", note)
        for observer in self.observers:
            observer.run_started(progress)
        hooks = FederationHooks(self._sampled, self._replied, self._aggregated, self._joined)
        if progress.rounds_done < progress.num_rounds:
            with ThreadPoolExecutor(1) as self._writer:
                try:
                    federation.run(self._plan(), hooks)
                finally:
                    self._wait_for_writing()
        results = self._results()
        if results["mitigation"] is not None:
            log.info("%s", mitigation_words(results["mitigation"]))
        draw_run(self.folder.rows(), self.prepared.data, self.folder.path / "rounds.png")
        if self.prepared.fault is not None:
            draw_label_counts(self.prepared.fault, self.prepared.data, self.folder.path / "label_counts.png")
        self.folder.finish(results)

    @property
    def bytes_needed(self) -> int:
        """Disk that the run takes at most: what it keeps of its rounds, and the examples of clients and server."""
        config, data = self.settings.config, self.prepared.data
        weights = self.folder.rounds.bytes_needed(
            self.model.state_dict(),
            config["clients_per_round"],
            config["num_rounds"],
            with_noise=self.settings.privacy.is_central,
        )
        faulty = {} if self.prepared.fault is None else self.prepared.fault.examples
        everyone = (*data.clients.values(), data.server, *faulty.values())
        return weights + sum(tensor.nbytes for examples in everyone for tensor in examples.features.values())

    def _plan(self) -> FederationPlan:
        config = self.settings.config
        strategy = config["strategy"]
        done = self.progress.rounds_done
        return FederationPlan(
            client_ids=tuple(self.num_examples),
            num_rounds=config["num_rounds"],
            clients_per_round=config["clients_per_round"],
            min_clients=strategy["min_clients"],
            timeout_seconds=strategy["timeout_seconds"],
            strategy=strategy["name"],
            proximal_mu=strategy["proximal_mu"],
            seed=config["seed"],
            initial_weights=self.folder.rounds.read_global(done) if done else dict(self.model.state_dict()),
            rounds_done=done,
            num_examples=self.num_examples,
            privacy=self._privacy(),
            selection=self.selection,
            participation=self.participation,
            trainable=tuple(
                name
                for name, parameter in self.model.named_parameters(remove_duplicate=False)
                if parameter.requires_grad
            ),
            client_job=json.dumps(
                {
                    "model": self.prepared.spec.to_json(),
                    "training": dataclasses.asdict(self.settings.training),
                    "privacy": dataclasses.asdict(self.settings.privacy),
                    "fault": None if self.prepared.fault is None else self.prepared.fault.truth.to_json(),
                    "num_rounds": config["num_rounds"],
                    # where a simulation's clients find their examples; how a deployment's read their own
                    "data_path": None if self.prepared.client_job else str(self.folder.work.resolve()),
                    "data": self.prepared.client_job,
                    "device": self.settings.device,
                    "threads": config["client_resources"]["cpus"],
                    "seed": config["seed"],
                }
            ),
        )

    def _privacy(self) -> PrivacySettings:
        """Return the settings of privacy, those of an adaptive norm as the last recorded round left it."""
        privacy = self.settings.privacy
        if privacy.initial_clipping_norm is None or not self.progress.rounds_done:
            return privacy
        return dataclasses.replace(privacy, initial_clipping_norm=self.folder.rows()[-1]["next_clipping_norm"])

    def _ledger(self) -> PrivacyLedger | None:
        """Return the account of DP-SGD, None without it; refuses a model that cannot be trained so.

        Raises:
            ConfigError: Naming the layer, or the target that cannot be met.
        """
        privacy, data = self.settings.privacy, self.prepared.data
        if not privacy.is_dp_sgd:
            return None
        from tracefl.learning.privacy.per_sample import check_per_sample_gradients  # brings Opacus

        check_per_sample_gradients(self.model, *data.server.batch(torch.arange(min(2, len(data.server)))))
        clients = {client_id: self._dp_sgd(n) for client_id, n in self.num_examples.items()}
        assert privacy.target_delta is not None
        return PrivacyLedger(clients, privacy.target_delta)

    def _dp_sgd(self, num_examples: int) -> DpSgd:
        return client_dp_sgd(
            self.settings.privacy, self.settings.training, num_examples, self.settings.config["num_rounds"]
        )

    def _privacy_columns(self, outcome: RoundOutcome) -> dict[str, Any]:
        """Return a row's columns of privacy, None where the run has no such privacy."""
        spent = {}
        if self.ledger is not None:
            spent = self.ledger.add_round(sorted((*outcome.record.clients, *outcome.left_out), key=int))
        return {
            "clipping_norm": outcome.clipping_norm,
            "next_clipping_norm": outcome.next_clipping_norm,
            "epsilon": max(spent.values(), default=None),
            "epsilon_by_client": " ".join(f"{client}:{epsilon:.6g}" for client, epsilon in spent.items()) or None,
        }

    def _write_inputs(self) -> None:
        """Write what clients read, and what a stored round needs to be traced again."""
        data = self.prepared.data
        shutil.rmtree(self.folder.work, ignore_errors=True)  # a killed session's
        self.folder.work.mkdir()
        while data.clients:
            client_id, examples = data.clients.popitem()  # from here on they are in the files alone
            save_examples(self.folder.work / f"client-{client_id}.safetensors", examples)
        faulty = {} if self.prepared.fault is None else self.prepared.fault.examples
        while faulty:  # what they train on from the fault's first round
            client_id, examples = faulty.popitem()
            save_examples(self.folder.work / f"client-{client_id}-faulty.safetensors", examples)
        save_inputs(self.folder.path, self.prepared)

    def _sampled(self, server_round: int, clients: tuple[str, ...]) -> None:
        self._stop_if_asked()
        self._round_began = time.perf_counter()
        self.progress.round_started()
        log.info("round=%d clients sampled: %s", server_round, " ".join(clients))
        for observer in self.observers:
            observer.round_started(server_round, clients)

    def _joined(self, client_id: str, counts: Sequence[int]) -> None:
        """Let a client take part that was not there when the run was prepared."""
        self._admit(client_id, counts)
        save_label_counts(self.folder.path, self.prepared)

    def _admit(self, client_id: str, counts: Sequence[int]) -> None:
        self.prepared = self.prepared.with_client(client_id, counts)
        self.num_examples[client_id] = sum(counts)
        self.tracer = self._tracer()
        if self.ledger is not None:
            self.ledger.clients[client_id] = self._dp_sgd(sum(counts))

    def _remember_clients(self) -> None:
        """Know what deployed clients of earlier sessions held: those that are not there now are in stored rounds."""
        for client, counts in enumerate(StoredRun(self.folder.path).label_counts.tolist()):
            if sum(counts) and str(client) not in self.num_examples:
                self._admit(str(client), counts)

    def _replied(self) -> None:
        for observer in self.observers:
            observer.client_replied()

    def _aggregated(self, outcome: RoundOutcome) -> None:
        """Evaluate, trace and store a round; called in the server's thread while it waits."""
        train_seconds = time.perf_counter() - self._round_began
        model, data, record = self.model, self.prepared.data, outcome.record
        model.load_state_dict(dict(record.global_weights))
        evaluate_began = time.perf_counter()
        evaluation = evaluate(model, data.server, device=self.settings.device)
        fault = None if self.prepared.fault is None else self.prepared.fault.truth
        measures = measure(model, data.server, data.num_classes, fault, self.settings.device, evaluation)
        evaluate_seconds = time.perf_counter() - evaluate_began
        trace, mitigated = self._trace(record, evaluation.predicted)
        row = _row(outcome, evaluation, trace, train_seconds, evaluate_seconds) | self._privacy_columns(outcome)
        row |= measure_columns(measures)
        left_out = dict(outcome.left_out)
        result = RoundResult(row, trace.traced, trace.suspects, record.client_weights, left_out, mitigated)
        if self.selection is not None:  # before the next round's clients are drawn
            self.selection.ledger.add_round(result)
        self._wait_for_writing()
        # while the next round's clients train
        self._writing = self._writer.submit(self.folder.commit, result, outcome.record)
        self.progress.round_finished(record.server_round)
        self._leave_out(self.progress.rounds_done + 1)
        for observer in self.observers:
            observer.round_finished(result)
        if self.progress.rounds_done < self.progress.num_rounds:
            self._stop_if_asked()

    def _leave_out(self, server_round: int) -> None:
        """Leave out of a round and those after it whom the configuration leaves out from there on."""
        config = self.settings.config
        if server_round >= config["without_from"]:
            self.participation.excluded.update(map(str, config["without"]))

    def _tracer(self) -> Tracer | None:
        """Return what traces the rounds, None where provenance is off."""
        settings = self.settings
        if settings.provenance is None:
            return None
        fault = None if self.prepared.fault is None else self.prepared.fault.truth
        counts, seed = self.prepared.data.label_counts, settings.config["seed"]
        return Tracer(settings.provenance, counts, fault, settings.baselines, seed, settings.device)

    def _trace(self, record: RoundRecord, predicted: Tensor | None) -> tuple[RoundTrace, tuple[Row, ...]]:
        """Trace a round whose global weights the model holds; those without noise, where they are asked for.

        Returns:
            The trace, and what is decided of its mispredictions: rows of mitigation.csv.
        """
        tracer, server = self.tracer, self.prepared.data.server
        if tracer is None or record.server_round % tracer.provenance.every:
            return RoundTrace(), ()
        if self.settings.privacy.trace == "before_noise":
            record, predicted = record.without_noise(), None
            self.model.load_state_dict(dict(record.global_weights))
        trace = tracer.trace(self.model, record, server, predicted)
        if self.mitigation is None:
            return trace, ()
        able = self.num_examples.keys() - set(map(str, self.settings.config["without"]))
        rows, seconds = mitigate_round(self.mitigation, tracer, trace, self.model, record, server, able)
        return dataclasses.replace(trace, provenance_seconds=trace.provenance_seconds + seconds), rows

    def _mitigated(self) -> dict[str, Any] | None:
        """Return what was done about whom, None where nothing was to be; only here the truth is looked at."""
        if self.mitigation is None:
            return None
        truth = None if self.prepared.fault is None else self.prepared.fault.truth
        everyone_is_known = self.prepared.client_job is None
        return summarize_mitigation(self.mitigation.settings.name, self.folder.mitigation(), truth, everyone_is_known)

    def _stop_if_asked(self) -> None:
        """Stop after the round in hand, once it is on the disk."""
        if self.stop.signal is not None:
            self._wait_for_writing()
            done, of = self.progress.rounds_done, self.progress.num_rounds
            raise RunStopped(
                f"stopped by {self.stop.signal} after round {done} of {of}; the same command with resume=true goes on"
            )

    def _wait_for_writing(self) -> None:
        """Wait until the round before is on the disk; raises what its writing raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _results(self) -> dict[str, Any]:
        rows = self.folder.rows()
        return {
            "run": self.folder.path.name,
            "seed": self.settings.config["seed"],
            "rounds": len(rows),
            "final": rows[-1],
            "mean": {name: mean_measured([row[name] for row in rows]) for name in rows[-1] if name not in _NO_MEAN},
            "suspects": mean_suspects(self.folder.suspects()),
            "mitigation": self._mitigated(),
            "clients_left_out": sum(row["clients_left_out"] for row in rows),
            "classes": list(self.prepared.data.label_names),
            "fault": None if self.prepared.fault is None else self.prepared.fault.describe(),
            "seconds": round(self.progress.seconds, 3),
            "server_peak_memory_bytes": peak_memory(),
            **describe_environment(self.settings.device),
        }
