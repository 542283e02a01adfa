import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.telemetry.log import (
    DirectHandler,
    JsonFormatter,
    TextFormatter,
    ThrottledLog,
    change,
    configure,
    configure_direct,
)


def record(message: str, *args: object, with_error: bool = False) -> logging.LogRecord:
    exc_info = None
    if with_error:
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            exc_info = sys.exc_info()
    made = logging.LogRecord("lbproxy.x", logging.WARNING, __file__, 1, message, args, exc_info)
    made.created = 1_796_076_129.25
    return made


def test_a_text_line_says_when_how_bad_and_where() -> None:
    line = TextFormatter().format(record("server %s is down", "a:1"))
    assert line == "2026-11-30T22:02:09.250Z WARNING lbproxy.x: server a:1 is down"


def test_a_value_cannot_forge_a_line() -> None:
    line = TextFormatter().format(record("got %s", "x\r\n2026 CRITICAL all lost\x1b[2J\u2028"))
    assert "\n" not in line and "\r" not in line and "\x1b" not in line and "\u2028" not in line
    assert r"x\x0d\x0a2026 CRITICAL" in line


def test_a_traceback_follows_indented() -> None:
    lines = TextFormatter().format(record("crashed", with_error=True)).split("\n")
    assert lines[0].endswith("crashed")
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_json_line_is_one_object() -> None:
    line = JsonFormatter().format(record("got %s", "a\nb", with_error=True))
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "lbproxy.x", "got a\nb")
    assert "ValueError" in fields["exception"]


def test_lines_of_several_processes_say_whose_they_are() -> None:
    line = TextFormatter("worker 1").format(record("server %s is down", "a:1"))
    assert line == "2026-11-30T22:02:09.250Z WARNING lbproxy.x: [worker 1] server a:1 is down"
    assert json.loads(JsonFormatter("worker 1").format(record("x")))["process"] == "worker 1"
    assert "process" not in json.loads(JsonFormatter().format(record("x")))


def test_messages_are_bounded() -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        assert len(formatter.format(record("x" * 100_000))) < 9000


def test_a_throttled_log_says_what_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    limited = ThrottledLog(logging.getLogger("lbproxy.test"), clock=lambda: now)
    with caplog.at_level(logging.INFO, "lbproxy.test"):
        for _ in range(5):
            limited.warning("dial", "dial %s failed", "a")
        now = 1.0
        limited.warning("dial", "dial %s failed", "a")
        limited.info("other", "fine")
    assert caplog.messages == ["dial a failed", "dial a failed (4 more like this were not logged)", "fine"]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield root
    root.handlers, root.level = handlers, level


def test_configure_writes_what_is_important_enough(tmp_path: Path, root_logger: logging.Logger) -> None:
    path = tmp_path / "log"
    handler = configure("warning", "json", str(path))
    logging.getLogger("lbproxy.a").info("quiet")
    logging.getLogger("lbproxy.a").error("loud")
    handler.close()
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["loud"]


def test_a_process_keeps_its_name_when_the_format_changes(tmp_path: Path, root_logger: logging.Logger) -> None:
    path = tmp_path / "log"
    handler = configure("info", "text", str(path), "worker 2")
    change("info", "json")
    logging.getLogger("lbproxy.a").info("named")
    handler.close()
    assert json.loads(path.read_text())["process"] == "worker 2"


def test_a_process_that_forks_writes_at_once_and_never_waits(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(DirectHandler, "FD", writing)
    configure_direct("info", "text", "supervisor")
    logging.getLogger("lbproxy.a").info("one")
    logging.getLogger("lbproxy.a").debug("quiet")
    assert os.read(reading, 1000).endswith(b" INFO lbproxy.a: [supervisor] one\n")
    for _ in range(200):  # more than a pipe holds
        logging.getLogger("lbproxy.a").info("x" * 3000)
    lines = os.read(reading, 1 << 20).split(b"\n")
    assert 0 < len(lines) < 200
    assert {line[-3000:] for line in lines[:-1]} == {b"x" * 3000}
    assert lines[-1] == b""
    os.close(reading)
    os.close(writing)
