"""What a run says: every record in run.log, TraceFL's own lines on the terminal."""

import contextlib
import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

log = logging.getLogger(__name__)


@contextmanager
def terminal_lines(console: Console) -> Iterator[None]:
    """Print TraceFL's own log lines and warnings to the terminal while the context lasts."""
    handler = _TerminalHandler(console)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)


class RunLog:
    """All log records of a run in run.log, those from before its folder exists too."""

    def __init__(self) -> None:
        self._buffer = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        self._handlers: list[logging.Handler] = [self._buffer]

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self._buffer)
        return self

    def open(self, path: Path) -> None:
        """Write what came so far, and everything to come, to ``path``."""
        file = _LogFile(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        logging.getLogger().removeHandler(self._buffer)
        logging.getLogger().addHandler(file)
        self._handlers.append(file)

    def __exit__(self, *error: object) -> None:
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: it then says so once, and never stands in the way of the run's own error."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        del record
        if not self._failed:
            self._failed = True
            log.warning("%s cannot be written any more: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class _TerminalHandler(logging.Handler):
    """TraceFL's own lines, above the progress bars; libraries' chatter stays in run.log."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        # What stops a run is said by the command line itself, in its last line.
        return record.name.startswith(("tracefl.", "py.warnings")) and not getattr(record, "said_by_main", False)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name == "py.warnings":  # "file:line: Category: message\n  source line"
            text = text.splitlines()[0].split(": ", 2)[-1]
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        with contextlib.suppress(OSError):  # a terminal that is gone, or a full disk behind it: run.log has it all
            self._console.print(prefix + text, soft_wrap=True, highlight=False, markup=False)
