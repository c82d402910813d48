"""Training a run again without some of its clients, in a new folder beside it.

The new run is what ``tracefl run`` would do on this machine with what decides the numbers of the run's configuration,
``without=`` and ``without_from=``. Where it happens, what it sends and where it reads (``naming.HERE``) is not said by
the stored configuration, which may be somebody else's. Its rounds before ``without_from`` are the run's own: copied if
the run kept the global model that training continues from, otherwise trained again.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tracefl.conf.composing import compose_config
from tracefl.errors import ConfigError, RecordError, RunStopped, TraceFLError
from tracefl.experiment.runner import run_settings
from tracefl.experiment.settings import read_settings
from tracefl.learning.models.hub import is_folder
from tracefl.records.checksums import CHECKSUMS, CheckedFiles, seal
from tracefl.records.claim import is_claimed
from tracefl.records.folder import RunFolder
from tracefl.records.naming import HERE, is_below
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings
from tracefl.records.weights import sync


def retrain(
    run: StoredRun, name: str, without_from: int, without: Sequence[str], words: Sequence[str] = ()
) -> tuple[Path, str | None]:
    """Train a run again without some clients; an unfinished new run is resumed, a complete one left as it is.

    Args:
        run: The run.
        name: Suffix of the new folder's name.
        without_from: First round without the clients.
        without: Ids of the clients.
        words: Keys of ``naming.HERE``, and of those of ``naming.NAMES_OR_PLACES`` that name a place, as on the command
            line.

    Returns:
        The new run's folder, and a note on the origin of its first rounds, or None.

    Raises:
        TraceFLError: The run cannot be trained without them, failed or was stopped.
    """
    settings = _settings(run, name, without_from, without, words)
    folder = settings.folder
    if RunFolder(folder, settings).is_complete:
        return folder, f"{folder} was there already"
    is_new = not folder.exists()
    note = _take_over(run, settings, without_from) if is_new and without_from > 1 else None
    clients = ",".join(without)
    asked = (f"without_from={without_from}", f"without={clients}", "how=train", *words)
    command = shlex.join(["tracefl", "replay", str(run.folder), *asked])
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


def _settings(run: StoredRun, name: str, without_from: int, without: Sequence[str], words: Sequence[str]) -> Settings:
    """Return the run's settings without the clients, here."""
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
    config = OmegaConf.create(dict(run.settings.resolved))
    for key, value in _here(run, words).items():
        OmegaConf.update(config, key, value, merge=False)
    changes = {
        "runs_at_once": 1,
        "dry_run": False,
        "without": sorted({*before, *map(int, without)}),
        "without_from": without_from,
        "run_name": f"{folder.name}-{name}",
        "exp_key": folder.parent.name,
        "log_dir": str(folder.parent.parent),
        "resume": True,
        "overwrite": False,
    }
    config.update(changes)
    return read_settings(config)


def _here(run: StoredRun, words: Sequence[str]) -> dict[str, Any]:
    """Return the keys that are not the stored configuration's to say: as given, else the default of each.

    The device and a client's CPUs decide how numbers are rounded: unless they are given, they are the run's.

    Raises:
        ConfigError: Another key is given, or what the run read lies on the machine that it was run on.
    """
    given, places = {word.partition("=")[0] for word in words}, _places(run.settings)
    for key in sorted(given):
        if not is_below(key, (*HERE, *places)):
            raise ConfigError(f"{key} decides the run's numbers, and stays; what may be given is {', '.join(HERE)}")
    for key, value in places.items():
        if key not in given:
            raise ConfigError(
                f"{run.folder} read {key}={value!r}, and what is read here is yours to say: give {key}= again, as it "
                "is or where it is now"
            )
    config = compose_config(words)
    kept = ("device", "client_resources.cpus")
    ours = [key for key in HERE if key not in (*kept, "client_resources")]
    return {key: OmegaConf.select(config, key) for key in (*ours, "client_resources.gpus", *given)}


def _places(settings: Settings) -> dict[str, str]:
    """Return the keys by which a run read files of the machine that it was run on."""
    data, model = settings.dataset, settings.model
    named = {"model.tokenizer": model.tokenizer} if model.kind == "text" else {}
    if data.source == "hub" and data.hub_id is None:
        named["dataset.name"] = data.name
    if model.family == "transformers":
        named["model.name"] = model.name
    places = {key: name for key, name in named.items() if name.startswith(("/", ".", "~")) or is_folder(name)}
    given = {"dataset.path": data.path, "dataset.root": data.root, "model.pretrained": model.pretrained}
    return places | {key: value for key, value in given.items() if isinstance(value, str)}


def _take_over(run: StoredRun, settings: Settings, without_from: int) -> str:
    """Copy the rounds before ``without_from`` into a run to be resumed, all or none; return a note on the outcome."""
    last, source = without_from - 1, run.folder / "rounds"
    try:
        run.store.read_global(last)
        for number in range(1, without_from):
            CheckedFiles(source / f"{number:04d}", "round", run.files).check("round.json")
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
        seal(draft)
        sync(draft)
        draft.rename(settings.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return f"rounds 1 to {last} of the new run are those of {run.folder}"
