"""Commands called in this process."""

import sys


def call_main(monkeypatch, capture, main, name, *arguments):
    """Call a command in this process; returns (status, stdout, stderr). No line that it prints ends in a blank."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    out, err = capture.readouterr()
    assert [line for line in out.splitlines() if line.endswith(" ")] == []
    return status, out, err


def flat(text):
    """Return what was printed as one line, wherever the terminal's width broke it."""
    return " ".join(text.split())


def ask_main(monkeypatch, capture, main, name, *arguments):
    """Call a command that answers or refuses; returns what is printed, or the error's line."""
    status, out, err = call_main(monkeypatch, capture, main, name, *arguments)
    assert status == (0 if out else 2), err
    return out or err
