"""What of a log record may be written: tracebacks are rare, and libraries speak in one line.

A traceback is for whoever mends lbproxy. The first tells everything; a thousand a second hide all other lines and fill
the disk. So each place in the code shows one a second at most, and all together twenty.

A library that meets nonsense from the network logs it: with a dozen lines of traceback, and with the nonsense in them.
Of its records the template is kept, the name of the exception and where it was raised; values and texts are not,
because a stranger may have chosen them.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath
from types import TracebackType
from typing import Final

from lbproxy.telemetry.throttle import Throttle

LIBRARIES: Final[tuple[str, ...]] = ("aiohttp", "asyncio", "uvloop")
"""Loggers of what lbproxy is made of. A plug-in's own logger writes what it likes."""
TRACEBACKS_A_SECOND: Final = 20
_FRAMES: Final = 12  # that tell two causes apart
_BEGINNING: Final = re.compile(r"[^:;,=\"'<({\[\r\n]{0,100}")
_PLACEHOLDER: Final = re.compile(r"%(?:\(\w+\))?[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]|\{[^{}]*\}")


class LogLimits:
    """Decides for each record; `admit` may replace what the record says. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._throttle = Throttle(1.0)
        self._second = 0.0
        self._n_tracebacks = 0
        self._n_left_out = 0

    def admit(self, record: logging.LogRecord) -> bool:
        """Is this record written?"""
        if record.name.partition(".")[0] in LIBRARIES:
            return self._admit_library(record)
        error = error_of(record)
        return error is None or self._admit_traceback(record, error)

    def _admit_traceback(self, record: logging.LogRecord, error: BaseException) -> bool:
        now = self._clock()
        skipped = self._throttle.admit(f"{type(error).__name__} at {places_of(error.__traceback__)}", now)
        if skipped is None:
            return False
        if now - self._second >= 1.0:
            self._second = now
            self._n_tracebacks = 0
        if self._n_tracebacks >= TRACEBACKS_A_SECOND:
            self._n_left_out += 1 + skipped
            return False
        self._n_tracebacks += 1
        skipped += self._n_left_out
        self._n_left_out = 0
        if skipped:
            _say(record, f"{record.getMessage()} ({skipped} more tracebacks were not logged)")
        return True

    def _admit_library(self, record: logging.LogRecord) -> bool:
        text = _PLACEHOLDER.sub("...", str(record.msg)) if record.args else _template_of(record)
        error = error_of(record)
        if error is not None:
            text = f"{text} ({type(error).__name__} at {place_of(error.__traceback__)})"
        cause = f"{record.name} {record.pathname}:{record.lineno} {type(error).__name__ if error else ''}"
        skipped = self._throttle.admit(cause, self._clock())
        if skipped is None:
            return False
        if skipped:
            text += f" ({skipped} more like this were not logged)"
        _say(record, text)
        if record.levelno > logging.WARNING:  # the library cannot know whether it is an error of ours
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def error_of(record: logging.LogRecord) -> BaseException | None:
    """The exception of a record whose traceback would be written."""
    return record.exc_info[1] if record.exc_info else None


def place_of(trace: TracebackType | None) -> str:
    """file:line of the innermost frame."""
    frames = traceback.extract_tb(trace, limit=-1)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def places_of(trace: TracebackType | None) -> str:
    """The same for the innermost frames: what a helper raises comes from more than one place."""
    return " ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace, limit=-_FRAMES))


def _template_of(record: logging.LogRecord) -> str:
    """A message without arguments may be a ready text with a stranger's words in it: only its beginning is kept."""
    return _BEGINNING.match(str(record.msg))[0].rstrip()  # type: ignore[index]  # it always matches


def _say(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args = text, None
