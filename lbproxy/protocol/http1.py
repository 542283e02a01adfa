"""HTTP/1.x heads: bytes to meaning, and nothing that was not fully understood gets through.

A head is read up to its blank line, whatever is behind that; `BodyReader`s in body.py own all framing there. This is
the door to what reads heads (request_head.py and response_head.py, line by line: field_lines.py), and says what can be
said of a head that is not complete yet. Tests hold all of it against h11 and llhttp, two parsers by others.
"""

from __future__ import annotations

import re

from lbproxy import errors
from lbproxy.protocol.field_lines import END, HeadError
from lbproxy.protocol.request_head import RequestHead, parse_request_head, read_request_head
from lbproxy.protocol.request_line import MAX_REQUEST_LINE, check_request_line, line_too_long
from lbproxy.protocol.response_head import ResponseHead, parse_response_head, read_response_head

# No control character belongs into a head but HTAB and the CR LF pairs that end its lines.
_bad_octet = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)").search


def check_partial(
    buffer: bytearray, start: int, *, head_bytes: int, line_bytes: int = MAX_REQUEST_LINE, is_response: bool = False
) -> None:
    """Refuse an unfinished head as soon as it can't become a good one. `start`: how much was checked before.

    Each byte is looked at a bounded number of times, however the head is cut. line_bytes: the longest request line,
    without its CR LF. Raises HeadError.
    """
    if _bad_octet(buffer, max(0, start - 1)) is not None:
        raise HeadError(errors.BAD_REQUEST, "a control character, a bare CR or a bare LF in the head")
    if is_response:
        return
    line_end = buffer.find(b"\r\n", max(0, start - 1))
    if line_end >= 0 and start <= line_end + 1:
        first = buffer.find(b"\r\n")
        if first == line_end:
            check_request_line(bytes(buffer[: first + 2]), line_bytes)
    if len(buffer) > line_bytes and buffer.find(b"\r\n", 0, line_bytes + 2) < 0:
        raise line_too_long(line_bytes)
    if len(buffer) > head_bytes:
        raise HeadError(errors.HEADER_TOO_LARGE, f"the head is longer than {head_bytes} bytes")


__all__ = [
    "END",
    "MAX_REQUEST_LINE",
    "HeadError",
    "RequestHead",
    "ResponseHead",
    "check_partial",
    "line_too_long",
    "parse_request_head",
    "parse_response_head",
    "read_request_head",
    "read_response_head",
]
