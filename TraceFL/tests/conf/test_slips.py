"""What was probably meant by words that are no ``key=value``."""

import pytest

from tracefl.conf.slips import explain_slip, is_cut_off

KEYS = ["num_rounds", "seed", "fault.flip", "run_name", "without"]


@pytest.mark.parametrize(
    ("words", "position", "end"),
    [
        ("num_rounds 3", 0, "argument 'num_rounds'; keys are given as key=value: num_rounds=3"),
        ("num_rounds = 3", 0, ": num_rounds=3"),
        ("num_rounds =3", 0, ": num_rounds=3"),
        ("num_rounds= 3", 1, "argument '3'; keys are given as key=value: num_rounds=3"),
        ("--num-rounds 3", 0, "option '--num-rounds'; keys are given as key=value: num_rounds=3"),
        ("--num_rounds=3", 0, ": num_rounds=3"),
        ("--seed -1", 0, ": seed=-1"),
        ("--num-rounds --seed=1", 0, ": num_rounds=..."),
        ("num_rounds seed=1", 0, ": num_rounds=..."),
        (
            "--num-round 3",
            0,
            "option '--num-round'; keys are given as key=value, see --help; did you mean 'num_rounds'?",
        ),
        ("seed=1 num_round 3", 1, "see --help; did you mean 'num_rounds'?"),
        ("run_name=my run", 1, "argument 'run'; a value with a space needs quotes: 'run_name=my run'"),
        ("nonsense", 0, "unknown argument 'nonsense'; keys are given as key=value, see --help"),
    ],
)
def test_the_words_to_type_instead(words, position, end):
    line = explain_slip(words.split(), position, KEYS)
    assert line.startswith("unknown ")
    assert line.endswith(end)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("fault.flip={1: 0} seed=1", "put quotes around it: 'fault.flip={1: 0}'"),
        ("fault.flip={1: [0, 2]} seed=1", "'fault.flip={1: [0, 2]}'"),
        ("without=[1, 2, 3]", "'without=[1, 2, 3]'"),
        ("run_name='my run'", "put quotes around it: \"run_name='my run'\""),
        (
            "without=[1, 2",
            "'without=[1,' has a bracket or a quote without its end; close it, or, where it is text, type "
            "\"without='[1,'\"",
        ),
    ],
)
def test_a_value_that_the_shell_cut_at_a_space(words, end):
    words = words.split()
    assert is_cut_off(words[0])
    assert explain_slip(words, 0, KEYS).endswith(end)


@pytest.mark.parametrize("word", ["seed=1", "without=[1,2]", "a={1: 'x}'}", "run_name=it's", "a=1]", "[1", "a='b c'"])
def test_what_is_whole_is_not_cut_off(word):
    assert not is_cut_off(word)
