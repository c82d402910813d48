"""What a run leaves in its folder: run.log, config.yaml, rounds.csv, provenance.csv, results.json."""

import csv
import io
import json
import logging
import logging.handlers
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from yaml import YAMLError

from tracefl.config import CIRCUMSTANCES, Settings, fingerprint
from tracefl.errors import RecordError, one_line
from tracefl.provenance import TracedInput
from tracefl.rounds import RoundResult, RoundStore

ROUND_COLUMNS = (
    "round",
    "global_loss",
    "global_accuracy",
    "localization_accuracy",
    "chance_accuracy",
    "top_holder_accuracy",
    "counterfactual_agreement",
    "counterfactual_correlation",
    "inputs_traced",
    "clients",
    "clients_left_out",
    "train_loss",
    "clipping_norm",
    "next_clipping_norm",
    "epsilon",
    "epsilon_by_client",
    "train_seconds",
    "evaluate_seconds",
    "provenance_seconds",
    "counterfactual_seconds",
)
PROVENANCE_COLUMNS = (
    "round",
    "input_index",
    "label",
    "predicted",
    "traced_client",
    "responsible_clients",
    "correct",
    "score",
    "ranking",
    "chance",
    "top_holder",
    "removal_client",
    "removal_correlation",
)


class RunFolder:
    """A run's folder, ``log_dir/exp_key/run_name``.

    Args:
        path: The folder.
        settings: The run's settings.

    Raises:
        RecordError: The folder holds a run of another configuration.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.rounds = RoundStore(path / "rounds", **settings.config["store"])
        if path.exists() and not path.is_dir():
            raise RecordError(f"{path} is a file; set run_name or exp_key to another")
        if path.exists() and any(path.iterdir()):
            self._refuse_another_run()
        ancestor = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
            raise RecordError(f"cannot write below {ancestor}; set log_dir to a folder that can be written")

    @property
    def is_complete(self) -> bool:
        """A run of this configuration has finished here."""
        return (self.path / "results.json").exists()

    @property
    def work(self) -> Path:
        """Files that live no longer than the run: the clients' prepared examples."""
        return self.path / ".work"

    def begin(self) -> None:
        """Clear what an unfinished or overwritten run left, and write the configuration."""
        if self.path.exists():
            gone = self.path.with_name(f".{self.path.name}.gone")  # renamed first: a kill leaves no half of it in sight
            shutil.rmtree(gone, ignore_errors=True)
            self.path.rename(gone)
            shutil.rmtree(gone)
        self.path.mkdir(parents=True)
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(self.settings.config))))

    def append(self) -> None:
        """Bring rounds.csv and provenance.csv up to the committed rounds, each replaced at one stroke."""
        results = list(self.rounds.results())
        write_atomically(self.path / "rounds.csv", to_csv(ROUND_COLUMNS, (r.row for r in results)))
        rows = (row for r in results for row in provenance_rows(r.server_round, r.traced))
        write_atomically(self.path / "provenance.csv", to_csv(PROVENANCE_COLUMNS, rows))

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write results.json, which marks the run complete."""
        write_atomically(self.path / "results.json", json.dumps(results, indent=1) + "\n")

    def results(self) -> list[RoundResult]:
        """Return the committed rounds."""
        return list(self.rounds.results())

    def _refuse_another_run(self) -> None:
        if not (self.path / "config.yaml").exists():
            raise RecordError(f"{self.path} exists and is no run's folder; set run_name or exp_key to another")
        there = read_config(self.path / "config.yaml")
        here = self.settings.config
        if fingerprint(there) != fingerprint(here):
            before, now = _flat(there), _flat(here)
            differing = [k for k in now if before.get(k) != now[k] and k.split(".")[0] not in CIRCUMSTANCES]
            raise RecordError(
                f"{self.path} holds a run of another configuration (differs in {', '.join(differing[:5])}); "
                "set run_name or exp_key to another, or delete it"
            )


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's config.yaml.

    Raises:
        RecordError: It is missing or no mapping.
    """
    if not path.exists():
        raise RecordError(f"{path.parent} is no run's folder: it has no {path.name}")
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError) as error:
        raise RecordError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("client_resources"), dict):
        raise RecordError(f"{path} is no run's configuration")
    return {str(key): value for key, value in config.items()}


def provenance_rows(server_round: int, traced: Iterable[TracedInput]) -> Iterable[dict[str, Any]]:
    """Yield the rows of provenance.csv of one round."""
    for t in traced:
        yield {
            **{column: getattr(t, column) for column in PROVENANCE_COLUMNS if column != "round"},
            "round": server_round,
            "responsible_clients": " ".join(t.responsible_clients),
            "ranking": " ".join(f"{client}:{score:.6g}" for client, score in t.ranking),
        }


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV text; what is None stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file at one stroke: a reader, or a kill, sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.partial")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def terminal_lines(console: Console) -> Iterator[None]:
    """Print TraceFL's own log lines and warnings to the terminal while the context lasts."""
    handler = _TerminalHandler(console)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)


class RunLog:
    """All log records of a run in run.log, those from before its folder exists too."""

    def __init__(self) -> None:
        self._buffer = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        self._handlers: list[logging.Handler] = [self._buffer]

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self._buffer)
        return self

    def open(self, path: Path) -> None:
        """Write what came so far, and everything to come, to ``path``."""
        file = logging.FileHandler(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        logging.getLogger().removeHandler(self._buffer)
        logging.getLogger().addHandler(file)
        self._handlers.append(file)

    def __exit__(self, *error: object) -> None:
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


class _TerminalHandler(logging.Handler):
    """TraceFL's own lines, above the progress bars; libraries' chatter stays in run.log."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        # What stops a run is said by the command line itself, in its last line.
        return record.name.startswith(("tracefl.", "py.warnings")) and not getattr(record, "said_by_main", False)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name == "py.warnings":  # "file:line: Category: message\n  source line"
            text = text.splitlines()[0].split(": ", 2)[-1]
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self._console.print(prefix + text, soft_wrap=True, highlight=False, markup=False)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
