"""One run from its settings: data, federation, provenance after each round, records."""

import dataclasses
import json
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from tracefl.config import Settings
from tracefl.datasets import save_examples
from tracefl.environment import describe_environment
from tracefl.models import initial_model
from tracefl.observer import Observer
from tracefl.preparation import Prepared, save_inputs
from tracefl.privacy.accounting import PrivacyLedger, client_dp_sgd
from tracefl.provenance import RoundRecord, summarize
from tracefl.provenance.capture import traced_layers
from tracefl.report.figures import draw_run
from tracefl.rounds import RoundResult
from tracefl.seeds import derive_seed
from tracefl.server_app import Federation, FederationHooks, FederationPlan
from tracefl.strategy import RoundOutcome
from tracefl.tracing import RoundTrace, trace_round
from tracefl.tracking import RunFolder
from tracefl.training import Evaluation, evaluate

log = logging.getLogger(__name__)

_NO_MEAN = ("round", "epsilon_by_client")


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
        self.ledger = self._ledger()
        self.folder = folder
        self.observers: tuple[Observer, ...] = ()
        self._round_began = 0.0
        self._writer: ThreadPoolExecutor
        self._writing: Future[None] | None = None

    def run(self, federation: Federation, observers: tuple[Observer, ...]) -> None:
        """Run all rounds, record each, and write the results.

        Args:
            federation: The clients, by the ids of the prepared data.
            observers: Who follows the run.

        Raises:
            RoundFailedError: Too few clients answered; earlier rounds stay recorded.
        """
        began = time.perf_counter()
        self.observers = observers
        self._write_inputs()
        for note in self.prepared.data.notes:
            log.info("data: %s", note)
        for observer in self.observers:
            observer.run_started(self.settings.config["num_rounds"])
        hooks = FederationHooks(self._sampled, self._replied, self._aggregated)
        with ThreadPoolExecutor(1) as self._writer:
            try:
                federation.run(self._plan(), hooks)
            finally:
                self._wait_for_writing()
        results = self._results(time.perf_counter() - began)
        draw_run(self.folder.results(), self.prepared.data, self.folder.path / "rounds.png")
        self.folder.finish(results)

    def _plan(self) -> FederationPlan:
        config = self.settings.config
        strategy = config["strategy"]
        return FederationPlan(
            client_ids=tuple(self.prepared.data.clients),
            num_rounds=config["num_rounds"],
            clients_per_round=config["clients_per_round"],
            min_clients=strategy["min_clients"],
            timeout_seconds=strategy["timeout_seconds"],
            strategy=strategy["name"],
            proximal_mu=strategy["proximal_mu"],
            seed=config["seed"],
            initial_weights=dict(self.model.state_dict()),
            num_examples={client_id: len(examples) for client_id, examples in self.prepared.data.clients.items()},
            privacy=self.settings.privacy,
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
                    "num_rounds": config["num_rounds"],
                    "data_path": str(self.folder.work.resolve()),
                    "device": self.settings.device,
                    "threads": config["client_resources"]["cpus"],
                    "seed": config["seed"],
                }
            ),
        )

    def _ledger(self) -> PrivacyLedger | None:
        """Return the account of DP-SGD, None without it; refuses a model that cannot be trained so.

        Raises:
            ConfigError: Naming the layer, or the target that cannot be met.
        """
        privacy, data = self.settings.privacy, self.prepared.data
        if not privacy.is_dp_sgd:
            return None
        from tracefl.privacy.per_sample import check_per_sample_gradients  # brings Opacus

        check_per_sample_gradients(self.model, *data.server.batch(torch.arange(min(2, len(data.server)))))
        clients = {
            client_id: client_dp_sgd(privacy, self.settings.training, len(examples), self.settings.config["num_rounds"])
            for client_id, examples in data.clients.items()
        }
        assert privacy.target_delta is not None
        return PrivacyLedger(clients, privacy.target_delta)

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
        self.folder.work.mkdir()
        for client_id, examples in data.clients.items():
            save_examples(self.folder.work / f"client-{client_id}.safetensors", examples)
        save_inputs(self.folder.path, self.prepared)

    def _sampled(self, server_round: int, clients: tuple[str, ...]) -> None:
        self._round_began = time.perf_counter()
        log.info("round=%d clients sampled: %s", server_round, " ".join(clients))
        for observer in self.observers:
            observer.round_started(server_round, clients)

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
        evaluate_seconds = time.perf_counter() - evaluate_began
        provenance = self.settings.provenance
        trace = RoundTrace((), 0.0, 0.0)
        if provenance is not None and record.server_round % provenance.every == 0:
            predicted = evaluation.predicted
            if self.settings.privacy.trace == "before_noise":
                record = record.without_noise()
                model.load_state_dict(dict(record.global_weights))
                predicted = evaluate(model, data.server, device=self.settings.device).predicted
            trace = trace_round(
                model, record, data.server, predicted, data.label_counts, provenance, self.settings.device
            )
        row = _row(outcome, evaluation, trace, train_seconds, evaluate_seconds) | self._privacy_columns(outcome)
        result = RoundResult(row, trace.traced, record.client_weights, dict(outcome.left_out))
        self._wait_for_writing()
        self._writing = self._writer.submit(self._write, result, outcome.record)  # while the next round's clients train
        for observer in self.observers:
            observer.round_finished(result)

    def _write(self, result: RoundResult, record: RoundRecord) -> None:
        self.folder.rounds.commit(result, record)
        self.folder.append()

    def _wait_for_writing(self) -> None:
        """Wait until the round before is on the disk; raises what its writing raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _results(self, seconds: float) -> dict[str, Any]:
        rows = [result.row for result in self.folder.results()]
        return {
            "run": self.folder.path.name,
            "seed": self.settings.config["seed"],
            "rounds": len(rows),
            "final": rows[-1],
            "mean": {name: _mean([row[name] for row in rows]) for name in rows[-1] if name not in _NO_MEAN},
            "clients_left_out": sum(row["clients_left_out"] for row in rows),
            "classes": list(self.prepared.data.label_names),
            "seconds": round(seconds, 3),
            **describe_environment(self.settings.device),
        }


def _row(
    outcome: RoundOutcome, evaluation: Evaluation, trace: RoundTrace, train_seconds: float, evaluate_seconds: float
) -> dict[str, Any]:
    """Return a round's row of rounds.csv."""
    return {
        "round": outcome.record.server_round,
        "global_loss": evaluation.loss,
        "global_accuracy": evaluation.accuracy,
        **dataclasses.asdict(summarize(trace.traced)),
        "clients": len(outcome.record.clients),
        "clients_left_out": len(outcome.left_out),
        "train_loss": outcome.train_loss,
        "train_seconds": round(train_seconds, 3),
        "evaluate_seconds": round(evaluate_seconds, 3),
        "provenance_seconds": round(trace.provenance_seconds, 4),
        "counterfactual_seconds": round(trace.counterfactual_seconds, 4),
    }


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of what was measured, None where nothing was."""
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None
