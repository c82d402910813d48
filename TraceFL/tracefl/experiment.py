"""One run from its settings: data, federation, provenance after each round, records."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracefl.config import Settings
from tracefl.datasets import FederatedData, load_source, prepare, save_examples, training_texts
from tracefl.environment import describe_environment
from tracefl.errors import DataError
from tracefl.models import ModelSpec, TextEncoder, build_text_encoder, check_max_tokens, initial_model, model_spec
from tracefl.observer import Observer
from tracefl.provenance import summarize
from tracefl.report.figures import draw_run
from tracefl.rounds import RoundResult
from tracefl.seeds import derive_seed
from tracefl.server_app import FederationHooks, FederationPlan
from tracefl.simulation import Resources, simulate
from tracefl.strategy import RoundOutcome
from tracefl.tracing import RoundTrace, trace_round
from tracefl.tracking import RunFolder
from tracefl.training import Evaluation, evaluate

log = logging.getLogger(__name__)

_TOKENIZER_TEXTS = 20_000  # documents that a tokenizer is trained on, at most


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that exists before the first round."""

    data: FederatedData
    spec: ModelSpec
    model: nn.Module
    encoder: TextEncoder | None


def prepare_run(settings: Settings) -> Prepared:
    """Load the data, partition it and make the initial global model; nothing is written.

    Raises:
        ConfigError: The model cannot be made as asked.
        DataError: The data cannot be had, or too few clients can take part.
    """
    seed = int(settings.config["seed"])
    raw = load_source(settings.dataset, seed)
    encoder = None
    if raw.kind == "text":
        encoder = build_text_encoder(settings.model, lambda: training_texts(raw, _TOKENIZER_TEXTS))
    spec = model_spec(settings.model, raw.num_classes, encoder)
    encode = None
    if encoder is not None:
        max_tokens = settings.dataset.max_tokens
        check_max_tokens(spec, max_tokens)
        tokenizer = encoder

        def encode(texts: list[str]) -> dict[str, torch.Tensor]:
            return tokenizer.encode(texts, max_tokens)

    data = prepare(
        raw,
        settings.dataset,
        settings.partition,
        settings.config["num_clients"],
        settings.training.batch_size,
        seed,
        encode,
    )
    wanted = settings.config["clients_per_round"]
    if wanted > len(data.clients):
        raise DataError(
            f"clients_per_round={wanted}, and only {len(data.clients)} of {settings.config['num_clients']} clients "
            f"hold a full batch of {settings.training.batch_size}; lower clients_per_round, batch_size or "
            "num_clients, or raise dirichlet_alpha"
        )
    return Prepared(data, spec, initial_model(settings.model, spec, derive_seed(seed, "model")), encoder)


class Experiment:
    """A prepared run with its folder; ``run`` trains, traces and records every round."""

    def __init__(
        self, settings: Settings, prepared: Prepared, folder: RunFolder, observers: tuple[Observer, ...]
    ) -> None:
        self.settings = settings
        self.prepared = prepared
        self.folder = folder
        self.observers = observers
        self._round_began = 0.0

    def run(self) -> Mapping[str, Any]:
        """Run all rounds and return what results.json says.

        Raises:
            RoundFailedError: Too few clients answered; earlier rounds stay recorded.
        """
        began = time.perf_counter()
        self._write_inputs()
        for note in self.prepared.data.notes:
            log.info("data: %s", note)
        for observer in self.observers:
            observer.run_started(self.settings.config["num_rounds"])
        hooks = FederationHooks(self._sampled, self._replied, self._aggregated)
        resources = self.settings.config["client_resources"]
        simulate(
            self._plan(),
            hooks,
            Resources(
                self.settings.config["total_cpus"],
                self.settings.total_gpus,
                resources["cpus"],
                self.settings.client_gpus,
            ),
        )
        results = self._results(time.perf_counter() - began)
        draw_run(self.folder.results(), self.prepared.data, self.folder.path / "rounds.png")
        self.folder.finish(results)
        return results

    def _plan(self) -> FederationPlan:
        config = self.settings.config
        strategy = config["strategy"]
        return FederationPlan(
            client_ids=tuple(self.prepared.data.clients),
            num_clients=config["num_clients"],
            num_rounds=config["num_rounds"],
            clients_per_round=config["clients_per_round"],
            min_clients=strategy["min_clients"],
            timeout_seconds=strategy["timeout_seconds"],
            strategy=strategy["name"],
            proximal_mu=strategy["proximal_mu"],
            seed=config["seed"],
            initial_weights=dict(self.prepared.model.state_dict()),
            client_job=json.dumps(
                {
                    "model": self.prepared.spec.to_json(),
                    "training": dataclasses.asdict(self.settings.training),
                    "data_path": str(self.folder.work.resolve()),
                    "device": self.settings.device,
                    "threads": config["client_resources"]["cpus"],
                    "seed": config["seed"],
                }
            ),
        )

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
        model, data, record = self.prepared.model, self.prepared.data, outcome.record
        model.load_state_dict(dict(record.global_weights))
        evaluate_began = time.perf_counter()
        evaluation = evaluate(model, data.server, device=self.settings.device)
        evaluate_seconds = time.perf_counter() - evaluate_began
        provenance = self.settings.provenance
        trace = RoundTrace((), 0.0, 0.0)
        if provenance is not None and record.server_round % provenance.every == 0:
            trace = trace_round(
                model, record, data.server, evaluation.predicted, data.label_counts, provenance, self.settings.device
            )
        row = _row(outcome, evaluation, trace, train_seconds, evaluate_seconds)
        result = RoundResult(row, trace.traced, record.client_weights, dict(outcome.left_out))
        self.folder.rounds.commit(result, record)
        self.folder.append()
        for observer in self.observers:
            observer.round_finished(result)

    def _results(self, seconds: float) -> dict[str, Any]:
        rows = [result.row for result in self.folder.results()]
        return {
            "run": self.folder.path.name,
            "seed": self.settings.config["seed"],
            "rounds": len(rows),
            "final": rows[-1],
            "mean": {name: _mean([row[name] for row in rows]) for name in rows[-1] if name != "round"},
            "clients_left_out": sum(row["clients_left_out"] for row in rows),
            "classes": list(self.prepared.data.label_names),
            "seconds": round(seconds, 3),
            **describe_environment(self.settings.device),
        }


def save_inputs(folder: Path, prepared: Prepared) -> None:
    """Write the server's examples, label counts, architecture and tokenizer into a run's folder."""
    data = prepared.data
    save_examples(folder / "server.safetensors", data.server)
    (folder / "model.json").write_text(prepared.spec.to_json() + "\n")
    counts = {"label_names": list(data.label_names), "label_counts": data.label_counts.tolist()}
    (folder / "label_counts.json").write_text(json.dumps(counts) + "\n")
    if prepared.encoder is not None:
        prepared.encoder.save(folder / "tokenizer")


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
