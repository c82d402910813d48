"""CSV files of a run."""

import csv

from tracefl.records.tables import ROUND_COLUMNS


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_untimed(path):
    """Read a CSV without its columns of seconds."""
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in read_csv(path)]


def zero_row(**values):
    """Return a round's row with 0 in every column that holds a number."""
    return {c: None if c in ("class_accuracy", "epsilon_by_client") else 0 for c in ROUND_COLUMNS} | values


def whole_row(**values):
    """Return a round's row with every column; those that are not given are None."""
    return dict.fromkeys(ROUND_COLUMNS) | values
