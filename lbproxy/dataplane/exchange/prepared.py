"""What a request's head has been made into (prepare.py), for all who deal with the request.

Heads that came in HTTP/2 may have a tail, of which nothing is made before somebody asks for more than goes on: for the
whole head, or its lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lbproxy.compiling import join_five, mypyc_attr
from lbproxy.dataplane.exchange.deadline import NEVER, Deadlines
from lbproxy.dataplane.guard import Check
from lbproxy.dataplane.runtime import ListenerRuntime, PoolRuntime, RouteRuntime
from lbproxy.errors import Fault
from lbproxy.protocol.h2.request import RequestHead2
from lbproxy.protocol.h2.tail import Tail
from lbproxy.protocol.http1 import RequestHead
from lbproxy.protocol.message import IDEMPOTENT_METHODS
from lbproxy.protocol.upgrade import allowed_protocols
from lbproxy.telemetry.accesslog import NO_HEAD
from lbproxy.telemetry.slots import CODES, METHODS, TRAFFIC

_REQUESTS: Final = TRAFFIC.offset["requests_total"]


class _Method:
    """What a method says of a request. column: where requests with it are counted."""

    __slots__ = ("column", "is_head", "is_idempotent")

    def __init__(self, name: str, index: int) -> None:
        self.column = _REQUESTS + index * len(CODES)
        self.is_head = name == "HEAD"
        self.is_idempotent = name in IDEMPOTENT_METHODS


_METHODS: Final = {name: _Method(name, index) for index, name in enumerate(METHODS)}


def _method(name: str) -> _Method:
    known = _METHODS.get(name)
    return known if known is not None else _Method(name, METHODS.index("other"))


class Cut:
    """A head to forward, and where a tail belongs in it. start, end: of HTTP/1.1. front, behind: of HTTP/2; None and
    b"" where that is not known yet."""

    __slots__ = ("behind", "end", "front", "start")

    def __init__(self, start: bytes, end: bytes) -> None:
        self.start = start
        self.end = end
        self.front: RequestHead2 | None = None
        self.behind = b""


@mypyc_attr(free_list_len=1, acyclic=True)
class Prepared:
    """A request head with its route and the head to forward. Shared by all requests with the same bytes.

    meaning: the head, perhaps without fields that say nothing to a gateway, which are its `tail` then (HTTP/2). cut: if
    it has one, where that belongs in the head that goes on.
    closes: it says that the connection to the server ends with the answer.
    total_s: the whole time that the request may take, in seconds, inf = any.
    checks: the rate limits that hold for it, None for none.
    is_connect: it came as extended CONNECT (RFC 8441), in which WebSocket has no key and a 2xx opens a tunnel.
    is_grpc: it is a call of gRPC, which has its errors where HTTP has trailers.
    fault: this request is answered with it (no route, body too large ...), although its framing is fine.
    location: where a redirect leads, b"" if that is the same for every request.
    upgrade: the protocols of the client's Upgrade that the server is offered, b"" for none.
    fork: its route is still to be chosen, by its body or by a split; what happens then is another one of these.
    """

    __slots__ = (
        "_forward",
        "_in_h2",
        "_is_whole",
        "binds",
        "checks",
        "chunked",
        "closes",
        "content_length",
        "cut",
        "deadlines",
        "dropped",
        "expects_continue",
        "fault",
        "fault_detail",
        "fork",
        "host_line",
        "is_connect",
        "is_grpc",
        "is_head",
        "is_idempotent",
        "is_local",
        "keep_alive",
        "location",
        "log_head",
        "meaning",
        "minor",
        "needs_care",
        "passes_responses",
        "pool",
        "requests_column",
        "route",
        "tail",
        "takes_port",
        "total_s",
        "upgrade",
    )

    def __init__(self, head: RequestHead, route: RouteRuntime, like: Prepared | None = None) -> None:
        """like: another one of the same route, which says all else."""
        self.route = route
        self.meaning = head
        self.tail: Tail | None = None
        self.cut: Cut | None = None
        self._is_whole = False  # `meaning` is the whole head, as somebody has asked for that
        self._forward = b""
        self._in_h2: RequestHead2 | None = None
        if like is None:
            method = _method(head.method)
            self.binds = head.binds
            self.checks: tuple[Check, ...] | None = None
            self.chunked = head.chunked
            self.closes = False
            self.content_length = head.content_length or 0
            self.deadlines: Deadlines | None = None  # what a trusted peer says of its patience
            self.dropped: tuple[tuple[int, int], ...] = ()
            self.expects_continue = head.expects_continue
            self.fault: Fault | None = None
            self.fault_detail = ""
            self.fork: Fork | None = None
            self.host_line = b""
            self.is_connect = False
            self.is_grpc = False
            self.is_head = method.is_head
            self.is_idempotent = route.retry.idempotent or method.is_idempotent
            self.is_local = False
            self.keep_alive = head.keep_alive
            self.location = b""  # of a redirect that depends on the request
            self.log_head = NO_HEAD
            self.minor = head.minor
            self.needs_care = head.chunked or head.expects_continue or head.binds
            # May an ordinary response go to this client as the memo has it?
            self.passes_responses = head.minor == 1 and not route.edits_responses
            self.pool: PoolRuntime | None = None  # where it goes; None: lbproxy answers it
            self.requests_column = method.column
            self.takes_port = False  # does the connection say the port that is published?
            self.total_s = route.timeouts.total if route.timeouts is not None else NEVER
            self.upgrade = allowed_protocols(head.upgrade, route.upgrades, head.method) if head.upgrade else b""
        else:
            self.binds = like.binds
            self.checks = like.checks
            self.chunked = like.chunked
            self.closes = like.closes
            self.content_length = like.content_length
            self.deadlines = like.deadlines
            self.dropped = like.dropped
            self.expects_continue = like.expects_continue
            self.fault = like.fault
            self.fault_detail = like.fault_detail
            self.fork = like.fork
            self.host_line = like.host_line
            self.is_connect = like.is_connect
            self.is_grpc = like.is_grpc
            self.is_head = like.is_head
            self.is_idempotent = like.is_idempotent
            self.is_local = like.is_local
            self.keep_alive = like.keep_alive
            self.location = like.location
            self.log_head = like.log_head
            self.minor = like.minor
            self.needs_care = like.needs_care
            self.passes_responses = like.passes_responses
            self.pool = like.pool
            self.requests_column = like.requests_column
            self.takes_port = like.takes_port
            self.total_s = like.total_s
            self.upgrade = like.upgrade

    def with_tail(self, cut: Cut, tail: Tail, deadlines: Deadlines | None) -> Prepared:
        """The same of this head with a tail. deadlines: what that says of a call of gRPC, None for nothing."""
        made = Prepared(self.meaning, self.route, self)
        made.cut = cut
        made.tail = tail
        if deadlines is not None:
            made.deadlines = deadlines
            if deadlines.timeout_s < made.total_s:
                made.total_s = deadlines.timeout_s
        return made

    @property
    def has_timeout(self) -> bool:
        """Does a time-out in the tail go on as it came?"""
        return not self.is_grpc

    # --- what is made of the tail only where somebody asks ----------------------------------------------------------

    @property
    def head(self) -> RequestHead:
        """The whole head."""
        if not self._is_whole and self.tail is not None:
            front = self.meaning
            lines = self.tail.lines(has_timeout=self.has_timeout)
            self.meaning = front.with_lines(front.lines + lines, self.tail.size - len(lines))
            self._is_whole = True
        return self.meaning

    @property
    def forward(self) -> bytes:
        """Request line and fields for the server, without forwarding fields, request id and the final blank line."""
        if self.cut is not None and not len(self._forward):
            self._make_forward(self.cut)
        return self._forward

    @forward.setter
    def forward(self, octets: bytes) -> None:
        self._forward = octets

    def _make_forward(self, cut: Cut) -> None:
        if self.tail is not None:
            self._forward = join_five(cut.start, self.tail.lines(has_timeout=self.has_timeout), cut.end, b"", b"")

    @property
    def forward_size(self) -> int:
        """About as many octets as `forward` has."""
        tail, cut = self.tail, self.cut
        if tail is not None and cut is not None:
            return len(cut.start) + tail.size + len(cut.end)
        return len(self._forward)

    @property
    def in_h2(self) -> RequestHead2 | None:
        """The same for a server of HTTP/2; None where that is not known yet."""
        tail, cut = self.tail, self.cut
        if tail is not None and cut is not None and cut.front is not None and self._in_h2 is None:
            front = cut.front
            self._in_h2 = front.with_lines(front.lines + tail.lines(has_timeout=self.has_timeout) + cut.behind)
        return self._in_h2

    @in_h2.setter
    def in_h2(self, head: RequestHead2) -> None:
        self._in_h2 = head

    # What strategies may read of a request (RequestView).

    @property
    def method(self) -> str:
        return self.meaning.method

    @property
    def path(self) -> str:
        return self.meaning.path

    @property
    def query(self) -> str:
        return self.meaning.query

    @property
    def host(self) -> str:
        return self.meaning.host

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers


@mypyc_attr(acyclic=True)
class Fork:
    """The routes of which one takes a request, which is only known when its body is, or chance was asked (choosing.py).

    routes: those that depend on the body, in their order, and behind them the one that takes it otherwise. deadlines:
    what was taken out of the head, which is the same for all of them.
    """

    __slots__ = ("deadlines", "head", "listener", "routes")

    def __init__(self, listener: ListenerRuntime, head: RequestHead, routes: list[RouteRuntime]) -> None:
        self.listener = listener
        self.head = head
        self.routes = routes
        self.deadlines: Deadlines | None = None

    def prepared(self, number: int, branch: int = 0) -> Prepared:
        """What happens if it is this one of `routes`, and this one of its branches where it has some."""
        raise NotImplementedError
