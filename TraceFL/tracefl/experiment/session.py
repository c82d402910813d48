"""One session of a run: its rounds from the start, or where an earlier session ended, to the end or the next stop."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor

from tracefl.common.signals import StopRequest
from tracefl.errors import RunStopped
from tracefl.experiment.experiment import Experiment
from tracefl.experiment.mitigation.summary import mitigation_words
from tracefl.experiment.preparation import save_label_counts
from tracefl.experiment.results import run_results
from tracefl.federation.plan import FederationHooks, Joined, RoundOutcome
from tracefl.federation.server import Federation
from tracefl.learning.training import Evaluation
from tracefl.provenance import RoundRecord
from tracefl.records.observer import Observer
from tracefl.records.progress import Progress
from tracefl.records.result import RoundResult, bounds_words
from tracefl.report.fault_figure import draw_label_counts
from tracefl.report.run_figure import draw_run
from tracefl.report.terminal import IN_BARS

log = logging.getLogger(__name__)


def run_session(
    experiment: Experiment,
    federation: Federation,
    recorded: Sequence[RoundResult],
    progress: Progress,
    observers: Sequence[Observer],
    stop: StopRequest,
) -> tuple[RoundResult, ...]:
    """Run the remaining rounds, record each, and write the results.

    Args:
        experiment: The run.
        federation: The clients, with the ids of the prepared data.
        recorded: The rounds of earlier sessions.
        progress: The run's progress, which is kept up to date.
        observers: Those that follow the run.
        stop: Checked between two rounds.

    Returns:
        The results of all rounds of the run, in order.

    Raises:
        RoundFailedError: Too few clients replied; earlier rounds stay recorded.
        RunStopped: A signal asked for a stop; the run can be resumed.
        RecordError: A round cannot be written; earlier rounds stay recorded.
    """
    experiment.resume(recorded)
    experiment.write_inputs()
    experiment.recall(len(recorded))
    prepared, folder = experiment.prepared, experiment.folder
    for note in prepared.data.notes:
        log.info("data: %s", note)
    if experiment.tracer is not None and experiment.tracer.provenance.method.weakness:
        log.warning("provenance: %s", experiment.tracer.provenance.method.weakness)
    for observer in observers:
        observer.run_started(progress)
    if progress.rounds_done < progress.num_rounds:

        def record(result: RoundResult, weights: RoundRecord) -> None:
            """Commit a round, and only then announce it."""
            folder.commit(result, weights)
            progress.round_finished(result.server_round)
            for observer in observers:
                observer.round_finished(result)

        with _writing(record) as writer:
            session = _Session(experiment, progress, observers, stop, writer)
            federation.run(experiment.plan(progress.rounds_done), session.hooks)
    prepared = experiment.prepared  # includes the clients that have joined
    rounds = (*recorded, *folder.rounds.results(first=len(recorded) + 1))
    results = run_results(folder.path.name, experiment.settings, prepared, rounds, progress.seconds)
    if results["mitigation"] is not None:
        log.info("%s", mitigation_words(results["mitigation"]))
    elif bounds := bounds_words(results["clients_refused"], results["clients_capped"]):
        log.info("%s", "; ".join(bounds))
    draw_run([result.row for result in rounds], prepared.data, folder.path / "rounds.png")
    if prepared.fault is not None:
        draw_label_counts(prepared.fault, prepared.data, folder.path / "label_counts.png")
    folder.finish(results)
    return rounds


class _Writer:
    """Records each round in a thread while the next round's clients train."""

    def __init__(self, executor: ThreadPoolExecutor, record: Callable[[RoundResult, RoundRecord], None]) -> None:
        self._executor = executor
        self._record = record
        self._writing: Future[None] | None = None

    def write(self, result: RoundResult, record: RoundRecord) -> None:
        """Start writing a round, once the previous one is on disk."""
        self.wait()
        self._writing = self._executor.submit(self._record, result, record)

    def wait(self) -> None:
        """Wait until the last round is on disk; raises any error of its writing."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


@contextmanager
def _writing(record: Callable[[RoundResult, RoundRecord], None]) -> Iterator[_Writer]:
    with ThreadPoolExecutor(1) as executor:
        writer = _Writer(executor, record)
        try:
            yield writer
        finally:
            writer.wait()


class _Session:
    """The federation's hooks: each round is announced, assessed, and handed to the writer."""

    def __init__(
        self,
        experiment: Experiment,
        progress: Progress,
        observers: Sequence[Observer],
        stop: StopRequest,
        writer: _Writer,
    ) -> None:
        self._experiment = experiment
        self._progress = progress
        self._observers = observers
        self._stop = stop
        self._writer = writer
        self._round_began = time.perf_counter()
        self._evaluate_seconds = 0.0  # of this round

    @property
    def hooks(self) -> FederationHooks:
        return FederationHooks(self._on_sampled, self._on_reply, self._evaluate, self._on_round, self._on_joined)

    def _on_sampled(self, server_round: int, clients: tuple[str, ...]) -> None:
        self._stop_if_asked()
        self._round_began, self._evaluate_seconds = time.perf_counter(), 0.0
        self._progress.round_started(server_round)
        log.info("round=%d clients sampled: %s", server_round, " ".join(clients), extra={IN_BARS: True})
        for observer in self._observers:
            observer.round_started(server_round, clients)

    def _on_reply(self) -> None:
        for observer in self._observers:
            observer.client_replied()

    def _evaluate(self, weights: Mapping[str, Tensor]) -> Evaluation:
        began = time.perf_counter()
        evaluation = self._experiment.evaluate(weights)
        self._evaluate_seconds += time.perf_counter() - began
        return evaluation

    def _on_round(self, outcome: RoundOutcome) -> None:
        """Assess and store a round; the server's thread waits only for the assessment."""
        seconds = time.perf_counter() - self._round_began - self._evaluate_seconds
        result = self._experiment.assess(outcome, seconds, self._evaluate_seconds)
        self._writer.write(result, outcome.record)
        if result.server_round < self._progress.num_rounds:
            self._stop_if_asked()

    def _on_joined(self, client_id: str, client: Joined) -> None:
        self._experiment.admit(client_id, client)
        save_label_counts(self._experiment.folder, self._experiment.prepared)

    def _stop_if_asked(self) -> None:
        """Stop after the current round, once it is on disk."""
        if self._stop.signal is not None:
            self._writer.wait()
            done, of = self._progress.rounds_done, self._progress.num_rounds
            raise RunStopped(
                f"stopped by {self._stop.signal} after round {done} of {of}; the same command with resume=true goes on"
            )
