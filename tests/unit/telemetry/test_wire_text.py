"""Bytes -> a line of any format -> the same bytes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbproxy.telemetry import wire_text
from lbproxy.telemetry.accesslog import make_format
from lbproxy.telemetry.log import JsonFormatter, TextFormatter
from tests.support import log_text
from tests.support.log_records import record as log_record

ALL_BYTES = bytes(range(256))
NASTY = (ALL_BYTES, b"-", b"", b"\\x41", b'\\"', b"\r\n2026 CRITICAL", "é\u2028".encode(), b"a b", b"\\\\u0041")


def nasty(test: Callable[..., None]) -> Callable[..., None]:
    for raw in NASTY:
        test = example(raw=raw)(test)
    return given(raw=st.binary(max_size=100))(test)


def rendered(name: str, raw: bytes) -> str:
    text = wire_text.from_wire(raw)
    log_format = make_format(name)
    line = log_format.line(log_record(log_head=log_format.head_part("GET", text, "h", "HTTP/1.1", text, text)))
    assert line.isascii() and line.isprintable()
    return line


@nasty
def test_json(raw: bytes) -> None:
    fields = json.loads(rendered("json", raw))
    for key in ("target", "user_agent"):
        assert log_text.to_wire(fields[key]) == raw


@nasty
def test_common(raw: bytes) -> None:
    request = re.search(r'"((?:[^"\\]|\\.)*)"', rendered("common", raw))
    assert request is not None
    method, target, protocol = request[1].split(" ")
    assert (method, protocol) == ("GET", "HTTP/1.1")
    assert log_text.to_wire(log_text.unescaped(target)) == raw


@nasty
def test_combined(raw: bytes) -> None:
    _, referer, agent = re.findall(r'"((?:[^"\\]|\\.)*)"', rendered("combined", raw))
    for quoted in (referer, agent):
        assert log_text.to_wire("" if quoted == "-" else log_text.unescaped(quoted)) == raw


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("lbproxy", logging.INFO, "", 0, "said %s", (text,), None)


@nasty
def test_the_text_log(raw: bytes) -> None:
    line = TextFormatter().format(record(wire_text.from_wire(raw)))
    assert len(line.splitlines()) == 1
    assert log_text.to_wire(log_text.unescaped(line).partition("said ")[2]) == raw


@nasty
def test_the_json_log(raw: bytes) -> None:
    line = JsonFormatter().format(record(wire_text.from_wire(raw)))
    assert len(line.splitlines()) == 1
    assert log_text.to_wire(json.loads(line)["message"].partition("said ")[2]) == raw


@given(text=st.text(st.characters(), max_size=60))
def test_text_of_the_config_survives_too(text: str) -> None:
    """Names of pools and subjects of certificates hold more than bytes; even halves of characters are kept."""
    for escape in (wire_text.quotable, wire_text.without_spaces, wire_text.one_line):
        escaped = escape(text)
        assert log_text.unescaped(escaped) == text
        escaped.encode()


@pytest.mark.parametrize(
    ("text", "quoted", "line"),
    [
        ("plain text", "plain text", "plain text"),
        ('say "é"\n', r"say \"\xe9\"\x0a", 'say "é"\\x0a'),
        ("C:\\x", r"C:\\x", r"C:\\x"),
        ("\u2028€", r"\u2028\u20ac", "\\u2028€"),
    ],
)
def test_how_it_looks(text: str, quoted: str, line: str) -> None:
    assert (wire_text.quotable(text), wire_text.one_line(text)) == (quoted, line)
    assert wire_text.without_spaces(text) == quoted.replace(" ", r"\x20")
