"""The program that Flower starts for the server: it turns a run configuration into a run of ``tracefl.main``.

Each key of ``[tool.flwr.app.config]`` is a key of TraceFL's own configuration; an empty text leaves its default.
``overrides`` takes all other keys, as on the command line.
"""

import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid
from omegaconf.errors import OmegaConfBaseException

from tracefl.common.paths import expand
from tracefl.conf.cli import command_line, refuse_repeated
from tracefl.conf.composing import compose_config
from tracefl.errors import ConfigError, TraceFLError, one_line
from tracefl.experiment.preparation import Prepared, prepare_deployed
from tracefl.experiment.runner import run_settings
from tracefl.experiment.settings import read_settings
from tracefl.federation.server import Federation
from tracefl.federation.supernodes import Deployment
from tracefl.records.settings import Settings

RunConfig = Mapping[str, bool | int | float | str]

_PLAIN = re.compile(r"[\w./:+@-]+")  # what Hydra takes without quotes


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the run configuration on the clients of Flower's simulation or of a deployment."""
    if isinstance(grid, InMemoryGrid):
        run_simulated(context.run_config, Federation(grid))
    else:
        run_deployed(context.run_config, Deployment(grid))


def run_simulated(run_config: RunConfig, federation: Federation) -> None:
    """Run on the nodes of Flower's simulation; an error is printed in one line and raised."""
    _run(run_config, federation, None)


def run_deployed(run_config: RunConfig, deployment: Deployment) -> None:
    """Run on SuperNodes, each a client with data of its own; an error is printed in one line and raised."""
    _run(run_config, deployment, lambda settings: prepare_deployed(settings, deployment.gather))


def read_overrides(run_config: RunConfig) -> list[str]:
    """Return the run configuration as overrides of the command line.

    Raises:
        ConfigError: ``overrides`` is not a text, has an unclosed quote, or gives a key that is given beside it.
    """
    more = run_config.get("overrides", "")
    if not isinstance(more, str):
        raise ConfigError(f"overrides must be text such as 'client.lr=0.01 batch_size=16', got {more!r}")
    try:
        split = shlex.split(more)
    except ValueError as error:
        raise ConfigError(f"overrides={more!r} has a quote without its end") from error
    keys = [f"{key}={_value(value)}" for key, value in run_config.items() if key != "overrides" and value != ""]
    refuse_repeated([*keys, *split])
    return [*keys, *split]


def results_folder(log_dir: str) -> Path:
    """Return ``log_dir`` as an absolute folder; a relative one lies in the checkout, or without one in the home folder.

    The app runs from a copy, and its working directory is that of the first ``flwr run`` since Flower's local server
    was started: neither is where the user expects results.
    """
    return (_project() / expand(log_dir)).resolve()


def _run(run_config: RunConfig, federation: Federation, prepare: Callable[[Settings], Prepared] | None) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each of Flower's messages
    try:
        overrides = read_overrides(run_config)
        cfg = compose_config(overrides)
        if isinstance(cfg.log_dir, str):  # read_settings refuses anything else
            cfg.log_dir = str(results_folder(cfg.log_dir))
        settings = read_settings(cfg)
        _refuse_resources(settings)
        experiment = run_config.get("experiment") or "none, the main job (choose one: --run-config exp_1.toml)"
        sys.stdout.write(f"tracefl: experiment {experiment}; results in {settings.folder}\n")
        # In a simulation Flower has started Ray, and hears nothing of ours.
        if prepare is None and os.environ.get("RAY_AUTH_MODE") != "token":
            sys.stdout.write(
                "tracefl: whoever reaches this machine can run code in this run; export RAY_AUTH_MODE=token before the "
                "first flwr run, see docs/flower.md\n"
            )
        command = command_line([*overrides, f"log_dir={_value(settings.log_dir)}"])
        run_settings(settings, federation, prepare, command)
    except (TraceFLError, OmegaConfBaseException) as error:
        sys.stdout.write(f"tracefl: {one_line(error)}\n")
        raise error.with_traceback(None) from None  # Flower prints it again, with its trace


def _refuse_resources(settings: Settings) -> None:
    """Refuse keys that have no effect because Flower has already started the clients."""
    for key, value in (
        ("backend", None if settings.backend == "auto" else settings.backend),
        ("total_cpus", settings.total_cpus),
        ("total_gpus", settings.total_gpus),
        ("ray.address", settings.ray.address),
        ("client_resources.gpus", settings.client_resources.gpus),
    ):
        if value is not None:
            raise ConfigError(
                f"{key}={value} has no effect in flwr run, where Flower starts the clients; leave it, and see "
                "--federation-config"
            )


def _value(value: bool | int | float | str) -> str:
    """Return a value as Hydra reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return str(value)
    literal = re.sub(r"(\\+)('|$)", r"\1\1\2", value)  # a backslash escapes what could end the quotes, and nothing else
    return "'" + literal.replace("'", "\\'") + "'"


def _project() -> Path:
    """Return the folder that tracefl is installed from, as PEP 610 records it; the home folder where there is none."""
    try:
        origin = json.loads(distribution("tracefl").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # Flower runs its copy, and nothing is installed
        origin = {}
    folder = Path(unquote(origin.get("url", "file:///").removeprefix("file://")))
    return folder if (folder / "pyproject.toml").is_file() else Path.home()
