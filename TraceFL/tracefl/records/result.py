"""A finished round: what its round.json says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefl.errors import RecordError
from tracefl.provenance import TracedInput


@dataclass(frozen=True)
class RoundResult:
    """A round without its weights, after it is traced: what round.json, rounds.csv and provenance.csv hold.

    Attributes:
        row: Column to value, as in rounds.csv; fractions 0 to 1, None where nothing was measured.
        traced: The traced inputs.
        suspects: Rows of suspects.csv, without mispredictions none.
        client_weights: Client id to p_k of the clients that count.
        left_out: Client id to the reason.
        mitigation: Rows of mitigation.csv, with ``mitigate=none`` none.
    """

    row: Mapping[str, Any]
    traced: tuple[TracedInput, ...]
    suspects: tuple[Mapping[str, Any], ...]
    client_weights: Mapping[str, float]
    left_out: Mapping[str, str]
    mitigation: tuple[Mapping[str, Any], ...] = ()

    @property
    def server_round(self) -> int:
        """The round, from 1."""
        return int(self.row["round"])


def read_result(path: Path) -> RoundResult:
    """Read a round.json.

    Raises:
        RecordError: It is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
        traced = tuple(TracedInput(**_as_tuples(fields)) for fields in content["traced"])
        suspects = tuple(content.get("suspects", ()))  # rounds written before there were any have none
        mitigation = tuple(content.get("mitigation", ()))
        return RoundResult(content["row"], traced, suspects, content["client_weights"], content["left_out"], mitigation)
    except FileNotFoundError as error:
        raise RecordError(f"no round record at {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged ({error}); delete its folder and run again") from error


def _as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return JSON's lists as the tuples that they were."""
    return fields | {
        "responsible_clients": tuple(fields["responsible_clients"]),
        "ranking": tuple((client_id, score) for client_id, score in fields["ranking"]),
        "contributions": tuple((client_id, value) for client_id, value in fields.get("contributions", ())),
        "verified": tuple(fields.get("verified", ())),
    }
