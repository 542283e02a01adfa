"""What was prepared for a request's head, for others that differ in nothing but fields that say nothing to a gateway.

A trace id is new in each request, so no such head comes again as it is; but all that it leads to is known, from the
head without it. The same goes for the time-out of a call of gRPC, but for the time that it says. What is made here is
what `prepare` makes of the whole head, and where that is not sure, nothing is.
"""

from __future__ import annotations

from typing import Final

from lbproxy.dataplane.exchange.deadline import Deadlines
from lbproxy.dataplane.exchange.prepare import Prepared
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.protocol.deadline import GRPC_TIMEOUT, parse_timeout
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.request import RequestHead2

_FRAMING: Final = 4
"""Lines of HTTP/1.1 for what HTTP/2 says otherwise: Host, a length or a coding, TE, Connection."""
_LINE: Final = 4
"""Octets of a line besides name and value."""


class Template:
    """Of one head that came in HTTP/2, which has `n_fields` of its own.

    may_vary: whether other heads may be made of it. It may not where anything that is configured looks at fields by
    their names, or changes them.
    """

    __slots__ = ("_behind", "_end", "_front", "_lines", "_most", "_names", "_start", "may_vary", "prepared")

    def __init__(self, prepared: Prepared, listener: ListenerRuntime, n_fields: int, *, is_trusted: bool) -> None:
        self.prepared = prepared
        self._names: frozenset[bytes] = listener.deadline_names if is_trusted else frozenset()
        self._most = listener.max_fields - n_fields - _FRAMING
        self._lines = prepared.head.lines
        self._front: RequestHead2 | None = None
        self._behind = self._start = self._end = b""
        self.may_vary = (
            prepared.fault is None
            and prepared.fork is None
            and prepared.pool is not None
            and prepared.route.request_edits.is_empty
            and not prepared.upgrade
            and not prepared.head.secrets
            and not prepared.route.retry.idempotency_key
            and listener.guard is None
            and (listener.has_default_only or not listener.router.reads_headers)
            and self._cut()
        )

    def _cut(self) -> bool:
        """Where further lines stand: behind those that go through, before those of lbproxy."""
        in_h2, forward, lines = self.prepared.in_h2, self.prepared.forward, self._lines
        start = forward.find(b"\r\n", forward.find(b"\r\n") + 2) + 2  # behind the request line and Host
        if not forward.startswith(lines, start):
            return False
        self._start = forward[: start + len(lines)]
        self._end = forward[start + len(lines) :]
        if in_h2 is None:
            return True
        front = self._front = RequestHead2(in_h2.method, in_h2.path)
        front.authority = in_h2.authority
        front.length = in_h2.length
        front.lines = lines
        self._behind = in_h2.lines[len(lines) :]
        return in_h2.lines.startswith(lines)

    def followed_by(self, fields: list[H2Field]) -> Prepared | None:
        """What `prepare` makes of the head with these inert fields behind; None where it has to be asked."""
        if not self.may_vary or len(fields) > self._most:
            return None
        template = self.prepared
        deadlines: Deadlines | None = None
        sent = fields
        if self._names:
            for field in fields:
                if field.name in self._names:
                    return None
        size = 0
        if template.is_grpc:
            for field in fields:
                if field.name == GRPC_TIMEOUT:
                    parsed = parse_timeout(GRPC_TIMEOUT, field.value)
                    if parsed is None or deadlines is not None or template.deadlines is not None:
                        return None
                    deadlines = Deadlines(parsed[0], [(field.name, parsed[1])], 0)
                    size = field.size + _LINE
            if deadlines is not None:
                sent = [field for field in fields if field.name != GRPC_TIMEOUT]
        lines = b"".join([field.line for field in sent])
        made = template.with_head(template.head.with_lines(self._lines + lines, size))
        made.forward = b"%b%b%b" % (self._start, lines, self._end)
        if self._front is not None:
            made.in_h2 = self._front.followed_by(sent, self._behind)
        if deadlines is not None:
            made.deadlines = deadlines
            made.total_s = min(made.total_s, deadlines.timeout_s)
        return made
