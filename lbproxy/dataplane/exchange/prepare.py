"""From the bytes of a request head to everything that forwarding needs: a pure function of the bytes and the config.

That it is pure is what makes the memo of heads sound (protocol/repeats.py). What differs between equal heads (client
address, request id) is added by the client side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lbproxy import errors
from lbproxy.compiling import join_seven, length_line, mypyc_attr
from lbproxy.dataplane.exchange.deadline import Deadlines, take_deadlines
from lbproxy.dataplane.exchange.forwarding import published_lines, usual_lines
from lbproxy.dataplane.exchange.location import fill_location
from lbproxy.dataplane.exchange.prepared import Fork, Prepared
from lbproxy.dataplane.guard import NO_KEY
from lbproxy.dataplane.runtime import ListenerRuntime, PoolRuntime, RouteRuntime
from lbproxy.domain.paths import BadPath, ReadPath, rewrite_path
from lbproxy.domain.splitting import MOST_POOLS
from lbproxy.errors import Fault
from lbproxy.protocol.deadline import GRPC_TIMEOUT
from lbproxy.protocol.field_lines import fields_of
from lbproxy.protocol.grpc import is_grpc
from lbproxy.protocol.h2.request import TE_TRAILERS, RequestHead2
from lbproxy.protocol.http1 import HeadError, RequestHead, parse_request_head
from lbproxy.protocol.message import KNOWN_METHODS, VIA_PSEUDONYM, join_fields
from lbproxy.protocol.upgrade import WEBSOCKET
from lbproxy.protocol.websocket import sent_key
from lbproxy.telemetry.accesslog import HeadPart, LogFormat
from lbproxy.telemetry.slots import PROCESS
from lbproxy.telemetry.wire_text import from_wire

_UNDERSCORE: Final = PROCESS.column("headers_dropped_total", "underscore")
_NOMINATED: Final = PROCESS.column("headers_dropped_total", "nominated")
_SPOOFED: Final = PROCESS.column("headers_dropped_total", "spoofed")
_ONE_SPOOFED: Final[tuple[tuple[int, int], ...]] = ((_SPOOFED, 1),)
_UNREADABLE: Final = PROCESS.column("headers_dropped_total", "bad_deadline")
HTTP_2: Final = "HTTP/2"
_PROTOCOLS: Final[tuple[str, ...]] = ("HTTP/1.0", "HTTP/1.1")
_VIA: Final = b"Via: 1.1 " + VIA_PSEUDONYM + b"\r\n"
_VIA_10: Final = b"Via: 1.0 " + VIA_PSEUDONYM + b"\r\n"
_VIA_2: Final = b"Via: 2 " + VIA_PSEUDONYM + b"\r\n"
_NO_NAMES: Final[frozenset[bytes]] = frozenset()
_NO_HEADERS: Final[Mapping[str, str]] = {}
_GRPC_NAMES: Final[frozenset[bytes]] = frozenset((GRPC_TIMEOUT,))
# Of a request line that was refused: what the log can tell, however odd. Its protocol only if there is one.
_said = re.compile(rb"([!-~]+) ([^ \r\n]+)(?: (HTTP/[0-9]\.[0-9])\r?\n)?").match


@mypyc_attr(acyclic=True)
class _Fork(Fork):
    """What it needs to prepare the head again."""

    __slots__ = (
        "_is_http2",
        "_is_trusted",
        "_key_found",
        "_local_host",
        "_log_format",
        "_made",
        "_path",
    )

    def __init__(
        self,
        listener: ListenerRuntime,
        head: RequestHead,
        path: ReadPath | None,
        log_format: LogFormat | None,
        local_host: str,
        routes: list[RouteRuntime],
        key_found: int,
        *,
        is_trusted: bool,
        is_http2: bool,
    ) -> None:
        super().__init__(listener, head, routes)
        self._path = path
        self._log_format = log_format
        self._local_host = local_host
        self._key_found = key_found
        self._is_trusted = is_trusted
        self._is_http2 = is_http2
        self._made: dict[int, Prepared] = {}

    def prepared(self, number: int, branch: int = 0) -> Prepared:
        """What happens if it is this one of `routes`, and this one of its branches where it has some."""
        key = number * MOST_POOLS + branch
        made = self._made.get(key)
        if made is None:
            route = self.routes[number]
            made = self._made[key] = _prepared(
                self.listener,
                self.head,
                route.branches[branch] if route.branches else route,
                self._path,
                "",
                None,
                self._key_found,
                is_trusted=self._is_trusted,
                log_format=self._log_format,
                local_host=self._local_host,
                is_http2=self._is_http2,
                taken=self.deadlines,
            )
        return made


def prepare(
    listener: ListenerRuntime,
    raw: bytes,
    *,
    is_trusted: bool,
    log_format: LogFormat | None,
    local_host: str,
    is_http2: bool = False,
) -> Prepared:
    """Parse, route and rewrite one head. Raises HeadError if its framing can't be trusted.

    local_host: what Host becomes if an HTTP/1.0 client sent none. is_http2: it came in HTTP/2, and was written as the
    same head of HTTP/1.1.
    """
    head = parse_request_head(
        raw, max_fields=listener.max_fields, underscores=listener.underscores, line_bytes=listener.line_bytes
    )
    return prepare_head(
        listener, head, is_trusted=is_trusted, log_format=log_format, local_host=local_host, is_http2=is_http2
    )


def prepare_head(
    listener: ListenerRuntime,
    head: RequestHead,
    *,
    is_trusted: bool,
    log_format: LogFormat | None,
    local_host: str,
    is_http2: bool = False,
) -> Prepared:
    """The same of a head that was read."""
    route = listener.no_route
    path: ReadPath | None = None
    by_body: tuple[int, ...] = ()
    bad = ""
    keys = listener.guard.keys if listener.guard is not None else None
    key_found = keys.identify(head) if keys is not None else NO_KEY
    try:
        if listener.has_default_only:
            route = listener.routes[0]
        else:
            choice = listener.router.choose(
                head.method,
                head.host,
                head.path,
                head.query,
                matched_headers(head, is_trusted=is_trusted) if listener.router.reads_headers else _NO_HEADERS,
                has_body=head.has_body,
            )
            path = choice.path
            by_body = choice.by_body
            if choice.index is not None:
                route = listener.routes[choice.index]
    except BadPath as error:
        bad = str(error)
    fork: Fork | None = None
    if by_body or route.split is not None:
        routes = [*[listener.routes[index] for index in by_body], route]
        fork = _Fork(
            listener,
            head,
            path,
            log_format,
            local_host,
            routes,
            key_found,
            is_trusted=is_trusted,
            is_http2=is_http2,
        )
        route = listener.no_route
    return _prepared(
        listener,
        head,
        route,
        path,
        bad,
        fork,
        key_found,
        is_trusted=is_trusted,
        log_format=log_format,
        local_host=local_host,
        is_http2=is_http2,
    )


def _prepared(
    listener: ListenerRuntime,
    head: RequestHead,
    route: RouteRuntime,
    path: ReadPath | None,
    bad: str,
    fork: Fork | None,
    key_found: int,
    *,
    is_trusted: bool,
    log_format: LogFormat | None,
    local_host: str,
    is_http2: bool,
    taken: Deadlines | None = None,
) -> Prepared:
    """What is done with a head by a route. path: as the rules saw it, None if none has looked at it. bad: why it can't
    be understood. fork: the route is not known yet. key_found: see KeyRules.identify. taken: what its time-outs said,
    if they were taken out of the head before."""
    fault: Fault | None = None
    detail = ""
    location = b""
    if not bad:
        try:
            if route.reads_path and path is None:
                path = listener.path_rules.read(head.path)
            if route.redirect is not None and route.fills_location:
                location = fill_location(route.redirect[1], head.host or local_host, head.target)
        except BadPath as error:
            bad = str(error)
    if bad:
        fault, detail, route = errors.BAD_PATH, bad, listener.no_route
    guard = listener.guard
    keys = guard.keys if guard is not None else None
    key_fault = route.keys.refusal(key_found, head.key_name) if route.keys is not None else None
    if listener.methods is not None and head.method not in listener.methods:
        fault, detail = _refused_method(head.method)
    if not listener.serves_h1 and not is_http2:
        fault, detail = errors.BAD_VERSION, "this listener serves HTTP/2 only"
    prepared = Prepared(head, route)
    prepared.location = location
    if listener.is_leaving:
        prepared.keep_alive = False
    prepared.is_grpc = is_http2 and is_grpc(head.lines)
    names = listener.deadline_names if is_trusted else _NO_NAMES
    if prepared.is_grpc:
        names = names | _GRPC_NAMES  # from anybody: it only makes the time shorter
    if len(names):
        prepared.deadlines = taken if taken is not None else take_deadlines(head, names)
        if fork is not None:
            fork.deadlines = prepared.deadlines
        if prepared.deadlines is not None:
            prepared.total_s = min(prepared.total_s, prepared.deadlines.timeout_s)
    if fault is not None:
        prepared.fault, prepared.fault_detail = fault, detail
    elif route is listener.no_route and fork is None:
        prepared.fault, prepared.fault_detail = errors.NO_ROUTE, f"no route for {head.method} {head.path[:200]}"
    elif key_fault is not None:
        prepared.fault = key_fault
    elif head.content_length is not None and float(head.content_length) > listener.body_bytes:
        prepared.fault = errors.BODY_TOO_LARGE
        prepared.fault_detail = f"Content-Length {head.content_length} is over the limit of {listener.body_bytes:.0f}"
    elif head.max_forwards is not None and head.max_forwards == 0:
        prepared.is_local = True
    elif fork is not None:
        prepared.fork = fork
    elif is_http2 and head.upgrade and not _may_connect(prepared, route):
        prepared.fault = errors.CONNECT_PROTOCOL
        prepared.fault_detail = f"this route does not let {head.upgrade[0].decode()!r} through"
    elif (
        route.pool is not None
        and len(prepared.upgrade)
        and not _may_bridge(prepared, head, route.pool, is_http2=is_http2)
    ):
        prepared.fault = errors.BAD_REQUEST
        prepared.fault_detail = "Sec-WebSocket-Key is not 16 octets in base64 (RFC 6455 section 4.1)"
    elif route.pool is not None and prepared.is_grpc and route.pool.protocol == "h1":
        prepared.fault = errors.GRPC_NEEDS_H2
        prepared.fault_detail = f"pool {route.pool.name} speaks HTTP/1.1 to its servers"
    elif route.pool is not None:
        if route.retry.idempotency_key and _has_field(head, b"idempotency-key"):
            prepared.is_idempotent = True
        prepared.pool = route.pool
        if route.pool.keep_alive is None and not prepared.upgrade:
            prepared.closes = prepared.needs_care = True
        prepared.forward = _forward_head(head, prepared, path, local_host, is_http2=is_http2)
    _note_dropped(prepared, head, is_trusted=is_trusted)
    if is_trusted or len(route.skip) or not head.host:
        known = head.forwarding if is_trusted else {}
        prepared.host_line, prepared.takes_port = published_lines(head.host, known, route.skip, local_host)
    else:
        prepared.host_line, prepared.takes_port = usual_lines(head.host)
    if guard is not None and guard.limits:
        prepared.checks = guard.checks(head, matched_headers(head, is_trusted=is_trusted))
    if log_format is not None:
        prepared.log_head = log_format.usual_head_part(
            head.method,
            head.target_text if keys is None else keys.hidden(head.target_text),
            head.host,
            HTTP_2 if is_http2 else _PROTOCOLS[head.minor],
            head.user_agent,
            head.referer,
        )
        if head.key_name:
            prepared.log_head = log_format.with_key(prepared.log_head, head.key_name)
    return prepared


def _may_connect(prepared: Prepared, route: RouteRuntime) -> bool:
    """Extended CONNECT asks for a tunnel and is not served without one; a 2xx of ours would open it."""
    prepared.is_connect = prepared.needs_care = True
    if route.respond is not None:
        return route.respond[0] >= 300
    return route.pool is None or bool(prepared.upgrade)


def _may_bridge(prepared: Prepared, head: RequestHead, pool: PoolRuntime, *, is_http2: bool) -> bool:
    """A server of HTTP/2 opens WebSockets without a key, and nothing else: may lbproxy answer this client's?"""
    if pool.protocol == "h1":
        return True
    if WEBSOCKET in prepared.upgrade.split(b", "):
        prepared.upgrade = WEBSOCKET
        return is_http2 or bool(sent_key(head.lines))
    if pool.protocol == "h2":
        prepared.upgrade = b""
    return True


def matched_headers(head: RequestHead, *, is_trusted: bool) -> Mapping[str, str]:
    """What rules about headers see: of forwarding fields only those that are believed."""
    if not is_trusted or not head.claims:
        return head.headers
    known = {name.decode(): b", ".join(values).decode("latin-1") for name, values in head.forwarding.items()}
    return {**head.headers, **known}


def _refused_method(method: str) -> tuple[Fault, str]:
    """A method that the listener does not list (RFC 9110 section 9.1: 405 if it is known, else 501)."""
    fault = errors.METHOD_NOT_ALLOWED if method.encode() in KNOWN_METHODS else errors.BAD_METHOD
    return fault, f"{method} is not among the methods of this listener"


def log_head(log_format: LogFormat, head: RequestHead, protocol: str) -> HeadPart:
    """The part of the log line that depends on the head alone; of one that was refused."""
    return log_format.head_part(
        head.method,
        head.target_text,
        head.host,
        protocol,
        head.user_agent,
        head.referer,
    )


def _has_field(head: RequestHead, lower: bytes) -> bool:
    return any(name.lower() == lower for name, _ in head.fields)


def _note_dropped(prepared: Prepared, head: RequestHead, *, is_trusted: bool) -> None:
    spoofed = 0 if is_trusted else len(head.claims) // 2
    unreadable = prepared.deadlines.n_unreadable if prepared.deadlines is not None else 0
    if head.underscore_dropped or head.nominated_dropped or unreadable:
        counts = (
            (_UNDERSCORE, head.underscore_dropped),
            (_NOMINATED, head.nominated_dropped),
            (_SPOOFED, spoofed),
            (_UNREADABLE, unreadable),
        )
        prepared.dropped = tuple([(column, count) for column, count in counts if count])
    elif spoofed:
        prepared.dropped = _ONE_SPOOFED if spoofed == 1 else ((_SPOOFED, spoofed),)


def _forward_head(
    head: RequestHead, prepared: Prepared, path: ReadPath | None, local_host: str, *, is_http2: bool
) -> bytes:
    """The head as the server gets it: written anew from what was understood.

    path: as the rules saw it, which is then how it is sent; None if none has looked at it.
    """
    route, closes, upgrade = prepared.route, prepared.closes, prepared.upgrade
    start = head.start
    if path is not None:
        sent = rewrite_path(path.sent, route.strip_prefix, route.path_prefix)
        if sent != head.path:
            target = f"{sent}?{head.query}" if "?" in head.target_text else sent
            start = f"{head.method} {target} HTTP/1.1\r\n".encode("latin-1")
    host = head.authority if head.host else local_host.encode("latin-1")
    via = _VIA_2 if is_http2 else _VIA if head.minor else _VIA_10
    if head.via:
        via = join_fields([(b"Via", value) for value in head.via]) + via
    has_h2 = route.pool is not None and route.pool.protocol != "h1" and not len(upgrade)
    # Framing and connection management are not for edits to touch.
    own = length = b""
    if head.chunked:
        own = b"Transfer-Encoding: chunked\r\n"
    elif head.content_length is not None:
        length = length_line(head.content_length)
        if (
            not (len(upgrade) or closes or head.accepts_trailers)
            and head.max_forwards is None
            and not route.edits_requests
        ):
            # The usual: all in one piece at once.
            if has_h2:
                _write_for_h2(prepared, start, host, b"%b%b" % (head.lines, via), length)
            return join_seven(start, b"Host: ", host, b"\r\n", head.lines, via, length)
        own = length
    forwards = b""
    if head.max_forwards is not None:
        forwards = b"Max-Forwards: %d\r\n" % (head.max_forwards - 1)
        own += forwards
    if upgrade:
        own += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade
    elif head.accepts_trailers:  # TE needs its option (RFC 9110 section 10.1.4)
        own += b"TE: trailers\r\nConnection: TE, close\r\n" if closes else b"TE: trailers\r\nConnection: TE\r\n"
    elif closes:
        own += b"Connection: close\r\n"
    if not route.edits_requests:
        if has_h2:
            te = TE_TRAILERS if head.accepts_trailers else b""
            _write_for_h2(prepared, start, host, b"%b%b%b%b" % (head.lines, via, forwards, te), length)
        return join_seven(start, b"Host: ", host, b"\r\n", head.lines, via, own)
    lines = b"Host: %b\r\n%b%b" % (host, head.lines, via)
    return b"%b%b%b" % (start, join_fields(route.request_edits.apply(fields_of(lines))), own)


def _write_for_h2(prepared: Prepared, start: bytes, host: bytes, lines: bytes, length: bytes) -> None:
    """The same for a server of HTTP/2. start: the request line. length: the line of the length, if there is one."""
    method, path, _ = start.split(b" ")
    in_h2 = prepared.in_h2 = RequestHead2(method, path)
    in_h2.authority = host
    in_h2.lines = lines
    in_h2.length = length


def rejected(
    listener: ListenerRuntime, raw: bytes, error: HeadError, log_format: LogFormat | None, *, is_http2: bool = False
) -> Prepared:
    """What stands for a request whose head was refused: enough to answer, count and log it."""
    head = RequestHead()
    match = _said(raw[:2048])
    protocol = HTTP_2 if is_http2 else ""
    if match is not None:
        head.method, head.target_text = match[1][:20].decode("latin-1"), from_wire(match[2])
        protocol = protocol or (match[3] or b"").decode()
        if listener.guard is not None and listener.guard.keys is not None:
            head.target_text = listener.guard.keys.hidden(head.target_text)
    head.keep_alive = False
    prepared = Prepared(head, listener.no_route)
    prepared.fault, prepared.fault_detail = error.fault, error.detail
    if log_format is not None:
        prepared.log_head = log_head(log_format, head, protocol)
    return prepared
