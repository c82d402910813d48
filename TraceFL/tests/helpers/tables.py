"""CSV files of a run."""

import csv


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_untimed(path):
    """Read a CSV without its columns of seconds."""
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in read_csv(path)]
