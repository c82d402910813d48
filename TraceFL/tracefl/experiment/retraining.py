"""Training a run again without some of its clients, in a new folder beside it.

The new run is what ``tracefl run`` would do on this machine with the run's configuration, ``without=`` and
``without_from=``. Its rounds before ``without_from`` are the run's own: copied if the run kept the global model that
training continues from, otherwise trained again.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from tracefl.errors import ConfigError, RecordError, RunStopped, TraceFLError
from tracefl.experiment.runner import run_settings
from tracefl.experiment.settings import read_settings
from tracefl.records.checksums import CHECKSUMS, check_file
from tracefl.records.claim import is_claimed
from tracefl.records.folder import RunFolder
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings
from tracefl.records.store import RoundStore
from tracefl.records.weights import sync


def retrain(run: StoredRun, name: str, without_from: int, without: Sequence[str]) -> tuple[Path, str | None]:
    """Train a run again without some clients; an unfinished new run is resumed, a complete one left as it is.

    Args:
        run: The run.
        name: Suffix of the new folder's name.
        without_from: First round without the clients.
        without: Ids of the clients.

    Returns:
        The new run's folder, and a note on the origin of its first rounds, or None.

    Raises:
        TraceFLError: The run cannot be trained without them, failed or was stopped.
    """
    settings = _settings(run, name, without_from, without)
    folder = settings.folder
    if RunFolder(folder, settings).is_complete:
        return folder, f"{folder} was there already"
    is_new = not folder.exists()
    note = _take_over(run, settings, without_from) if is_new and without_from > 1 else None
    clients = ",".join(without)
    command = shlex.join(
        ["tracefl", "replay", str(run.folder), f"without_from={without_from}", f"without={clients}", "how=train"]
    )
    try:
        run_settings(settings, command=command)
    except RunStopped as error:
        raise RunStopped(f"{str(error).partition(';')[0]}; the same command goes on", error.exit_status) from error
    except TraceFLError:
        refused = is_new and folder.exists() and not (folder / "run.log").exists()  # before it began
        if refused and not is_claimed(folder):
            shutil.rmtree(folder)
        raise
    return folder, note


def _settings(run: StoredRun, name: str, without_from: int, without: Sequence[str]) -> Settings:
    """Return the run's settings without the clients."""
    if run.is_deployed:
        raise ConfigError(
            f"{run.folder} is a deployment's run, whose clients' data are not here; how=reaggregate needs none, but a "
            "run with store=all"
        )
    folder = run.folder.resolve()
    before, since = list(run.settings.without), run.settings.without_from
    if before and since != without_from:
        raise ConfigError(
            f"{run.folder} is itself without clients {before} from round {since} on, and a run leaves all out from one "
            f"round on; give without_from={since}, or how=reaggregate"
        )
    changes = {
        **dict.fromkeys(("total_cpus", "total_gpus")),
        "runs_at_once": 1,
        "ray": {"address": None},
        "without": sorted({*before, *map(int, without)}),
        "without_from": without_from,
        "run_name": f"{folder.name}-{name}",
        "exp_key": folder.parent.name,
        "log_dir": str(folder.parent.parent),
        "resume": True,
        "overwrite": False,
    }
    return read_settings(OmegaConf.create({**run.settings.resolved, **changes}))


def _take_over(run: StoredRun, settings: Settings, without_from: int) -> str:
    """Copy the rounds before ``without_from`` into a run to be resumed, all or none; return a note on the outcome."""
    last, source = without_from - 1, run.folder / "rounds"
    try:
        RoundStore(source).read_global(last)
        for number in range(1, without_from):
            check_file(source / f"{number:04d}", "round.json")
    except RecordError as error:
        return f"the rounds before were trained again too: {error}"
    draft = settings.folder.with_name(f".{settings.folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for number in range(1, without_from):
            place = draft / "rounds" / f"{number:04d}"
            place.mkdir(parents=True)
            for file in ("round.json", CHECKSUMS, *(["global.safetensors"] if number == last else [])):
                shutil.copyfile(source / f"{number:04d}" / file, place / file)
        OmegaConf.save(OmegaConf.create(dict(settings.resolved)), draft / "config.yaml")
        sync(draft)
        draft.rename(settings.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return f"rounds 1 to {last} of the new run are those of {run.folder}"
