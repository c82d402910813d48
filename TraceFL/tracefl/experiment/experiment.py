"""The parts of a run, and what it does with each round: evaluation, provenance, mitigation."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from tracefl.common.seeds import derive_seed
from tracefl.errors import ConfigError
from tracefl.experiment.mitigation.decision import Mitigation
from tracefl.experiment.mitigation.evidence import mitigate_round
from tracefl.experiment.preparation import Prepared, save_clients, save_inputs
from tracefl.experiment.privacy import make_accountant, privacy_columns, resumed_privacy
from tracefl.experiment.results import round_row
from tracefl.federation.participation import Participation
from tracefl.federation.plan import FederationPlan, Joined, RoundOutcome
from tracefl.federation.selection import read_selection
from tracefl.learning.measures import measure, measure_columns
from tracefl.learning.models import initial_model
from tracefl.learning.privacy.accounting import client_dp_sgd
from tracefl.learning.privacy.settings import DpSgdSettings, ServerPrivacy
from tracefl.learning.training import Evaluation, evaluate, why_untrainable
from tracefl.provenance import RoundRecord, StandOuts
from tracefl.provenance.traced import trace
from tracefl.questions.baselines import NEED_HISTORY
from tracefl.questions.stand_outs import add_round
from tracefl.questions.suspects import Row
from tracefl.questions.trace import RoundTrace, Tracer
from tracefl.records.folder import RunFolder
from tracefl.records.recent import RecentRounds
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings
from tracefl.records.strategies import ProximalSettings

log = logging.getLogger(__name__)

MAX_WEIGHT_MULTIPLE = 3.0
"""Of the round's median number of examples, by which no client of a deployment is weighted, where nothing is said."""


class Experiment:
    """A prepared run: its data, model and rules. ``session.run_session`` trains it.

    Args:
        settings: The configuration.
        prepared: What the run starts from.
        folder: Where the run is recorded.

    Raises:
        ConfigError: The initial model cannot be made as configured, or cannot be trained, or not with privacy.
        LayerNotTraceableError: A layer named in ``provenance.layers`` cannot be traced.
    """

    def __init__(self, settings: Settings, prepared: Prepared, folder: RunFolder) -> None:
        self.settings = settings
        self.prepared = prepared
        self.folder = folder
        seed = derive_seed(settings.seed, "model")
        self.model = initial_model(settings.model, prepared.spec, seed, prepared.data.server)
        if settings.provenance is not None and settings.provenance.method.layers is not None:
            trace(self.model, settings.provenance.method.layers, settings.provenance.method.also)
        if reason := why_untrainable(self.model, prepared.data.server, settings.batch_size):
            raise ConfigError(
                f"no client can train this model on batches of {settings.batch_size}: {reason}; change "
                "batch_size, or the model"
            )
        held = prepared.data.label_counts.sum(dim=1).tolist()
        self.num_examples = {str(client): examples for client, examples in enumerate(held) if examples}
        self.tracer = self._tracer()
        self.recent: RecentRounds | None = None
        if self.tracer is not None and NEED_HISTORY.intersection(self.tracer.baselines):
            self.recent = RecentRounds(folder.work / "rounds", settings.baselines.history)
        self.privacy = resumed_privacy(settings.privacy, ())
        self.accountant = make_accountant(settings, self.model, prepared.data.server, self.num_examples)
        self.stand_outs = StandOuts() if settings.provenance is None else StandOuts(settings.provenance.false_alarms)
        self.selection = read_selection(settings.strategy)
        self.participation = Participation(max_refusals=settings.strategy.max_refusals)
        self.exclude_without(1)
        self.mitigation: Mitigation | None = None
        if settings.mitigate is not None:
            least = max(2, settings.strategy.min_clients, settings.strategy.fewest_clients)
            self.mitigation = Mitigation(settings.mitigate, self.participation, least)

    @property
    def bytes_needed(self) -> int:
        """Maximum disk space the run needs, for the weights it keeps and the examples of clients and server."""
        settings, data = self.settings, self.prepared.data
        weights = self.folder.rounds.bytes_needed(
            self.model.state_dict(),
            settings.clients_per_round,
            settings.num_rounds,
            with_noise=isinstance(settings.privacy, ServerPrivacy),
        )
        if self.recent is not None:
            kept = min(settings.baselines.history + 1, settings.num_rounds)  # one is added before one is deleted
            whole = sum(tensor.nbytes for tensor in self.model.state_dict().values())
            weights += kept * (settings.clients_per_round + 3) * whole
        faulty = {} if self.prepared.fault is None else self.prepared.fault.examples
        everyone = (*data.clients.values(), data.server, *faulty.values())
        return weights + sum(tensor.nbytes for examples in everyone for tensor in examples.features.values())

    def resume(self, rounds: Sequence[RoundResult]) -> None:
        """Take up the rounds that earlier sessions recorded, in order."""
        if self.prepared.client_job is not None and rounds:
            self._admit_recorded_clients()
        self.exclude_without(len(rounds) + 1)
        self.privacy = resumed_privacy(self.settings.privacy, rounds)
        for result in rounds:
            for client_id in result.refused:
                self.participation.refuse(client_id)
            if self.accountant is not None:
                self.accountant.add_round((*result.client_weights, *result.dropped))
            self.stand_outs.add(result.server_round, result.class_suspicions)
            if self.selection is not None:
                self.selection.ledger.add_round(result)
            if self.mitigation is not None:
                self.mitigation.restore(result.mitigation)

    def write_inputs(self) -> None:
        """Write what the clients read and what later questions need, and free the memory of the clients' examples."""
        self.prepared = save_clients(self.folder.work, self.prepared)
        save_inputs(self.folder, self.prepared)

    def recall(self, rounds_done: int) -> None:
        """Take up, for the rules that look back, those of the last rounds whose weights earlier sessions stored."""
        if self.recent is None:
            return
        wanted = min(self.settings.baselines.history, rounds_done)
        stored = self.folder.rounds.stored_before(rounds_done + 1, wanted)
        for number in stored:
            self.recent.add(self.folder.rounds.read(number, self.model.state_dict()))
        if len(stored) < wanted:
            log.warning(
                "%s look back at %d of the %d rounds before round %d: no other weights of them are stored",
                ", ".join(name for name in self.settings.baselines.rules if name in NEED_HISTORY),
                len(stored),
                wanted,
                rounds_done + 1,
            )

    def plan(self, rounds_done: int) -> FederationPlan:
        """Return the plan of the rounds after ``rounds_done``."""
        settings, prepared = self.settings, self.prepared
        strategy, privacy = settings.strategy, settings.privacy
        start = self.folder.rounds.read_global(rounds_done) if rounds_done else self.model.state_dict()
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        firsts = {parameter: name for name, parameter in self.model.named_parameters()}
        deployed = prepared.client_job is not None  # there, how many examples a client has is its own word
        return FederationPlan(
            client_ids=tuple(self.num_examples),
            num_rounds=settings.num_rounds,
            clients_per_round=settings.clients_per_round,
            min_clients=max(strategy.min_clients, strategy.fewest_clients - 1),  # a round of these counts, untraced
            timeout_seconds=strategy.timeout_seconds,
            strategy=strategy.name,
            proximal_mu=strategy.proximal_mu if isinstance(strategy, ProximalSettings) else 0.0,
            aggregation=strategy.aggregation,
            seed=settings.seed,
            initial_weights={name: start[name] for name in self.model.state_dict()},  # in the model's order
            rounds_done=rounds_done,
            num_examples=self.num_examples,
            privacy=self.privacy,
            selection=self.selection,
            participation=self.participation,
            trainable=tuple(name for name, parameter in parameters.items() if parameter.requires_grad),
            frozen=tuple(name for name, parameter in parameters.items() if not parameter.requires_grad),
            tied={name: firsts[parameter] for name, parameter in parameters.items() if firsts[parameter] != name},
            max_update_norm=strategy.max_update_norm,
            max_weight=strategy.max_weight,
            max_weight_multiple=MAX_WEIGHT_MULTIPLE if deployed and strategy.max_weight is None else None,
            training=settings.training,
            client_job=json.dumps(
                {
                    "model": prepared.spec.to_json(),
                    "training": dataclasses.asdict(settings.training),
                    "dp_sgd": dataclasses.asdict(privacy) if isinstance(privacy, DpSgdSettings) else None,
                    "fault": None if prepared.truth is None else prepared.truth.to_json(),
                    "num_rounds": settings.num_rounds,
                    # simulated clients read prepared examples, deployed ones prepare their own
                    "data_path": None if prepared.client_job else str(self.folder.work.resolve()),
                    "data": prepared.client_job,
                    "device": settings.device,
                    "threads": settings.client_resources.cpus,
                    "seed": settings.seed,
                }
            ),
        )

    def admit(self, client_id: str, client: Joined) -> None:
        """Admit a client that joined after the run was prepared, or that now holds other examples."""
        self.prepared = self.prepared.with_client(client_id, client)
        self.num_examples[client_id] = sum(client.counts)
        self.tracer = self._tracer()
        settings = self.settings
        if self.accountant is not None and isinstance(settings.privacy, DpSgdSettings):
            dp_sgd = client_dp_sgd(settings.privacy, settings.training, sum(client.counts), settings.num_rounds)
            self.accountant.clients[client_id] = dp_sgd

    def exclude_without(self, server_round: int) -> None:
        """Exclude the clients of ``without`` once ``server_round`` has reached ``without_from``."""
        if server_round >= self.settings.without_from:
            self.participation.excluded.update(map(str, self.settings.without))

    def evaluate(self, weights: Mapping[str, Tensor]) -> Evaluation:
        """Evaluate a state dict of the model on the server's examples."""
        self.model.load_state_dict(dict(weights))
        return evaluate(self.model, self.prepared.data.server, device=self.settings.device)

    def assess(self, outcome: RoundOutcome, train_seconds: float, evaluate_seconds: float = 0.0) -> RoundResult:
        """Measure and trace a round, and decide about its clients; the next round then samples accordingly.

        Args:
            outcome: The round.
            train_seconds: Wall time of the clients' training.
            evaluate_seconds: Wall time of the evaluation that it comes with.
        """
        model, data, record, evaluation = self.model, self.prepared.data, outcome.record, outcome.evaluation
        model.load_state_dict(dict(record.global_weights))
        began = time.perf_counter()
        measures = measure(model, data.server, data.num_classes, self.prepared.truth, self.settings.device, evaluation)
        evaluate_seconds += time.perf_counter() - began
        trace, stand_outs, mitigated = self._trace(record, evaluation)
        if self.recent is not None and record.server_round < self.settings.num_rounds:
            self.recent.add(record)
        row = round_row(outcome, trace, train_seconds, evaluate_seconds)
        row |= privacy_columns(outcome, self.accountant) | measure_columns(measures)
        result = RoundResult(
            row=row,
            traced=trace.traced,
            suspects=trace.suspects,
            client_weights=record.client_weights,
            dropped=dict(outcome.dropped),
            refused=tuple(outcome.refused),
            capped=dict(outcome.capped),
            mitigation=mitigated,
            class_suspicions=trace.class_suspicions,
            stand_outs=stand_outs,
            doubt=trace.doubt,
        )
        if self.selection is not None:
            self.selection.ledger.add_round(result)
        self.exclude_without(record.server_round + 1)
        return result

    def _admit_recorded_clients(self) -> None:
        """Admit deployed clients of earlier sessions that are not connected now, because recorded rounds name them."""
        run = StoredRun(self.folder.path)
        for client, counts in enumerate(run.label_counts.tolist()):
            if sum(counts) and str(client) not in self.num_examples:
                self.admit(str(client), Joined(counts, run.keys[str(client)]))

    def _tracer(self) -> Tracer | None:
        """Return the tracer of the rounds; None with ``provenance=off``."""
        settings, prepared = self.settings, self.prepared
        if settings.provenance is None:
            return None
        return Tracer(
            settings.provenance,
            prepared.data.label_counts,
            prepared.truth,
            settings.baselines.rules,
            settings.seed,
            settings.device,
        )

    def _trace(
        self, record: RoundRecord, evaluation: Evaluation | None
    ) -> tuple[RoundTrace, tuple[Row, ...], tuple[Row, ...]]:
        """Trace a round; with ``privacy.trace=before_noise``, its average without noise.

        Args:
            record: The round; the model holds its global weights.
            evaluation: That model's evaluation on the server's examples.

        Returns:
            The trace, rows of stand_outs.csv, and the decisions based on both as rows of mitigation.csv.
        """
        tracer, server = self.tracer, self.prepared.data.server
        if tracer is None or record.server_round % tracer.provenance.every:
            return RoundTrace(), (), ()
        if self.settings.traces_before_noise:
            record, evaluation = record.without_noise(), None
            self.model.load_state_dict(dict(record.global_weights))
        if self.recent is not None:
            tracer = dataclasses.replace(tracer, history=self.recent.readers)
        trace = tracer.trace(self.model, record, server, evaluation)
        if self.mitigation is None:
            return trace, add_round(self.stand_outs, record.server_round, trace.class_suspicions), ()
        able = self.num_examples.keys() - set(map(str, self.settings.without))
        found = mitigate_round(self.mitigation, self.stand_outs, tracer, trace, self.model, record, server, able)
        return found.trace, found.stand_outs, found.rows
