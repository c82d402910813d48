from types import SimpleNamespace

import pytest

from tracefl.federation.replies import read_identity, rejection_reason


def records(client=None, metrics=None, arrays=None):
    """A reply's records, known by what is asked of them; None where there is none."""
    return SimpleNamespace(
        config_records={} if client is None else {"client": client},
        metric_records={} if metrics is None else {"metrics": metrics},
        array_records={} if arrays is None else {"arrays": arrays},
    )


def array(*shape, dtype="float32"):
    return SimpleNamespace(shape=shape, dtype=dtype)


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
        ({"client-id": "0", "label-counts": [1, 2]}, "it has 3 examples of 2 classes, and the server has 3"),
        ({"client-id": "0", "label-counts": [0, 0, 0]}, "it has 0 examples of 3 classes"),
    ],
)
def test_other_answers_are_refused_in_words(client, message):
    with pytest.raises(ValueError, match=message):
        read_identity(records(client), 3)


WHO = {"client-id": "4"}
GOOD = {"num-examples": 10, "train-loss": 0.5}
SENT = {"w": array(2, 3), "n": array(dtype="float64")}
BACK = {"n": array(dtype="int64"), "w": array(2, 3)}  # the average of a counter is no whole number, a client's is


def test_a_sound_reply_counts():
    assert rejection_reason(records(WHO, GOOD, BACK), "4", SENT, 10) is None
    assert rejection_reason(records(WHO, GOOD, BACK), "4", SENT, None) is None


@pytest.mark.parametrize(
    ("client", "metrics", "arrays", "reason"),
    [
        (None, GOOD, BACK, "client None answered in its place"),
        ({"client-id": "5"}, GOOD, BACK, "client 5 answered in its place"),
        (WHO, None, BACK, "a reply without weights or training loss"),
        (WHO, GOOD, None, "a reply without weights or training loss"),
        (WHO, {"num-examples": 10}, BACK, "a reply without weights or training loss"),
        (WHO, GOOD, {"w": array(2, 3)}, "weights of another model, first n"),
        (WHO, GOOD, BACK | {"more": array(1)}, "weights of another model, first more"),
        (WHO, GOOD, BACK | {"w": array(3, 2)}, "weights of another shape or type, first w"),
        (WHO, GOOD, BACK | {"w": array(2, 3, dtype="object")}, "weights of another shape or type, first w"),
        (WHO, GOOD | {"num-examples": 11}, BACK, "it reports 11 examples, expected 10"),
        (WHO, GOOD | {"num-examples": -5}, BACK, "it reports -5 examples, expected 10"),
        (WHO, {"train-loss": 0.5}, BACK, "it reports None examples, expected 10"),
    ],
)
def test_what_cannot_be_averaged_is_dropped_with_a_reason(client, metrics, arrays, reason):
    assert rejection_reason(records(client, metrics, arrays), "4", SENT, 10) == reason


def test_a_reply_of_nothing_never_counts():
    reply = records(WHO, GOOD | {"num-examples": 0}, BACK)
    assert rejection_reason(reply, "4", SENT, None) == "it reports 0 examples, expected at least 1"
