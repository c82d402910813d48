"""A stored round traced again, from a run's folder alone."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tracefl.errors import ConfigError
from tracefl.questions.baselines import NEED_HISTORY
from tracefl.questions.overrides import asks_before_noise, read_baselines, read_tracer
from tracefl.questions.trace import RoundTrace
from tracefl.records.run import StoredRun
from tracefl.records.settings import NO_MISPREDICTIONS

log = logging.getLogger(__name__)


def retrace(folder: Path, server_round: int | None = None, overrides: Sequence[str] = ()) -> tuple[int, RoundTrace]:
    """Trace a stored round from a run's folder alone.

    Args:
        folder: The run's folder.
        server_round: The round; None for the last stored one.
        overrides: Overrides of the groups provenance and baselines and of privacy.trace, as on the command line.

    Returns:
        The round and its trace.

    Raises:
        RecordError: The folder holds no run, or the round is not stored.
        ConfigError: An override is illegal.
    """
    run = StoredRun(folder)
    tracer = read_tracer(run, overrides)
    model, record = run.round(server_round, asks_before_noise(run, overrides))
    if tracer.baselines and not tracer.seeks_faulty and any(o.startswith("baselines") for o in overrides):
        raise ConfigError(f"baselines.rules={list(tracer.baselines)} {NO_MISPREDICTIONS}")
    if tracer.provenance.method.weakness:
        log.warning("provenance: %s", tracer.provenance.method.weakness)
    if NEED_HISTORY.intersection(tracer.baselines):
        before = run.store.stored_before(record.server_round, read_baselines(run, overrides).history)
        tracer = replace(tracer, history=tuple(partial(run.store.read, n, model.state_dict()) for n in before))
    return record.server_round, tracer.trace(model, record, run.server)
