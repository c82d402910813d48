"""Changing the folder of a run as whoever may write there can: with all checksums made again."""

import json

from tracefl.records.checksums import checksums_of_weights, seal, write_checksums


def freshen(folder):
    """Make all checksums again, as whoever changed the folder can, and let each round name the weights that it has."""
    for place in sorted((folder / "rounds").iterdir()):
        freshen_round(place)
    seal(folder)


def freshen_round(place):
    """Do that of one round, whose checksums the run's do not know then."""
    change_json(place / "round.json", weights=checksums_of_weights(place))
    write_checksums(place)


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
