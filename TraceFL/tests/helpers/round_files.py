"""What a run's rounds found, written by hand: rounds without weights, each with its checksum."""

import json

from tests.helpers.tables import whole_row
from tracefl.records.checksums import seal, write_checksums
from tracefl.records.result import RoundResult, as_json


def write_rounds(folder, rows, suspects=(), traced=()):
    """Write a run's rounds.

    Args:
        folder: The run's.
        rows: Of each round what is measured, its number among it; "" is not measured.
        suspects: Rows of suspects.csv.
        traced: Traced inputs of the first round.
    """
    for position, row in enumerate(rows):
        number = row["round"]
        whole = whole_row(**{column: None if value == "" else value for column, value in row.items()})
        own = tuple(each for each in suspects if each["round"] == number)
        inputs = () if position else tuple(traced)
        clients = {client for each in inputs for client, _ in each.ranking}
        result = RoundResult(whole, inputs, own, dict.fromkeys(sorted(clients), 1 / max(1, len(clients))), {})
        place = folder / "rounds" / f"{number:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "round.json").write_text(json.dumps(as_json(result)))
        write_checksums(place)
    seal(folder)
