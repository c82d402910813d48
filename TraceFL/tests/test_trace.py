import sys

import pytest

from tracefl.trace import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "has a name that begins with 'nowhere'"),
        (["nowhere", "rounds=3"], "unknown argument 'rounds=3'; did you mean 'round'?"),
        (["nowhere", "privacy.noise_multiplier=1"], "unknown argument 'privacy.noise_multiplier=1'"),
        (["nowhere", "baselines"], "unknown argument 'baselines'"),
        (["nowhere", "provenance="], "'provenance=' has no value"),
        (["nowhere", "provenance=paper", "provenance=paper"], "provenance is given twice"),
        (["nowhere", "csv=no/a.csv"], "csv='no/a.csv': give a file in a folder that exists"),
        (["nowhere", "round=last"], "round must be a whole number from 1, got 'last'"),
    ],
)
def test_bad_input(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trace", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert words in err


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trace", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "usage: tracefl trace" in capsys.readouterr().out
