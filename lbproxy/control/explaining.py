"""Why a request would go where it would go: from the objects that serve requests, and without serving one.

The request is written as a client would send it and read by what reads requests; its route, its path, what refuses it,
and whether it may be sent again come from what decides these things for traffic. Nothing is counted, no server is
asked, no slot is taken, and no strategy or source of chance moves on.

What only a real connection has is left out: the certificate that it was shown, and how fast its bytes come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from math import inf

from lbproxy import errors
from lbproxy.control.affinity_words import hash_words, key_in, sticky_words
from lbproxy.control.body_words import SeenBody, beyond_fork
from lbproxy.control.status import Json
from lbproxy.dataplane.exchange.forwarding import UNIX, client_address
from lbproxy.dataplane.exchange.prepare import matched_headers, prepare
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import ListenerRuntime, PoolRuntime, RouteRuntime
from lbproxy.domain.foresight import Foresight, foresee
from lbproxy.domain.lease import Refusal
from lbproxy.domain.paths import BadPath
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.retry_words import causes
from lbproxy.domain.rng import Rng
from lbproxy.domain.route_words import ANY_REQUEST, failure_words, match_words
from lbproxy.domain.standing import standings
from lbproxy.domain.strategies import name_of
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault, Side
from lbproxy.protocol.http1 import HeadError, RequestHead

LOCAL_HOST = "localhost"
LOCAL_PEER = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that is asked about.

    path: as it is sent, with its query. host: the Host field, None: none is given. peer: the address that the
    connection comes from. body: as far as it says where the request goes.
    """

    method: str = "GET"
    path: str = "/"
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    peer: str = LOCAL_PEER
    body: str = ""

    def head(self) -> bytes:
        """As a client sends it. Raises ValueError with a sentence if it would be more than one request."""
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        names = {name.lower() for name, _ in self.headers}
        if self.host is not None or "host" not in names:
            lines.append(f"Host: {LOCAL_HOST if self.host is None else self.host}")
        if self.body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(self.body.encode('utf-8', 'replace'))}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        for line in lines:
            if any(char in line for char in "\r\n\0"):
                raise ValueError("a method, path, host or header holds a line break or NUL, which none can")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Moment:
    """What counts for all requests of the process now.

    now: monotonic seconds; wall: since the epoch. rng: a source of chance that no strategy has. refusing: why no new
    request is taken by the pools, None if they are. is_draining: the process is about to end.
    """

    now: float
    rng: Rng
    refusing: str | None = None
    is_draining: bool = False
    wall: float = 0.0


def explain(listener: ListenerRuntime, asked: Asked, moment: Moment) -> Json:
    """What would come of a request. Raises ValueError with a sentence if it is none."""
    told: Json = {
        "process": {"draining": moment.is_draining, "refusing": moment.refusing},
        "listener": {"name": listener.name, "mode": listener.mode, "limits": _listener_limits(listener)},
        "request": None,
        "routes": [],
        "route": None,
        "split": None,
        "path": None,
        "api_key": None,
        "rate_limits": [],
        "answer": None,
        "pool": None,
        "pick": None,
        "timeouts": _listener_timeouts(listener),
        "retry": None,
    }
    if listener.mode == "tcp":
        return _explain_connection(listener, asked, moment, told)
    raw = asked.head()
    is_trusted = listener.is_trusted(asked.peer)
    told["request"] = {
        "method": asked.method,
        "path": asked.path,
        "host": asked.host,
        "headers": [list(item) for item in asked.headers],
        "from": asked.peer,
        "client": asked.peer,
        "trusted": is_trusted,
    }
    if len(raw) > listener.head_bytes:
        return _refused(told, errors.HEADER_TOO_LARGE, f"the head has {len(raw)} bytes, {listener.head_bytes} may be")
    try:
        prepared = prepare(listener, raw, is_trusted=is_trusted, log_format=None, local_host=LOCAL_HOST)
    except HeadError as error:
        return _refused(told, error.fault, error.detail)
    client = client_address(prepared.head.forwarding, asked.peer, listener.is_trusted) if is_trusted else asked.peer
    told["request"]["client"] = client  # type: ignore[index]
    body = asked.body.encode("utf-8", "replace")
    told["routes"] = _routes(listener, prepared.head, body if prepared.head.has_body else b"", is_trusted=is_trusted)
    if prepared.fork is not None:
        prepared, told["split"] = beyond_fork(prepared.fork, client, body)
    route = prepared.route
    told["route"] = listener.position_of(route)
    told["path"] = {"received": prepared.head.path, "sent": None}
    told["api_key"] = prepared.head.key_name or None
    told["rate_limits"] = [check.limit.name for check in prepared.checks or ()]
    if prepared.fault is not None:
        return _refused(told, prepared.fault, prepared.fault_detail)
    if prepared.is_local:
        return _answered(told, 200, "Max-Forwards is 0: lbproxy answers by itself")
    if route.redirect is not None:
        status, location = route.redirect
        where = (prepared.location or location).decode("latin-1")
        return _answered(told, status, f"redirected to {where}", location=where)
    if route.respond is not None:
        return _answered(told, route.respond[0], "the route has an answer of its own (respond)")
    assert prepared.pool is not None  # what else can a route do?
    told["path"]["sent"] = prepared.forward.split(b" ", 2)[1].decode("latin-1")  # type: ignore[index]
    ctx = PickContext(client, prepared.head, key_in(prepared.pool.pool, body))
    _tell_pool(told, prepared.pool, ctx, moment, prepared.total_s)
    told["timeouts"] = {**_listener_timeouts(listener), **_route_timeouts(route, prepared.total_s)}
    told["retry"] = _retry(prepared, route, prepared.pool)
    return told


def _explain_connection(listener: ListenerRuntime, asked: Asked, moment: Moment, told: Json) -> Json:
    route = listener.routes[0]
    pool = route.pool
    assert pool is not None  # a TCP listener has nothing else
    told["request"] = {"from": asked.peer, "client": asked.peer}
    told["routes"] = [{"route": 0, "match": "any connection", "asked": True, "matches": True, "why": ""}]
    told["route"] = 0
    calm = replace(moment, refusing=None)  # a connection is not refused when memory is short: it is not accepted
    _tell_pool(told, pool, PickContext(asked.peer), calm, inf)
    answer = told["answer"]
    if isinstance(answer, dict):
        answer["status"] = None  # the connection is closed
    told["timeouts"] = {key: told_s for key, told_s in _route_timeouts(route, inf).items() if key in _OF_RELAYS}
    told["retry"] = _retry(None, route, pool)
    return told


# --- routes ---------------------------------------------------------------------------------------------------------


def _routes(listener: ListenerRuntime, head: RequestHead, body: bytes, *, is_trusted: bool) -> list[Json]:
    """What became of each route: it does not match, and why; it does; or nobody asked it."""
    router = listener.router
    headers = matched_headers(head, is_trusted=is_trusted)
    steps: list[tuple[int, int]] = []
    bad = ""
    seen = SeenBody(body)
    try:
        router.trace(head.method, head.host, head.path, head.query, headers, steps, seen.holds)
    except BadPath as error:
        bad = str(error)
    asked = dict(steps)
    takes_all = next((n for n, spec in enumerate(router.specs) if match_words(spec.match) == ANY_REQUEST), inf)
    is_found = any(failed < 0 for _, failed in steps)
    told: list[Json] = []
    for index, spec in enumerate(router.specs):
        failed = asked.get(index)
        matches = failed == -1
        if matches:
            why = ""
        elif failed is not None and spec.match is not None:
            why = failure_words(
                spec.match,
                failed,
                method=head.method,
                host=head.host,
                path=_compared(listener, head.path),
                query=head.query,
                headers=headers,
                in_body=seen.text,
            )
        elif index > takes_all:
            why = "never asked: it stands behind a route that takes every request"
        else:
            why = f"not asked: {'an earlier route matches' if is_found else bad}"
        told.append(
            {
                "route": index,
                "match": match_words(spec.match),
                "asked": failed is not None,
                "matches": matches,
                "why": why,
            }
        )
    return told


def _compared(listener: ListenerRuntime, path: str) -> str:
    try:
        return listener.path_rules.read(path).readings[0]
    except BadPath:
        return path


# --- answers of lbproxy itself --------------------------------------------------------------------------------------


def _refused(told: Json, fault: Fault, detail: str) -> Json:
    told["answer"] = {
        "status": fault.status,
        "end": fault.word,
        "why": detail or fault.hint,
        "hint": fault.hint,
        "closes": fault.close,
    }
    return told


def _answered(told: Json, status: int, why: str, *, location: str | None = None) -> Json:
    told["answer"] = {"status": status, "end": "ok", "why": why, "location": location}
    return told


# --- the pool -------------------------------------------------------------------------------------------------------


def _tell_pool(told: Json, runtime: PoolRuntime, ctx: PickContext, moment: Moment, total_s: float) -> None:
    pool, now = runtime.pool, moment.now
    deadline_at = now + total_s
    found = foresee(pool, ctx, now, moment.rng, deadline_at)
    queue = pool.queue
    told["pool"] = {
        "name": runtime.name,
        "strategy": name_of(pool.picker.strategy),
        "protocol": runtime.protocol,
        "failing_open": pool.is_failing_open,
        "usable": len(pool.eligible()),
        "queue": {
            "depth": runtime.n_queued,
            "size": queue.size if queue is not None else 0,
            "timeout": queue.timeout_s if queue is not None else None,
            "newest_first": queue is not None and queue.is_newest_first,
            "classes": dict(queue.by_class()) if queue is not None else {},
            "keys": queue.n_keys() if queue is not None else None,
            **_turn(queue, ctx, is_trusted=_is_trusted(told)),
        },
        "servers": _servers(runtime, now),
    }
    told["pick"] = _pick(found)
    _tell_affinity(told, runtime, ctx, found, moment)
    if moment.refusing is not None:
        _refused(told, errors.OVERLOADED, moment.refusing)
    elif total_s <= 0.0:
        _refused(told, errors.TOTAL_TIMEOUT, "its sender gives it no time")
    elif found.refusal is not None and not _goes_by_cookie(told):
        _not_placed(told, runtime, ctx, found.refusal, moment, deadline_at)


def _is_trusted(told: Json) -> bool:
    request = told["request"]
    return isinstance(request, dict) and bool(request.get("trusted"))


def _turn(queue: WaitQueue | None, ctx: PickContext, *, is_trusted: bool) -> Json:
    """By what this request would have turns, if it had to wait; null: not by that."""
    rules = queue.rules if queue is not None else None
    return {
        "class": rules.classes[rules.rank_of(ctx, is_trusted=is_trusted)] if rules and rules.classes else None,
        "key": rules.share_of(ctx).decode("utf-8", "replace") if rules and rules.key else None,
    }


def _tell_affinity(told: Json, runtime: PoolRuntime, ctx: PickContext, found: Foresight, moment: Moment) -> None:
    """What its key and its cookie say; where the cookie is followed, that is who gets it."""
    pick = told["pick"]
    assert isinstance(pick, dict)
    picked = found.shares[0][0] if len(found.shares) == 1 else None
    field = ctx.request.headers.get("cookie", "") if ctx.request is not None else ""
    pick["sticky"], kept_at = (None, None) if ctx.request is None else sticky_words(runtime, field, moment.wall)
    if kept_at is not None:
        pick |= {"server": kept_at.name, "probe": False, "among": [], "why": "its cookie names it"}
    pick["hash"] = hash_words(runtime.pool, ctx, None if kept_at is not None else picked)


def _goes_by_cookie(told: Json) -> bool:
    pick = told["pick"]
    return isinstance(pick, dict) and bool(pick["server"])


def _servers(runtime: PoolRuntime, now: float) -> list[Json]:
    pool = runtime.pool
    told: list[Json] = []
    for server, stands in standings(pool, now):
        told.append(
            {
                "name": server.name,
                "address": str(server.address),
                "state": server.shown,
                "may_take": stands.may_take,
                "last": stands.is_last,
                "why": stands.why,
                "inflight": server.inflight,
                "max_inflight": server.max_inflight or None,
                "weight": server.weight,
            }
        )
    for name in pool.names:
        if name.is_unresolved:
            told += [
                {
                    "name": server,
                    "address": server,
                    "state": "unresolved",
                    "may_take": False,
                    "last": False,
                    "why": f"the name {name.host} has no address: {name.why}",
                    "inflight": 0,
                    "max_inflight": None,
                    "weight": None,
                }
                for server in name.servers
            ]
    return told


def _pick(found: Foresight) -> Json:
    """server: who gets it, where that is certain. among: who may get it, with the chance of each, where it is not."""
    is_certain = len(found.shares) == 1
    return {
        "server": found.shares[0][0].name if is_certain else None,
        "probe": found.is_probe,
        "among": []
        if is_certain
        else [
            {"server": server.name, "chance": None if found.unknown else round(share, 2)}
            for server, share in found.shares
        ],
        "why": found.unknown or ("by chance" if len(found.shares) > 1 else ""),
    }


def _not_placed(
    told: Json, runtime: PoolRuntime, ctx: PickContext, refusal: Refusal, moment: Moment, deadline_at: float
) -> None:
    """What a request meets that gets no slot at once: the order is that of dataplane/exchange/placing.py."""
    pool, now = runtime.pool, moment.now
    queue = pool.queue
    if refusal is Refusal.NO_SERVER:
        _refused(told, errors.NO_SERVER, f"pool {pool.name} has no usable server")
    elif now < deadline_at < inf and pool.is_hopeless(deadline_at, now):
        _refused(told, errors.DEADLINE_UNREACHABLE, f"the queue of pool {pool.name} is too long for it")
    elif queue is None or not queue.would_take(ctx, is_trusted=_is_trusted(told)):
        _refused(told, errors.QUEUE_FULL, f"pool {pool.name} is at its limits")
    else:
        pick = told["pick"]
        assert isinstance(pick, dict)
        order = "the newest goes first" if queue.is_newest_first else f"behind {len(queue)} others"
        if queue.rules is not None:
            order = "by the turns of its class and its key"
        pick["why"] = (
            f"every server that may take it is at its limit: it waits, {order}, for {queue.timeout_s:g} s at most"
        )


# --- limits, time-outs, retries ---------------------------------------------------------------------------------------


def _number(value: float) -> float | None:
    return None if value == inf else value


def _listener_limits(listener: ListenerRuntime) -> Json:
    return {
        "head_bytes": listener.head_bytes,
        "request_line_bytes": listener.line_bytes,
        "headers": listener.max_fields,
        "body_bytes": _number(listener.body_bytes),
        "connections_per_ip": _number(listener.connections_per_ip),
        "min_rate": listener.min_rate or None,
        "methods": sorted(listener.methods) if listener.methods is not None else None,
        "h2_streams": listener.http2.streams if listener.http2 is not None else None,
    }


def _listener_timeouts(listener: ListenerRuntime) -> Json:
    timeouts = listener.timeouts
    return {
        "request_head": _number(timeouts.request_head),
        "request_body": _number(timeouts.request_body),
        "keep_alive": _number(timeouts.keep_alive),
        "client_write": _number(timeouts.write),
    }


def _route_timeouts(route: RouteRuntime, total_s: float) -> Json:
    timeouts = route.timeouts
    if timeouts is None:
        return {}
    return {
        "connect": _number(timeouts.connect),
        "tls_handshake": timeouts.tls_handshake or None,
        "response_head": _number(timeouts.response_head),
        "read": _number(timeouts.read),
        "write": _number(timeouts.write),
        "total": _number(total_s),
        "tunnel": _number(timeouts.tunnel),
        "half_closed": _number(timeouts.half_closed),
    }


def _retry(prepared: Prepared | None, route: RouteRuntime, runtime: PoolRuntime) -> Json:
    """prepared None: a TCP connection, which is retried only before a byte of it has gone anywhere."""
    policy = route.retry
    is_idempotent = prepared is None or prepared.is_idempotent
    method = prepared.head.method if prepared is not None else "a connection"
    found = causes(
        policy,
        method=method,
        is_idempotent=is_idempotent,
        has_tls=runtime.tls is not None,
        has_other=len(runtime.pool.eligible() + runtime.pool.members.beyond) > 1,
        has_http2=runtime.protocol != "h1",
        may_lack_http2=runtime.protocol == "auto" and prepared is not None and prepared.is_grpc,
    )
    if prepared is None:
        found = [cause for cause in found if cause.word in _OF_CONNECTIONS]
    return {
        "attempts": policy.attempts,
        "idempotent": is_idempotent,
        "body_bytes": policy.body_bytes if prepared is not None else None,
        "budget": {
            "ratio": runtime.budget.ratio,
            "min": runtime.budget.at_least,
            "active": runtime.budget.active,
        },
        "backoff": {"base": policy.backoff_base_s, "max": policy.backoff_max_s},
        "causes": [{"end": cause.word, "retried": cause.is_retried, "why": cause.why} for cause in found],
    }


_OF_RELAYS = ("connect", "tls_handshake", "write", "tunnel", "half_closed")
_OF_CONNECTIONS = frozenset(
    fault.word
    for fault in errors.FAULTS.values()
    if fault.side is Side.UPSTREAM and fault.word.startswith(("connect", "tls"))
)


# --- what has been ----------------------------------------------------------------------------------------------------


def end_words(end: str, *, has_server: bool = True) -> str:
    """What the `end` of a record means, and what can be done. has_server: it went to one."""
    if end == "ok":
        return "The server's answer was delivered whole." if has_server else "It is what the route or the request asks."
    fault = errors.FAULTS.get(end)
    return fault.hint if fault is not None else "This word is not one of this version."


def explain_record(record: Mapping[str, object]) -> Json:
    """A record of the access log, and what its words mean."""
    end = str(record.get("end") or "")
    fault = errors.FAULTS.get(end)
    tries = record.get("tries")
    return {
        "record": dict(record),
        "end": end_words(end, has_server=bool(record.get("server"))),
        "blamed": None if fault is None else fault.side.value,
        "tries": [
            {**item, "why": end_words(str(item.get("reason") or ""))}
            for item in (tries if isinstance(tries, list) else [])
            if isinstance(item, dict)
        ],
    }


def chosen(listeners: Sequence[ListenerRuntime], name: str | None) -> ListenerRuntime:
    """The listener of that name, else the first for HTTP, else the first. Raises LookupError with a sentence."""
    for listener in listeners:
        if listener.name == name or (name is None and listener.mode == "http"):
            return listener
    if name is None and listeners:
        return listeners[0]
    known = ", ".join(listener.name for listener in listeners)
    raise LookupError(f"there is no listener {name}; there is {known}")


def peer_address(text: str) -> str:
    """The address of a connection's other end, as the data plane has it. Raises ValueError with a sentence."""
    if text == UNIX:
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"from: {text!r} is neither an IP address nor {UNIX}") from None
