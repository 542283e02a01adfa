"""What of gRPC a proxy reads and writes (gRPC over HTTP/2): statuses, and answers without a message.

The status of a call comes behind its messages, in trailers, or, where there are none, in the head of an answer that has
nothing else (trailers-only). HTTP's own status is 200 in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lbproxy.protocol.message import Field, Fields

OK: Final = 0
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
ABORTED: Final = 10
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

NO_STATUS: Final = -1
MOST: Final = 16
"""The highest that is defined."""

BY_NAME: Final = {"unavailable": UNAVAILABLE, "resource_exhausted": RESOURCE_EXHAUSTED, "aborted": ABORTED}
"""Those that a config names."""

_TYPE: Final = b"content-type: application/grpc"
_BEHIND_TYPE: Final = b"\r+;"
_ZERO: Final = b"0"

# What HTTP would have said of the same, for whoever judges servers by that.
_AS_HTTP: Final = {
    UNKNOWN: 500,
    DEADLINE_EXCEEDED: 504,
    RESOURCE_EXHAUSTED: 429,
    INTERNAL: 500,
    UNAVAILABLE: 503,
}
# gRPC's own table for answers of proxies, and what is said more exactly here because lbproxy knows more.
_OF_HTTP: Final = {
    400: INTERNAL,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
    429: UNAVAILABLE,
    431: RESOURCE_EXHAUSTED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}


def is_grpc(lines: bytes) -> bool:
    """Is it gRPC's, by its fields as HTTP/2 has them? gRPC-Web is not: that has its status in the body."""
    at = lines.find(_TYPE)
    if at < 0 or (at and lines[at - 1] != 0x0A):
        return False
    return lines[at + len(_TYPE)] in _BEHIND_TYPE  # every line has its CR


def status_of(fields: Iterable[Field]) -> int:
    """`grpc-status` in trailers, or in a head without a body; NO_STATUS without one that can be read."""
    for name, value in fields:
        if name == b"grpc-status":
            if value == _ZERO:
                return OK
            return int(value) if value.isdigit() and len(value) < 4 else UNKNOWN
    return NO_STATUS


def push_back_s(fields: Iterable[Field]) -> float:
    """For how long the server wants to be left alone, in seconds, at most 300; -1.0 if it says nothing of that.

    0.0 is one that names no time: it does not want to see this call again (gRFC A6).
    """
    for name, value in fields:
        if name == b"grpc-retry-pushback-ms":
            return min(float(value) / 1000.0, 300.0) if value.isdigit() and len(value) < 10 else 0.0
    return -1.0


def as_http(status: int, *, pushes_back: bool) -> int:
    """The status of HTTP that says the same of a server; 200 for what is no fault of one."""
    if status == OK:
        return 200
    if status == UNAVAILABLE and pushes_back:
        return 429
    return _AS_HTTP.get(status, 200)


def of_http(status: int) -> int:
    """The status for an answer of lbproxy's own that would have had this one."""
    return _OF_HTTP.get(status, UNKNOWN)


def message(text: str) -> bytes:
    """A value of `grpc-message`: printable ASCII as it is, all else percent-encoded."""
    return b"".join([bytes((octet,)) if octet in _PLAIN else b"%%%02X" % octet for octet in text.encode()])


def trailers_only(status: int, text: str) -> Fields:
    """The fields of an answer that has nothing but a status and what it means."""
    return [
        (b"Content-Type", b"application/grpc"),
        (b"grpc-status", b"%d" % status),
        (b"grpc-message", message(text)),
    ]
