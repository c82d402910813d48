"""What becomes of output that nobody reads."""

import os
import sys


def discard_output() -> None:
    """Send what is printed from now on nowhere; else Python complains at its end that the reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
