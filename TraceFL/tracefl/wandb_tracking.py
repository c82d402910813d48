"""A run on Weights & Biases: its configuration, a step a round, a table of traced inputs. Only where asked for."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracefl.observer import Observer
from tracefl.rounds import RoundResult
from tracefl.tracking import PROVENANCE_COLUMNS, provenance_rows

log = logging.getLogger(__name__)


class WandbTracker(Observer):
    """Follows a run on W&B; ``offline`` writes below the run's folder, to be sent later with ``wandb sync``.

    Args:
        config: The resolved configuration, whose ``wandb`` says mode, project and entity.
        folder: The run's folder.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        import wandb  # heavy, and not needed by runs that do not ask for it

        options = config["wandb"]
        self._wandb = wandb
        self._rows: list[list[Any]] = []
        self._run = wandb.init(
            project=options["project"],
            entity=options["entity"],
            mode=options["mode"],
            group=config["exp_key"],
            name=folder.name,
            dir=folder,
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def round_finished(self, result: RoundResult) -> None:
        """Send a round's measured values as one step."""
        measured = {name: value for name, value in result.row.items() if value is not None and name != "round"}
        self._run.log(measured, step=result.server_round)
        rows = provenance_rows(result.server_round, result.traced)
        self._rows += [[row[column] for column in PROVENANCE_COLUMNS] for row in rows]

    def close(self) -> None:
        """Send the table of traced inputs and end."""
        table = self._wandb.Table(columns=list(PROVENANCE_COLUMNS), data=self._rows)
        self._run.log({"traced_inputs": table})
        self._run.finish()
