"""What was prepared for a request's head, for others that differ in nothing but fields that say nothing to a gateway.

A trace id is new in each request, so no such head comes again as it is; but all that it leads to is known, from the
head without it. The same goes for the time-out of a call of gRPC, but for the time that it says. What is made here is
what `prepare` makes of the whole head, and where that is not sure, nothing is.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.dataplane.exchange.deadline import deadline_of_call
from lbproxy.dataplane.exchange.prepared import Cut, Prepared
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.tail import Tail

_FRAMING: Final = 4
"""Lines of HTTP/1.1 for what HTTP/2 says otherwise: Host, a length or a coding, TE, Connection."""


class Template:
    """Of one head that came in HTTP/2, which has `n_fields` of its own. front: that head.

    may_vary: whether other heads may be made of it. It may not where anything that is configured looks at fields by
    their names, or changes them.
    """

    __slots__ = ("_cut", "_most", "_names", "front", "may_vary", "prepared")

    def __init__(
        self, front: H2Head, prepared: Prepared, listener: ListenerRuntime, n_fields: int, *, is_trusted: bool
    ) -> None:
        self.front = front
        self.prepared = prepared
        self._names: frozenset[bytes] = listener.deadline_names if is_trusted else frozenset()
        self._most: i64 = listener.max_fields - n_fields - _FRAMING
        self._cut = cut_of(prepared)
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
            and self._cut is not None
        )

    def followed_by(self, tail: Tail) -> Prepared | None:
        """What `prepare` makes of the head with this tail; None where it has to be asked."""
        cut = self._cut
        if not self.may_vary or cut is None or tail.count > self._most:
            return None
        template = self.prepared
        if len(self._names):
            for field in tail.fields:
                if field.name in self._names:
                    return None
        if not template.is_grpc or not tail.timeout_size:
            return template.with_tail(cut, tail, None)
        timeout_s = tail.timeout_s
        if timeout_s < 0.0 or template.deadlines is not None:
            return None
        return template.with_tail(cut, tail, deadline_of_call(timeout_s, tail.timeout_unit))


def cut_of(prepared: Prepared) -> Cut | None:
    """Where further lines stand: behind those that go through, before those of lbproxy. None if that is not sure."""
    in_h2, forward, lines = prepared.in_h2, prepared.forward, prepared.head.lines
    start = forward.find(b"\r\n", forward.find(b"\r\n") + 2) + 2  # behind the request line and Host
    if not forward.startswith(lines, start):
        return None
    cut = Cut(forward[: start + len(lines)], forward[start + len(lines) :])
    if in_h2 is not None:
        if not in_h2.lines.startswith(lines):
            return None
        cut.front = in_h2.with_lines(lines)
        cut.behind = in_h2.lines[len(lines) :]
    return cut
