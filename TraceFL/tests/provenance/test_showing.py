"""A ranking as lines of text: sentences are wrapped to a terminal's width, and nothing of them is cut."""

from tracefl.provenance.showing import WIDTH, Shown, ShownClient, as_text

CLIENTS = [ShownClient("a", 0.5, 1.0, True, 0.7), ShownClient("b", 0.5, 0.5, True, 0.3)]
NOTES = (
    "the model that is asked is the clients' average; the weights that the model itself holds are others",
    "a client that adds a constant to all its logits, which changes no prediction, chooses its own rank " * 2,
)


def test_no_sentence_is_cut():
    heading = f"input 3: class {'a rather long name of a class ' * 2}(71.3%, label three)"
    text = as_text("Who carried 1 prediction " * 4, [Shown(heading, CLIENTS, None)], 1, NOTES)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "..." not in text
    words = " ".join(text.split())
    for sentence in ("carried by nobody: it is as sure without any one client", *NOTES, heading):
        assert " ".join(sentence.split()) in words
    assert (
        "note: the model that is asked is the clients' average; the weights that the\n      model itself holds" in text
    )


def test_an_inputs_own_text_is_one_line():
    text = as_text("Who", [Shown("class 1", CLIENTS, "a", text="word\nword " * 40)], 1, ())
    (line,) = [line for line in text.splitlines() if "word" in line]
    assert (len(line), line[-3:]) == (WIDTH, "...")
