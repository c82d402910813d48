"""A run as the page shows it, read from the run's folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tracefl.errors import RecordError
from tracefl.learning.examples import Examples
from tracefl.provenance import TracedInput
from tracefl.questions.trace import Tracer
from tracefl.records.reading import lacking_words
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings
from tracefl.records.status import RunState, read_run_state


@dataclass(frozen=True)
class RunRecord:
    """A run with at least one recorded round.

    Attributes:
        run: Its folder.
        state: How far it is.
        rounds: The recorded rounds, in order.
        environment: Versions and hardware, as ``describe_environment`` returns them; None where unknown.
        lacking: Of each recorded round that cannot be read, why not.
    """

    run: StoredRun
    state: RunState
    rounds: tuple[RoundResult, ...]
    environment: Mapping[str, Any] | None
    lacking: Mapping[int, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The run's configuration."""
        return self.run.settings

    @property
    def traced(self) -> list[tuple[int, TracedInput]]:
        """The traced inputs, each with its round."""
        return [(result.server_round, t) for result in self.rounds for t in result.traced]

    @property
    def faulty_clients(self) -> tuple[str, ...]:
        """Ids of the clients that are known to be faulty."""
        return () if self.run.fault is None else self.run.fault.clients

    @property
    def mispredictions(self) -> bool:
        """Mispredictions are traced, not correct predictions."""
        return self._tracer is not None and self._tracer.seeks_faulty

    def inputs(self) -> Examples:
        """Return the server's examples as they were traced: with the trigger, where the fault is a backdoor.

        Raises:
            RecordError: They are missing or damaged.
        """
        return self.run.server if self._tracer is None else self._tracer.examples_to_trace(self.run.server)

    @cached_property
    def _tracer(self) -> Tracer | None:
        """What is traced, by the run's own settings."""
        settings = self.settings.provenance
        return None if settings is None else Tracer(settings, self.run.label_counts, self.run.fault)


def read_record(
    folder: Path,
    state: RunState | None = None,
    environment: Mapping[str, Any] | None = None,
    rounds: Iterable[RoundResult] | None = None,
) -> RunRecord:
    """Read a run's folder, and of its rounds those that can be read.

    Args:
        folder: The run's folder.
        state: How far the run is; None to read it from the folder.
        environment: Versions and hardware, for a run that has no results.json yet.
        rounds: The results of all rounds; None to read them from the folder.

    Raises:
        RecordError: It is no run's, is damaged, or has no round that can be read.
    """
    run = StoredRun(folder)
    state = state or read_run_state(folder, run.settings.num_rounds)  # before the rounds: a run may still go on
    lacking: dict[int, str] = {}
    if rounds is None:
        rounds, lacking = run.readable(state.rounds_done)
    rounds = tuple(rounds)
    if not rounds and lacking:
        raise RecordError(f"{folder} has no round that can be read: {lacking_words(lacking)}; run it again")
    if not rounds:
        raise RecordError(f"{folder} has no recorded round: there is nothing to report yet")
    return RunRecord(run, state, rounds, run.environment or environment, lacking)
