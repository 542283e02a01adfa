"""`lbproxy explain`: the answer of the admin API as a page. The first line says what comes of a request, the rest why.

The answer may be of another version: nothing in it is taken for granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lbproxy.cli.asking import objects
from lbproxy.cli.common import counted, waiting_apart

Object = Mapping[str, object]

_SHOWN: Final = 8  # servers that the first line names
_OF_CLIENT: Final = ("request_head", "request_body", "keep_alive", "client_write")
_LIMITS: Final = (("head_bytes", "head"), ("request_line_bytes", "request line"), ("body_bytes", "body"))
_MS: Final = (("queue_ms", "in the queue"), ("connect_ms", "to connect"), ("ttfb_ms", "to the first byte"))


def page(told: Object) -> str:
    """What would come of a request, and why."""
    return "\n".join(
        [
            *_headline(told),
            _listener(told),
            *_routes(told),
            *_split(told),
            *_path(told),
            *_guard(told),
            *_affinity(told),
            *_pool(told),
            *_timeouts(told),
            *_retry(told),
        ]
    )


def past(told: Object) -> str:
    """What came of a request that has been: each record of its id, the newest first."""
    return "\n\n".join("\n".join(_record(item)) for item in objects(told.get("records")))


def _part(told: Object, key: str) -> Object:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


# --- what would be --------------------------------------------------------------------------------------------------


def _headline(told: Object) -> list[str]:
    request, pool, pick, answer = (_part(told, key) for key in ("request", "pool", "pick", "answer"))
    what = f"{request['method']} {request.get('path')}" if request.get("method") else "a connection"
    notes = []
    process = _part(told, "process")
    if process.get("draining"):
        notes.append("lbproxy is stopping: who is connected is still served")
    if answer:
        return [f"{what} {_answer(answer)}", *notes]
    name = pool.get("name")
    among = objects(pick.get("among"))
    if pick.get("server"):
        how = ", as a probe: is it well again?" if pick.get("probe") else ""
        return [f"{what} goes to {name}/{pick['server']}{how}", *notes]
    if among:
        return [f"{what} goes to {name}/{_among(among)}: {pick.get('why')}", *notes]
    return [f"{what} goes to pool {name}: {pick.get('why')}", *notes]


def _among(among: Sequence[Object]) -> str:
    names = [f"{item.get('server')}{_percent(item.get('chance'))}" for item in among]
    if len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} others"]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _percent(chance: object) -> str:
    """To the next 5 %: it is counted from a few hundred picks."""
    return f" (about {max(5, 5 * round(20 * chance))} %)" if isinstance(chance, (int, float)) else ""


def _answer(answer: Object) -> str:
    status, end, why, hint = (answer.get(key) for key in ("status", "end", "why", "hint"))
    ends = f" ({end})" if end != "ok" else ""
    text = f"is answered by lbproxy itself with {status}{ends}" if status is not None else f"is closed{ends}"
    more = f"\n  {hint}" if hint and hint != why else ""
    return f"{text}: {why}{more}"


def _listener(told: Object) -> str:
    listener, request = _part(told, "listener"), _part(told, "request")
    peer, client = request.get("from"), request.get("client")
    text = f"listener {listener.get('name')} ({listener.get('mode')}), from {peer}"
    if request.get("trusted"):
        text += ", a trusted proxy"
    return f"{text}, for the client {client}" if client != peer else text


def _routes(told: Object) -> list[str]:
    routes = objects(told.get("routes"))
    if not routes or (len(routes) == 1 and routes[0].get("matches") and _part(told, "listener").get("mode") == "tcp"):
        return []
    lines = ["routes"]
    passed: dict[str, list[str]] = {}
    for route in routes:
        number, why = str(route.get("route")), str(route.get("why") or "")
        if route.get("asked"):
            verdict = "yes" if route.get("matches") else "no "
            lines.append(f"  {number}  {verdict}  {route.get('match')}{f'  ({why})' if why else ''}")
        else:
            passed.setdefault(why, []).append(number)
    return lines + [f"  {_span(numbers)}  {why}" for why, numbers in passed.items()]


def _span(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _split(told: Object) -> list[str]:
    """Which of the pools of a split."""
    split = _part(told, "split")
    if not split:
        return []
    pools = objects(split.get("pools"))
    shares = ", ".join(f"{item.get('pool')} {_share(item.get('chance'))}" for item in pools)
    if split.get("pool"):
        return [f"split by {split.get('by')} ({shares}): {split.get('value')} goes to {split['pool']}"]
    why = f"; {split['why']}" if split.get("why") else ""
    return [f"split by chance ({shares}){why}; what follows is about {split.get('shown')}"]


def _share(ratio: object) -> str:
    return f"{100 * ratio:.3g} %" if isinstance(ratio, (int, float)) else "-"


def _path(told: Object) -> list[str]:
    request, path = _part(told, "request"), _part(told, "path")
    sent = path.get("sent")
    if sent is None or sent == request.get("path"):
        return []
    return [f"path: {request.get('path')} is sent as {sent}"]


def _guard(told: Object) -> list[str]:
    lines = [f"API key: that of {told['api_key']}"] if told.get("api_key") else []
    names = _list(told.get("rate_limits"))
    if names:
        lines.append(f"rate limits: it needs a token of {', '.join(map(str, names))}")
    return lines


def _affinity(told: Object) -> list[str]:
    """Why this server: the cookie, and the key."""
    pick = _part(told, "pick")
    lines = []
    sticky, hashed = _part(pick, "sticky"), _part(pick, "hash")
    if sticky:
        lines.append(f"cookie {sticky.get('cookie')}: {sticky.get('why')}")
    if hashed:
        owner = f" is {hashed.get('value')!r}, of {hashed.get('owner')}" if hashed.get("owner") else ""
        why = hashed.get("why")
        lines.append(f"key {hashed.get('key')}{owner}{f': {why}' if owner and why else f': {why}' if why else ''}")
    return lines


def _pool(told: Object) -> list[str]:
    pool, pick = _part(told, "pool"), _part(told, "pick")
    if not pool:
        return []
    servers, queue = objects(pool.get("servers")), _part(pool, "queue")
    open_ = ", fails open: too few servers pass their checks" if pool.get("failing_open") else ""
    lines = [
        f"pool {pool.get('name')} ({pool.get('strategy')}): {pool.get('usable')} of {len(servers)} usable{open_}; "
        f"queue: {queue.get('depth')} of {queue.get('size')} waiting{waiting_apart(queue)}"
    ]
    rows = [("SERVER", "TAKES IT", "IN FLIGHT", "WHY")]
    for server in servers:
        name = str(server.get("name"))
        limit = server.get("max_inflight")
        takes = "no" if not server.get("may_take") else "last" if server.get("last") else "yes"
        if name == pick.get("server") and not told.get("answer"):
            takes = "next"
        flight = f"{server.get('inflight')}{f'/{limit}' if limit is not None else ''}"
        rows.append((name, takes, flight, str(server.get("why") or "")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, takes, flight, why in rows:
        line = f"  {name.ljust(widths[0])}  {takes.ljust(widths[1])}  {flight.rjust(widths[2])}  {why}"
        lines.append(line.rstrip())
    return lines


def _timeouts(told: Object) -> list[str]:
    if not told.get("pool"):
        return []
    given = {key: value for key, value in _part(told, "timeouts").items() if isinstance(value, (int, float))}
    lines = []
    for who, keys in (("client", _OF_CLIENT), ("server", [key for key in given if key not in _OF_CLIENT])):
        words = [f"{key.removeprefix('client_')} {given[key]:g} s" for key in keys if key in given]
        if words:
            lines.append(f"time-outs towards the {who}: {', '.join(words)}")
    limits = _part(_part(told, "listener"), "limits")
    shown = [f"{words} {_size(limits.get(key))}" for key, words in _LIMITS if limits.get(key) is not None]
    return [*lines, f"limits: {', '.join(shown)}"] if shown and _part(told, "request").get("method") else lines


def _size(value: object) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size and value % size == 0:
            return f"{value / size:g} {unit}"
    return f"{value:g} bytes"


def _retry(told: Object) -> list[str]:
    retry = _part(told, "retry")
    if not retry:
        return []
    causes = objects(retry.get("causes"))
    again = [str(cause.get("end")) for cause in causes if cause.get("retried")]
    attempts = retry.get("attempts")
    if not again:
        lines = ["retries: none"]
    else:
        size = retry.get("body_bytes")
        body = f", with a body of at most {_size(size)}" if size is not None else ""
        budget = _part(retry, "budget")
        share, least = budget.get("ratio"), budget.get("min")
        bound = f"; of all requests at most {share * 100:g} %, but {least}" if isinstance(share, (int, float)) else ""
        more = counted(attempts, "attempt") if isinstance(attempts, int) else ""
        lines = [f"retries: {more} more{body}{bound}", f"  after {', '.join(again)}"]
    reasons: dict[str, list[str]] = {}
    for cause in causes:
        if not cause.get("retried"):
            reasons.setdefault(str(cause.get("why")), []).append(str(cause.get("end")))
    return lines + [f"  not after {', '.join(ends)}: {why}" for why, ends in reasons.items()]


# --- what has been --------------------------------------------------------------------------------------------------


def _record(item: Object) -> list[str]:
    record = _part(item, "record")

    def value(key: str) -> object:
        return record.get(key)

    what = f"{value('method')} {value('target')}" if value("method") else "a connection"
    status = value("status")
    ended = f"{status} ({value('end')})" if status is not None else str(value("end"))
    lines = [f"{what} ended with {ended}: {item.get('end')}"]
    lines.append(
        f"at {value('ts')}, from {value('client')}, listener {value('listener')}"
        + (f", host {value('host')}" if value("host") else "")
    )
    if value("pool"):
        where = f"{value('pool')}/{value('server')}" if value("server") else f"pool {value('pool')}, no server"
        lines.append(f"went to {where}, {_attempts(value('attempts'))}")
    else:
        lines.append("went to no pool: lbproxy itself answered")
    times = [f"{_ms(value(key))} {words}" for key, words in _MS if value(key) is not None]
    lines.append(f"time: {_ms(value('total_ms'))} in all{''.join(f', {text}' for text in times)}")
    lines.append(f"bytes: {value('bytes_in')} in, {value('bytes_out')} out")
    tries = objects(item.get("tries"))
    if tries:
        lines.append("tries")
        for number, one in enumerate(tries, 1):
            lines.append(
                f"  {number}  {one.get('server')}: {one.get('reason')} after {_ms(one.get('ms'))}. {one.get('why')}"
            )
    return lines


def _attempts(number: object) -> str:
    return counted(number, "attempt") if isinstance(number, int) else f"{number} attempts"


def _ms(value: object) -> str:
    return f"{value:g} ms" if isinstance(value, (int, float)) else "an unknown time"
