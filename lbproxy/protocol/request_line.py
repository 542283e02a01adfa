"""The request line: method, target, version, and which of them are refused before anything else is looked at."""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.errors import Fault
from lbproxy.protocol.message import KNOWN_METHODS, TOKEN

MAX_REQUEST_LINE: Final = 8 * 1024
MAX_METHOD: Final = 32  # the longest that is registered has 17 characters
USUAL_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))

_request_line = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n").match


class HeadError(Exception):
    """A head that is refused. `fault` says how; `detail` says what was wrong with this one."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def line_too_long(line_bytes: int) -> HeadError:
    """The refusal of a request line above the limit."""
    return HeadError(errors.URI_TOO_LONG, f"the request line is longer than {line_bytes} bytes")


def check_request_line(raw: bytes, line_bytes: int) -> tuple[str, bytes, int]:
    """Method, target and minor version of the line that `raw` starts with (RFC 9112 section 3). Raises HeadError.

    line_bytes: the longest that is accepted, without its CR LF.
    """
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
    if method not in USUAL_METHODS:
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
