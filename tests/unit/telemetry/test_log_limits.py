"""Tracebacks are rare, and libraries speak in one line without the words of strangers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

import pytest

from lbproxy.telemetry.log import JsonFormatter, TextFormatter
from lbproxy.telemetry.log_limits import TRACEBACKS_A_SECOND, LogLimits

Raiser = Callable[[], None]


class Bench:
    def __init__(self) -> None:
        self.now = 50.0
        self.limits = LogLimits(lambda: self.now)
        self.lines: list[str] = []

    def log(self, name: str, message: str, *args: object, raiser: Raiser | None = None, level: int = 40) -> None:
        exc_info = None
        if raiser is not None:
            try:
                raiser()
            except Exception:
                exc_info = sys.exc_info()
        record = logging.LogRecord(name, level, "library.py", 7, message, args, exc_info)
        if self.limits.admit(record):
            self.lines.append(TextFormatter().format(record))


def defect() -> None:
    raise ZeroDivisionError("on purpose")


def other_defect() -> None:
    raise ZeroDivisionError("elsewhere")


def junk() -> None:
    raise ValueError("Bad status line: \x16\x03\x01 secret-of-a-stranger")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_same_traceback_once_a_second(bench: Bench) -> None:
    for _ in range(1000):
        bench.log("lbproxy", "internal error in downstream", raiser=defect)
    assert len(bench.lines) == 1 and "Traceback" in bench.lines[0]
    bench.now += 1.0
    bench.log("lbproxy.control.admin", "the same from elsewhere", raiser=defect)
    assert "(999 more tracebacks were not logged)" in bench.lines[1]


def test_another_place_has_its_own_traceback(bench: Bench) -> None:
    bench.log("lbproxy", "one", raiser=defect)
    bench.log("lbproxy", "two", raiser=other_defect)
    assert len(bench.lines) == 2


def test_all_places_together_are_bounded(bench: Bench) -> None:
    def raiser(number: int) -> Raiser:
        scope: dict[str, Raiser] = {}
        exec(compile("\n" * number + "def fail(): raise KeyError(1)", "made.py", "exec"), scope)
        return scope["fail"]

    for number in range(40):
        bench.log("lbproxy", "defect", raiser=raiser(number))
    assert len(bench.lines) == TRACEBACKS_A_SECOND
    bench.now += 1.0
    bench.log("lbproxy", "defect", raiser=raiser(100))
    assert f"({40 - TRACEBACKS_A_SECOND} more tracebacks were not logged)" in bench.lines[-1]


def test_own_lines_without_a_traceback_pass_as_they_are(bench: Bench) -> None:
    for number in range(50):
        bench.log("lbproxy.control", "line %d", number)
    assert len(bench.lines) == 50 and bench.lines[7].endswith("line 7")


@pytest.mark.parametrize(
    ("name", "message", "args"),
    [
        ("aiohttp.server", "Error handling request from %s", ("secret-of-a-stranger",)),
        ("aiohttp.server", "Error handling request: secret-of-a-stranger", ()),
        ("asyncio", "Fatal error on %(who)s", ({"who": "secret-of-a-stranger"},)),
        ("uvloop", "bad data {secret-of-a-stranger}\nsecret-of-a-stranger", ()),
    ],
)
def test_a_library_never_prints_what_a_stranger_sent(
    bench: Bench, name: str, message: str, args: tuple[object, ...]
) -> None:
    bench.log(name, message, *args, raiser=junk)
    (line,) = bench.lines
    assert "secret" not in line and "\n" not in line and "\x16" not in line
    assert name in line and "ValueError at test_log_limits.py:" in line
    assert " WARNING " in line, "what a stranger does is no error of lbproxy"


def test_a_plug_in_says_what_it_likes(bench: Bench) -> None:
    bench.log("my_strategy", "picked %s: %s", "a:1", "least busy", level=logging.INFO)
    assert bench.lines[0].endswith("INFO my_strategy: picked a:1: least busy")


def test_a_library_is_throttled(bench: Bench) -> None:
    for _ in range(100):
        bench.log("aiohttp.server", "Error handling request from %s", "192.0.2.1", raiser=junk)
    assert len(bench.lines) == 1
    bench.now += 1.0
    bench.log("aiohttp.server", "Error handling request from %s", "192.0.2.1", raiser=junk)
    assert "(99 more like this were not logged)" in bench.lines[1]


def test_json_has_no_traceback_of_a_library_either() -> None:
    limits = LogLimits()
    record = logging.LogRecord("asyncio", logging.ERROR, "x.py", 1, "Task exception", (), None)
    try:
        junk()
    except ValueError:
        record.exc_info = sys.exc_info()
    assert limits.admit(record)
    assert "secret" not in JsonFormatter().format(record)


async def test_a_task_that_nobody_awaited_is_one_line(bench: Bench) -> None:
    """As asyncio itself words it."""
    loop = asyncio.get_running_loop()
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep, logger = Keep(), logging.getLogger("asyncio")
    logger.addHandler(keep)
    try:
        loop.default_exception_handler({"message": "Unhandled secret-of-a-stranger", "exception": ValueError("secret")})
    finally:
        logger.removeHandler(keep)
    (record,) = records
    assert bench.limits.admit(record)
    assert "\n" not in TextFormatter().format(record)
