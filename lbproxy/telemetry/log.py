"""The operator log: stdlib logging to stderr as text or JSON, never in the way of traffic, never a flood.

Records pass through the same bounded writer as the access log, so a terminal or pipe that nobody reads costs lines and
not requests. Values from the network are escaped (`wire_text.py`): one record is one line (a traceback follows it,
indented).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from lbproxy.telemetry import wire_text
from lbproxy.telemetry.log_limits import LogLimits
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.throttle import Throttle

MESSAGE_LIMIT = 8192  # characters; a value from the network is capped at 2 KiB by whoever logs it


def _one_line(text: str) -> str:
    if len(text) > MESSAGE_LIMIT:
        text = text[: MESSAGE_LIMIT - 3] + "..."
    return wire_text.one_line(text)


def _stamp(created: float) -> str:
    second = int(created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{int((created - second) * 1000):03d}Z"


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING lbproxy.control.checker: message`, UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_stamp(record.created)} {record.levelname} {record.name}: {_one_line(record.getMessage())}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_one_line(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: ts, level, logger, message, and exception (the traceback) if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        fields = {
            "ts": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "...",
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class WriterHandler(logging.Handler):
    """Sends records to a LogWriter, within LogLimits. Handler.handle() holds a lock, so several threads may log."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer
        self._limits = LogLimits()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._limits.admit(record):
                self.writer.append(self.format(record))
                self.writer.flush_soon()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self.writer.close(1.0)
        super().close()


def configure(level: str = "info", format: str = "text", path: str = "stderr") -> WriterHandler:
    """Send the log of the whole process to `path`; replaces what was configured before.

    level: debug, info, warning or error. format: text or json. logging.shutdown(), which runs at exit, flushes it.
    Raises OSError if the output cannot be opened.
    """
    handler = WriterHandler(LogWriter(path))
    handler.setFormatter(_formatter(format))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


def change(level: str, format: str) -> None:
    """Give the log that `configure` made another level and format."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, WriterHandler):
            handler.setFormatter(_formatter(format))
    root.setLevel(level.upper())


def _formatter(format: str) -> logging.Formatter:
    return JsonFormatter() if format == "json" else TextFormatter()


class ThrottledLog:
    """A logger whose lines are limited to one a second per cause."""

    def __init__(
        self, logger: logging.Logger, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._throttle = Throttle(interval_s)
        self._clock = clock

    def log(self, level: int, cause: str, message: str, *args: object) -> None:
        """Log `message % args`, unless a line of this cause was logged less than a second ago."""
        if not self._logger.isEnabledFor(level):
            return
        skipped = self._throttle.admit(cause, self._clock())
        if skipped is None:
            return
        if skipped:
            message += " (%d more like this were not logged)"
            args = (*args, skipped)
        self._logger.log(level, message, *args)

    def info(self, cause: str, message: str, *args: object) -> None:
        self.log(logging.INFO, cause, message, *args)

    def warning(self, cause: str, message: str, *args: object) -> None:
        self.log(logging.WARNING, cause, message, *args)

    def error(self, cause: str, message: str, *args: object) -> None:
        self.log(logging.ERROR, cause, message, *args)
