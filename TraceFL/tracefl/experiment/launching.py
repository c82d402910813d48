"""A run from Python, the same as the command's: ``tracefl.run("model=densenet121", num_rounds=3)``."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from tracefl.common.imports import heavy_imports
from tracefl.conf.cli import command_line, prepare_overrides, read_words
from tracefl.conf.composing import compose_config
from tracefl.errors import ConfigError
from tracefl.experiment.opened import Run
from tracefl.experiment.settings import read_settings
from tracefl.records.naming import with_first_run

_PLAIN = re.compile(r"[\w./:@%+-]+")  # texts that Hydra takes without quotes


def run(*words: str, **keys: Any) -> Run:
    """Run a configuration here, as ``tracefl run`` does: the same folder, and the same numbers to the bit.

    Where nothing asks for another it is the first run, as with ``tracefl run`` alone. A run that is complete already is
    only opened; ``overwrite=True`` runs it again, ``resume=True`` goes on with one that was stopped.

    Args:
        words: ``key=value`` and ``group=choice`` as on the command line.
        keys: The same as Python's values: ``num_rounds=3``, ``log_dir=Path("logs")``, ``fault="label_flip"``; keys of
            a group as a mapping, ``model={"config": {"layers": [1, 1, 1, 1]}}``. Each is given once.

    Returns:
        The run, as ``load`` gives it.

    Raises:
        ConfigError: A word, a key or its value is illegal, or asks for several runs, or for a plan alone.
        TraceFLError: The run failed or was stopped.
    """
    asked = [*words, *(word for key in keys for word in _words(key, keys[key]))]
    overrides = prepare_overrides(with_first_run(read_words(asked)))
    for word in overrides:
        if word.startswith("-") or (word.startswith("launcher=") and word != "launcher=local"):
            raise ConfigError(f"{word!r} is for the command line; from Python one run is made here, so leave it out")
    settings = read_settings(compose_config(overrides))
    if settings.dry_run:
        raise ConfigError("dry_run=true plans a run and makes none; give it to `tracefl run` instead")
    with _process_as_it_was():
        with heavy_imports():
            from tracefl.experiment.runner import run_settings

        run_settings(settings, command=command_line(overrides))
    return Run(settings.folder)


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Undo what a run sets for itself: torch's threads and random numbers, and matplotlib without a display."""
    import matplotlib

    threads, backend = torch.get_num_threads(), dict.__getitem__(matplotlib.rcParams, "backend")  # which chooses none
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        if dict.__getitem__(matplotlib.rcParams, "backend") != backend:
            from matplotlib import pyplot as plt

            plt.switch_backend(backend)


def _words(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _words(f"{key}.{name}", inner)
    else:
        yield f"{key}={_text(key, value)}"


def _text(key: str, value: Any) -> str:
    """Return a value as Hydra's grammar writes it.

    Raises:
        ConfigError: It has no such form.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral | Real):
        return repr(int(value) if isinstance(value, Integral) else float(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, each) for each in value)}]"
    if isinstance(value, str | Path):
        text = str(value)
        return text if _PLAIN.fullmatch(text) else _quoted(text)
    raise ConfigError(f"{key} must be a number, a text, None, or a list or mapping of them, got {type(value).__name__}")


def _quoted(text: str) -> str:
    escaped = re.sub(r'(\\*)(?="|$)', lambda found: found.group(1) * 2, text).replace('"', '\\"')
    return f'"{escaped}"'
