"""Changing the folder of a run as whoever may write there can: with all checksums made again."""

import json

from tracefl.records.checksums import seal, write_checksums


def freshen(folder):
    """Make all checksums again, as whoever changed the folder can."""
    for place in sorted((folder / "rounds").iterdir()):
        write_checksums(place)
    seal(folder)


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def covered(folder):
    """Return all files that decide an answer: those that have a checksum."""
    lists = [folder, *sorted((folder / "rounds").iterdir())]
    return [
        str((place / line[66:]).relative_to(folder))
        for place in lists
        for line in (place / "SHA256SUMS").read_text().splitlines()
    ]
