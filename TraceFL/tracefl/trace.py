"""Trace a stored round again: ``python -m tracefl.trace RUN_FOLDER [round=N] [provenance=PRESET] [baselines=CHOICE]``.

Reads only what the run left in its folder and needs neither Flower nor Ray. With the run's own settings it gives the
rows of the run's provenance.csv; with others it answers the same question differently on the same weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from tracefl.cli import explain_config_error, run_tool
from tracefl.config import NO_MISPREDICTIONS, read_baselines, read_provenance
from tracefl.datasets import load_examples
from tracefl.errors import ConfigError, RecordError
from tracefl.faults import Fault
from tracefl.models import ModelSpec, build_model
from tracefl.privacy import PRIVACY_TRACES
from tracefl.privacy.settings import read_privacy
from tracefl.provenance import summarize
from tracefl.report.terminal import percent, suspects_table
from tracefl.rounds import RoundStore
from tracefl.run_log import terminal_lines
from tracefl.suspects import mean_suspects
from tracefl.text_files import write_atomically
from tracefl.tracing import RoundTrace, Tracer
from tracefl.tracking import PROVENANCE_COLUMNS, provenance_rows, read_config, to_csv

USAGE = (
    "python -m tracefl.trace RUN_FOLDER [round=N] [csv=FILE] [provenance=PRESET] [provenance.KEY=VALUE ...] "
    "[baselines=CHOICE] [privacy.trace=deployed|before_noise]"
)
_GROUPS = ("provenance", "baselines")


def main() -> None:
    """Trace one stored round and print it; bad input is one line and exit status 2."""
    run_tool(__doc__, USAGE, lambda arguments: _main(Path(arguments[0]), arguments[1:]))


def retrace(folder: Path, server_round: int | None = None, overrides: Sequence[str] = ()) -> tuple[int, RoundTrace]:
    """Trace a stored round from a run's folder alone.

    Args:
        folder: The run's folder.
        server_round: The round; None for the last one that is stored.
        overrides: Of the groups provenance and baselines, and of privacy.trace, as on the command line.

    Returns:
        The round and its trace.

    Raises:
        RecordError: The folder is no run's, or the round is not stored.
        ConfigError: An override is illegal.
    """
    config = read_config(folder / "config.yaml")
    groups = _groups(config, overrides)
    settings = read_provenance(groups["provenance"])
    baselines = read_baselines(groups["baselines"])
    if settings is None:
        raise ConfigError("provenance.enabled=false traces nothing; give provenance=removal")
    faulty = config.get("fault", {"name": "none"})["name"] != "none"  # older folders have no such key
    fault = Fault.from_json(_read_text(folder / "fault.json")) if faulty else None
    store = RoundStore(folder / "rounds")
    stored = store.stored_rounds()
    if server_round is None:
        if not stored:
            raise RecordError(f"{folder} keeps no round's weights; run with store=last or store=all")
        server_round = stored[-1]
    record = store.read(server_round)
    if _privacy_trace(config, overrides) == "before_noise":
        if record.before_noise is None:
            raise ConfigError(f"privacy.trace=before_noise, and round {server_round} of {folder} has no noise")
        record = record.without_noise()
    model = build_model(ModelSpec.from_json(_read_text(folder / "model.json")))
    model.load_state_dict(dict(record.global_weights))
    server = load_examples(folder / "server.safetensors")
    counts = torch.tensor(json.loads(_read_text(folder / "label_counts.json"))["label_counts"])
    on_cuda = config["device"] == "cuda" and torch.cuda.is_available()
    device = "cuda" if on_cuda else "cpu"  # the run's where it is there, for its rounding
    tracer = Tracer(settings, counts, fault, baselines, config["seed"], device)
    if baselines and not tracer.mispredictions and any(o.startswith("baselines") for o in overrides):
        raise ConfigError(f"baselines.rules={list(baselines)} {NO_MISPREDICTIONS}")
    return server_round, tracer.trace(model, record, server)


def _main(folder: Path, arguments: Sequence[str]) -> None:
    server_round, csv, overrides = None, None, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "round":
            if not value.isdigit():
                raise ConfigError(f"round must be a whole number from 1, got {value!r}")
            server_round = int(value)
        elif key == "csv" and value:
            csv = Path(value)
        elif value and (key in (*_GROUPS, "privacy.trace") or key.partition(".")[0] in _GROUPS):
            overrides.append(argument)
        else:
            raise ConfigError(f"unknown argument {argument!r}; usage: {USAGE}")
    console = Console()
    with terminal_lines(console):
        server_round, trace = retrace(folder, server_round, overrides)
    if csv is not None:
        write_atomically(csv, to_csv(PROVENANCE_COLUMNS, provenance_rows(server_round, trace.traced)))
    _show(console, server_round, trace)


def _privacy_trace(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return which model is asked: the run's choice, or the one that is asked for."""
    asked = [o.partition("=")[2] for o in overrides if o.startswith("privacy.trace=")]
    if asked and asked[-1] not in PRIVACY_TRACES:
        raise ConfigError(f"privacy.trace must be one of {', '.join(PRIVACY_TRACES)}, got {asked[-1]!r}")
    return asked[-1] if asked else read_privacy(config["privacy"]).trace


def _groups(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the run's groups provenance and baselines, or the choices asked for, with single keys changed."""
    asked = dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in _GROUPS)
    keys = [o for o in overrides if o.startswith(tuple(f"{group}." for group in _GROUPS))]
    try:
        with initialize_config_module("tracefl.conf", version_base="1.3"):
            cfg = compose("base", [f"{group}={choice}" for group, choice in asked.items()])
            for group in set(_GROUPS) - set(asked):
                if group in config:  # else the run is older than the group
                    cfg[group] = OmegaConf.create(dict(config[group]))
            changed = OmegaConf.merge(cfg, OmegaConf.from_dotlist(keys))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_config_error(error)) from error
    resolved = OmegaConf.to_container(changed, resolve=True)
    assert isinstance(resolved, dict)
    return {group: resolved[group] for group in _GROUPS}


def _show(console: Console, server_round: int, trace: RoundTrace) -> None:
    """Print the traced inputs, and how the attribution fared beside chance."""
    table = Table(box=None, pad_edge=False)
    for heading in ("input", "label", "predicted", "client", "score", "right", "chance", "removal"):
        table.add_column(heading, justify="right")
    for t in trace.traced:
        table.add_row(
            str(t.input_index),
            str(t.label),
            str(t.predicted),
            t.traced_client,
            f"{t.score:.3f}",
            "-" if t.correct is None else "yes" if t.correct else "no",
            percent(t.chance),
            t.removal_client or "-",
        )
    console.print(table)
    if trace.suspects:
        console.print(suspects_table(mean_suspects(trace.suspects)))
    s = summarize(trace.traced)
    correlation = s.counterfactual_correlation
    console.print(
        f"round {server_round}: {s.inputs_traced} inputs, localization {percent(s.localization_accuracy)} "
        f"(chance {percent(s.chance_accuracy)}), top holder {percent(s.top_holder_accuracy)}, "
        f"removal agrees {percent(s.counterfactual_agreement)}, "
        f"rank correlation {'-' if correlation is None else f'{correlation:.3f}'}, "
        f"{trace.provenance_seconds:.2f} s",
        soft_wrap=True,
        highlight=False,
    )


def _read_text(path: Path) -> str:
    if not path.exists():
        raise RecordError(f"{path.parent} is no run's folder: it has no {path.name}")
    return path.read_text()


if __name__ == "__main__":
    main()
