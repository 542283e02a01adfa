"""The request line: method, target, version, and which of them are refused before anything else is looked at."""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.protocol.field_lines import HeadError, is_visible
from lbproxy.protocol.message import KNOWN_METHODS, TOKEN

MAX_REQUEST_LINE: Final = 8 * 1024
MAX_METHOD: Final = 32  # the longest that is registered has 17 characters
_USUAL_METHODS: Final = {method: method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}
_HTTP_11: Final = " HTTP/1.1"

_request_line = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n").match


def line_too_long(line_bytes: int) -> HeadError:
    """The refusal of a request line above the limit."""
    return HeadError(errors.URI_TOO_LONG, f"the request line is longer than {line_bytes} bytes")


def read_request_line(line: str, line_bytes: int) -> tuple[str, str, int]:
    """Method, target and minor version (RFC 9112 section 3) of a line. Raises HeadError.

    line: without its CR LF. line_bytes: the longest that is accepted.
    """
    space = line.find(" ")
    end = len(line) - len(_HTTP_11)
    if 0 < space < end and line.endswith(_HTTP_11) and len(line) <= line_bytes:
        usual, target = _USUAL_METHODS.get(line[:space]), line[space + 1 : end]
        if usual is not None and target and is_visible(target):
            return usual, target, 1
    method, odd, minor = check_request_line(line.encode("latin-1") + b"\r\n", line_bytes)
    return method, odd.decode("latin-1"), minor


def check_request_line(raw: bytes, line_bytes: int) -> tuple[str, bytes, int]:
    """The same of the line, with its CR LF, that `raw` starts with; any octets, any method."""
    match = _request_line(raw)
    if match is None:
        line, _, _ = raw.partition(b"\r\n")
        if len(line) > line_bytes:
            raise line_too_long(line_bytes)
        raise HeadError(errors.BAD_REQUEST, "the request line is not METHOD SP TARGET SP HTTP/1.1")
    method, target, major, minor = match.groups()
    if match.end() > line_bytes + 2:
        raise line_too_long(line_bytes)
    if major == b"0":
        raise HeadError(errors.BAD_REQUEST, "HTTP/0.9 is not served")
    if major != b"1" or minor not in (b"0", b"1"):
        raise HeadError(errors.BAD_VERSION, f"HTTP/{major.decode()}.{minor.decode()} is not served")
    if method.decode() not in _USUAL_METHODS:
        _check_method(method)
    return method.decode(), target, int(minor)


def _check_method(method: bytes) -> None:
    """Refuse what is no method of an ordinary request. Every other token is one (RFC 9110 section 9.1).

    Methods differ by case, and `head` is not HEAD: its answer has a body. But servers exist that fold the case
    (Werkzeug), and would leave out the body that lbproxy then waits for. So another spelling of a known method is
    refused. PRI is reserved: an HTTP/2 connection begins with it (RFC 9113 section 11.6).
    """
    if method in (b"CONNECT", b"TRACE"):
        raise HeadError(errors.METHOD_NOT_ALLOWED, f"{method.decode()} is not served")
    if len(method) > MAX_METHOD:
        raise HeadError(errors.BAD_METHOD, f"the method is longer than {MAX_METHOD} characters")
    upper = method.upper()
    if upper == b"PRI" or (upper != method and upper in KNOWN_METHODS):
        raise HeadError(errors.BAD_METHOD, f"there is no method {method.decode()!r}")
