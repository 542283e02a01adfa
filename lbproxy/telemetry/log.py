"""The operator log: stdlib logging to stderr as text or JSON, never in the way of traffic, never a flood.

Records pass through the same bounded writer as the access log, so a terminal or pipe that nobody reads costs lines and
not requests. Values from the network are escaped (`wire_text.py`): one record is one line (a traceback follows it,
indented).
"""

from __future__ import annotations

import json
import logging
import os
import select
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
    """`2026-01-31T12:00:00.123Z WARNING lbproxy.control.checker: message`, UTC. process: `worker 1`, which then stands
    in brackets before the message; "" where there is one process."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self.process = process
        self._who = f"[{process}] " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        text = _one_line(record.getMessage())
        line = f"{_stamp(record.created)} {record.levelname} {record.name}: {self._who}{text}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_one_line(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: ts, level, logger, message, process where there are several, and exception (the traceback) if
    there is one."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        fields = {
            "ts": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "...",
        }
        if self.process:
            fields["process"] = self.process
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


class DirectHandler(logging.Handler):
    """Writes each record at once to stderr, without a thread: for a process that forks. What stderr does not take now
    is lost, since nothing may hold up this process."""

    FD = 2

    def __init__(self) -> None:
        super().__init__()
        self._limits = LogLimits()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._limits.admit(record):
                return
            data = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            output = select.poll()
            output.register(self.FD, select.POLLOUT)
            if output.poll(0):  # a pipe then has room for PIPE_BUF at least
                os.write(self.FD, data[: select.PIPE_BUF - 1].rstrip(b"\n") + b"\n")
        except Exception:
            self.handleError(record)


def configure(level: str = "info", format: str = "text", path: str = "stderr", process: str = "") -> WriterHandler:
    """Send the log of the whole process to `path`; replaces what was configured before.

    level: debug, info, warning or error. format: text or json. process: its name, where several write to the same
    place. logging.shutdown(), which runs at exit, flushes it. Raises OSError if the output cannot be opened.
    """
    handler = WriterHandler(LogWriter(path, is_shared=bool(process)))
    _install(handler, level, format, process)
    return handler


def configure_direct(level: str, format: str, process: str) -> DirectHandler:
    """The same, for a process that forks."""
    handler = DirectHandler()
    _install(handler, level, format, process)
    return handler


def _install(handler: logging.Handler, level: str, format: str, process: str) -> None:
    handler.setFormatter(_formatter(format, process))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())


def change(level: str, format: str) -> None:
    """Give the log that was configured another level and format."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, WriterHandler | DirectHandler):
            handler.setFormatter(_formatter(format, getattr(handler.formatter, "process", "")))
    root.setLevel(level.upper())


def _formatter(format: str, process: str) -> logging.Formatter:
    return JsonFormatter(process) if format == "json" else TextFormatter(process)


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
