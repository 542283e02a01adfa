"""Requests as HTTP/2 servers get them: the head that is sent to servers of HTTP/1, without what only that has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.protocol.message import Field, forwardable_trailers, join_fields

# RFC 9113 section 8.2.2; the request was understood, and what they say is in the frames.
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
TE_TRAILERS: Final = b"te: trailers\r\n"
_HOST: Final = b"host"
_TE: Final = b"te"
_CONTENT_LENGTH: Final = b"content-length"
_NONE: Final[frozenset[bytes]] = frozenset()


@mypyc_attr(free_list_len=1, acyclic=True)
class RequestHead2:
    """A request's head in the terms of RFC 9113 section 8.3.1.

    lines: field lines as HTTP/1 has them, which may come again and again. length: the line of its length, which is
    another in each request; b"" without one.
    """

    __slots__ = (
        "_all_lines",
        "_scheme",
        "authority",
        "length",
        "lines",
        "method",
        "path",
    )

    def __init__(self, method: bytes, path: bytes) -> None:
        self.method = method
        self.path = path
        self.authority = b""
        self.lines = b""
        self.length = b""
        self._all_lines = b""
        self._scheme = b""

    def with_lines(self, lines: bytes) -> RequestHead2:
        """The same with other lines."""
        head = RequestHead2(self.method, self.path)
        head.authority = self.authority
        head.length = self.length
        head.lines = lines
        return head

    def all_lines(self, scheme: bytes) -> bytes:
        """`lines` behind those of the pseudo-fields: the same object each time, so that its hash is computed once."""
        if not len(self._all_lines) or self._scheme != scheme:
            self._scheme = scheme
            self._all_lines = b":method: %b\r\n:scheme: %b\r\n:authority: %b\r\n:path: %b\r\n%b" % (
                self.method,
                scheme,
                self.authority,
                self.path,
                self.lines,
            )
        return self._all_lines


def request_head(forward: bytes) -> RequestHead2:
    """From `Prepared.forward`: the request line of HTTP/1.1, and field lines, each with CR LF."""
    start = forward.index(b"\r\n")
    method, path, _ = forward[:start].split(b" ")
    head = RequestHead2(method, path)
    kept: list[bytes] = []
    for line in forward[start + 2 :].split(b"\r\n"):
        colon = line.find(b":")
        if colon < 0:
            continue
        name = line[:colon].lower()
        if name == _HOST:
            head.authority = line[colon + 1 :].strip()
        elif name == _CONTENT_LENGTH:
            head.length = line + b"\r\n"
        elif name == _TE:
            kept.append(TE_TRAILERS[:-2])  # it was read, and nothing else goes on
        elif name not in _OF_CONNECTIONS:
            kept.append(line)
    if kept:
        kept.append(b"")
        head.lines = b"\r\n".join(kept)
    return head


def trailer_lines(trailers: Sequence[Field]) -> bytes:
    """The trailer fields of a request that go on, as lines; b"" for none."""
    return join_fields(forwardable_trailers(trailers, _NONE)) if trailers else b""
