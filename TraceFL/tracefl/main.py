"""The command line: ``python -m tracefl.main [group=choice ...] [key=value ...]``."""

import os
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tracefl.cli import explain_config_error, help_text, prepare_overrides
from tracefl.errors import ConfigError, TraceFLError, one_line
from tracefl.imports import heavy_imports

_BAD_INPUT = 2  # exit status


def main() -> None:
    """Run one experiment, or several with ``--multirun``; bad input is one line and exit status 2."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra then raises instead of printing and exiting with 1
    try:
        sys.argv[1:] = prepare_overrides(sys.argv[1:])
        _run()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _refuse(explain_config_error(error))
    except KeyboardInterrupt:
        sys.stderr.write("tracefl: interrupted; finished rounds stay recorded\n")
        sys.stderr.flush()
        os._exit(130)  # Flower's server thread may still wait for its clients, for up to strategy.timeout_seconds


@hydra.main(version_base="1.3", config_path="conf", config_name="base")
def _run(cfg: DictConfig) -> None:
    """Run one composed configuration."""
    with heavy_imports():  # these bring torch: --help does not wait for it
        from tracefl.config import read_settings
        from tracefl.runner import run_settings

    try:
        run_settings(read_settings(cfg))
    except OSError as error:
        _refuse(f"{error.strerror or one_line(error)}: {error.filename or 'no file named'}", status=1)
    except (TraceFLError, OmegaConfBaseException) as error:
        _refuse(one_line(error), getattr(error, "exit_status", _BAD_INPUT))


def _refuse(message: str, status: int = _BAD_INPUT) -> None:
    sys.stderr.write(f"tracefl: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is closed; the interpreter would free millions of objects one by one, for more than a second
