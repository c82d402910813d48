from types import SimpleNamespace

import pytest

from tracefl.federation.replies import read_identity


def records(client):
    """An answer's records, known by what is asked of them."""
    return SimpleNamespace(config_records={} if client is None else {"client": client})


@pytest.mark.parametrize("client_id", ["", "0", "7", "99999"])
def test_an_identity_is_read(client_id):
    answer = records({"client-id": client_id, "label-counts": [0, 3, 1]})
    assert read_identity(answer, 3) == (client_id, [0, 3, 1])


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (None, "its partition-id must be 0 to 99999, got 'None'"),
        ({"client-id": 3, "label-counts": [1]}, "its partition-id must be 0 to 99999, got '3'"),
        *(
            ({"client-id": text, "label-counts": [1, 1, 1]}, "its partition-id must be")
            for text in ("-1", "007", "٣", "100000", "1" * 5000, "0\n")
        ),
        ({"client-id": "0"}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": 3}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": "123"}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": [1, float("nan"), 1]}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": [5, -5, 1]}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": [True, 1, 1]}, "did not say how many examples"),
        ({"client-id": "0", "label-counts": [10**13, 1, 1]}, "did not say how many examples"),
        ({"client-id": "\x1b[2J" * 99}, r"its partition-id must be 0 to 99999, got '(\[2J ){5}\.\.\.'"),
        ({"client-id": "0", "label-counts": [1, 2]}, "it has 3 examples of 2 classes, and the server has 3"),
        ({"client-id": "0", "label-counts": [0, 0, 0]}, "it has 0 examples of 3 classes"),
    ],
)
def test_other_answers_are_refused_in_words(client, message):
    with pytest.raises(ValueError, match=message):
        read_identity(records(client), 3)
