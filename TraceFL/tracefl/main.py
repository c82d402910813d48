"""The command line: ``tracefl run [group=choice ...] [key=value ...]``."""

import dataclasses
import json
import logging
import os
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tracefl.common.imports import broken_library, heavy_imports, missing_library
from tracefl.common.streams import discard_output
from tracefl.conf.key_text import help_text
from tracefl.conf.tool import JSON, Grammar, answer_at_once, one_line_errors
from tracefl.errors import ConfigError, Failure, RunStopped, SweepError, TraceFLError, one_line

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from tracefl.report.forecast import Forecast

log = logging.getLogger(__name__)

GRAMMAR = Grammar(
    usage="tracefl run [group=choice ...] [key=value ...] [--multirun] [--json]",
    flags=("--multirun", "--config-dir", "--cfg", JSON),
    groups=None,
    first=None,
)

_BAD_INPUT = 2  # exit status


class Made(NamedTuple):
    """What came of a configuration.

    Attributes:
        folder: The run's.
        forecast: What the run would do, where it was only planned.
    """

    folder: Path
    forecast: "Forecast | None"


def main() -> None:
    """Run one experiment, or several with ``--multirun``; bad input is one line and exit status 2."""
    with one_line_errors():
        if answer_at_once(sys.argv[1:], help_text()):
            return
    try:
        import hydra
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from tracefl.conf.cli import explain_config_error, prepare_overrides, read_words
    except ModuleNotFoundError as error:
        _refuse(missing_library(error))
    except Exception as error:
        broken = broken_library(error)
        if broken is None:
            raise
        _refuse(broken)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting with 1
    answers = JSON in sys.argv
    made: list[Made] = []
    said = ""

    def task(cfg: "DictConfig") -> Failure | Path:
        outcome = _run(cfg, said)
        if isinstance(outcome, Failure):
            return outcome
        made.append(outcome)
        return outcome.folder

    if answers and any(map(_asks_for_several, sys.argv[1:])):
        _refuse(f"{JSON} is for one run; of a sweep, results.json in each run's folder has the same")
    try:
        words = [word for word in sys.argv[1:] if word != JSON]
        with redirect_stdout(sys.stderr) if answers else nullcontext():
            words, said = _say_which(read_words(words))
            sys.argv[1:] = prepare_overrides(words)
            hydra.main(version_base="1.3", config_path="conf", config_name="base")(task)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _refuse(explain_config_error(error))
    except SweepError as error:
        _refuse(one_line(error), error.exit_status)
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted while no round was made; the same command begins again\n")
        sys.stderr.flush()
        os._exit(130)  # the server's thread may still compute, after a second SIGINT
    if made and answers:
        with one_line_errors():
            sys.stdout.write(json.dumps(_answer(*made[0])) + "\n")


def _say_which(words: list[str]) -> tuple[list[str], str]:
    """Return the words that are run, and a line that says so; those that ask for no other run are the first run's.

    Args:
        words: Hydra's options, and after them ``key=value``.
    """
    from tracefl.records.naming import FIRST_RUN, asked_for, with_first_run

    whole = with_first_run(words)
    if whole != words:
        return whole, f"{shlex.join(['tracefl', 'run', *whole])}   (all keys: tracefl run --help)\n"
    if "experiment" in asked_for(words):
        return words, ""
    return words, f"base.yaml with the keys given   (tracefl run alone: {FIRST_RUN}; all keys: tracefl run --help)\n"


def _run(cfg: "DictConfig", said: str) -> Failure | Made:
    """Run one composed configuration, and return what came of it; in a sweep also what stopped it: the others go on."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_cfg = HydraConfig.get()
    in_sweep = hydra_cfg.mode == RunMode.MULTIRUN
    outcome: Failure | Made
    try:
        outcome = _attempt(cfg, hydra_cfg.job.num if in_sweep else 0, said)
    except RunStopped as error:
        if in_sweep and hydra_cfg.launcher._target_.endswith(".BasicLauncher"):
            raise SweepError(one_line(error), error.exit_status) from error  # the signal was for the whole sweep
        outcome = Failure(one_line(error), error.exit_status)
    except Exception as error:
        if not in_sweep:
            raise
        log.exception("an error that the input did not cause")  # here: only the run's own process has the traceback
        outcome = Failure(f"{type(error).__name__}: {one_line(error)}", 1)
    if isinstance(outcome, Failure) and not in_sweep:
        _refuse(outcome.message, outcome.exit_status)
    return outcome


def _attempt(cfg: "DictConfig", number: int, said: str) -> Failure | Made:
    """Run one composed configuration, given its number in the sweep; return what came of it, or what stopped it."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        from hydra.core.hydra_config import HydraConfig

        from tracefl.conf.cli import command_line, explain_config_error
        from tracefl.experiment.keys import check_keys
        from tracefl.records.claim import refuse_if_claimed
        from tracefl.records.settings import read_composed

        settings = read_composed(cfg)
        check_keys(settings)
        if not settings.dry_run and (settings.overwrite or not (settings.folder / "results.json").exists()):
            refuse_if_claimed(settings.folder)
        command = command_line(*_typed(HydraConfig.get()))
        if number == 0:
            _say(said)
        if "torch" not in sys.modules:
            _say(f"loading torch for {settings.folder.name}\n")
        with heavy_imports():
            from tracefl.common.environment import keep_own_gpus
            from tracefl.experiment.runner import run_settings
            from tracefl.experiment.settings import check_settings

        keep_own_gpus(number, settings.runs_at_once)
        forecast = run_settings(check_settings(settings), command=command)
    except ModuleNotFoundError as error:
        return Failure(missing_library(error), _BAD_INPUT)
    except RunStopped:
        raise
    except OmegaConfBaseException as error:
        return Failure(explain_config_error(error), _BAD_INPUT)
    except TraceFLError as error:
        return Failure(one_line(error), error.exit_status)
    except Exception as error:
        broken = broken_library(error)
        if broken is not None:
            return Failure(broken, _BAD_INPUT)
        if isinstance(error, OSError):
            return Failure(f"{error.strerror or one_line(error)}: {error.filename or 'no file named'}", 1)
        raise
    return Made(settings.folder, forecast)


def _asks_for_several(word: str) -> bool:
    """Return whether an argument asks for a sweep; every launcher but the default one starts one."""
    return (
        word in ("-m", "--multirun")
        or word.upper().startswith("HYDRA.MODE=MULTI")
        or (word.startswith("launcher=") and word != "launcher=local")
    )


def _answer(folder: Path, forecast: "Forecast | None") -> dict[str, Any]:
    """Return a run's results, or the forecast of one that was only planned, in JSON's types."""
    from tracefl.records.reading import read_results

    known = read_results(folder) if forecast is None else dataclasses.asdict(forecast)
    return {**{key: value for key, value in known.items() if key != "folder"}, "run": str(folder)}


def _typed(hydra_cfg: "HydraConf") -> tuple[list[str], str | None]:
    """Return the overrides of this run, and the folder of ``--config-dir``."""
    folders = [source.path for source in hydra_cfg.runtime.config_sources if source.provider == "command-line"]
    return list(hydra_cfg.overrides.task), folders[0] if folders else None


def _say(line: str) -> None:
    """Print a line before the run; a reader that has gone away, as `| head` does, does not end it."""
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def _refuse(message: str, status: int = _BAD_INPUT) -> NoReturn:
    sys.stderr.write(f"tracefl: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is closed, and freeing millions of objects one by one would take more than a second
