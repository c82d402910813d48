"""run.log: every log record of a run."""

import contextlib
import logging
import logging.handlers
import sys
from pathlib import Path

from tracefl.errors import plain

log = logging.getLogger(__name__)


class RunLog:
    """Writes a run's log records to run.log, those from before its folder exists included."""

    def __init__(self) -> None:
        self._buffer = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        self._handlers: list[logging.Handler] = [self._buffer]

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self._buffer)
        return self

    def open(self, path: Path) -> None:
        """Write the records so far, and all to come, to ``path``."""
        file = _LogFile(path)
        file.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        logging.getLogger().removeHandler(self._buffer)
        logging.getLogger().addHandler(file)
        self._handlers.append(file)

    def __exit__(self, *error: object) -> None:
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


class _PlainFormatter(logging.Formatter):
    """Writes records as plain text: whoever shows the file in a terminal sees the words of a client, and no colours."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record), keep="\n\t")


class _LogFile(logging.FileHandler):
    """A log file that reports a full disk once and never hides the run's own error."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        del record
        if not self._failed:
            self._failed = True
            log.warning("%s cannot be written any more: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()
