"""The request line: method, target, version, and which of them are refused before anything else is looked at."""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.compiling import i64, text_of, visible_end, word_at
from lbproxy.protocol.field_lines import HeadError
from lbproxy.protocol.message import KNOWN_METHODS, TOKEN
from lbproxy.protocol.octets import mask_of

MAX_REQUEST_LINE: Final = 8 * 1024
MAX_METHOD: Final = 32  # the longest that is registered has 17 characters
_METHODS: Final[tuple[str, ...]] = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS")
_HTTP_11: Final = b" HTTP/1.1\r\n"
_HTTP: Final = 0x2E312F5054544820  # its first eight octets, as `word_at` has them
_VERSION: Final = 0x0A0D312E312F5054  # and its last


class _Method:
    """A method and the space behind it, as a word of which `mask` has the octets. size: theirs."""

    __slots__ = ("mask", "size", "text", "word")

    def __init__(self, text: str) -> None:
        self.text = text
        self.size: i64 = len(text) + 1
        self.mask: i64 = mask_of(self.size)
        self.word: i64 = word_at(f"{text} ".encode().ljust(8, b"\0"), 0)


_USUAL: Final[tuple[_Method, ...]] = tuple([_Method(method) for method in _METHODS])

_request_line = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n").match


def line_too_long(line_bytes: int) -> HeadError:
    """The refusal of a request line above the limit."""
    return HeadError(errors.URI_TOO_LONG, f"the request line is longer than {line_bytes} bytes")


def read_request_line(raw: bytes, line_bytes: int) -> tuple[str, str, int, int]:
    """Method, target and minor version (RFC 9112 section 3) of the line that `raw` begins with; its size with CR LF.

    raw: ends with CR LF. line_bytes: the longest line that is accepted, without them. Raises HeadError, or IndexError
    if `raw` ends in the middle of the target.
    """
    word = word_at(raw, 0)
    for method in _USUAL:
        if word & method.mask == method.word:
            start: i64 = method.size
            at = visible_end(raw, start)
            if at == len(raw):
                raise IndexError
            end = at + len(_HTTP_11)
            if start < at and end - 2 <= line_bytes and word_at(raw, at) == _HTTP and word_at(raw, at + 3) == _VERSION:
                return method.text, text_of(raw, start, at), 1, end
            break
    odd, target, minor = check_request_line(raw, line_bytes)
    return odd, target.decode("latin-1"), minor, raw.find(b"\r\n") + 2


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
