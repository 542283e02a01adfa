"""`lbproxy status`: the answer of the admin API as a page for a terminal.

What explains where requests go is on the page: states and since when, the queue, penalties, slots that are used last,
fail-open, names without an address. What is rarely asked for (`-v`): the axes that make a state, idle connections,
names that resolve. The answer may be of another version: nothing in it is taken for granted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from lbproxy.cli.common import LATENCY_FRESH_S, waiting_apart

Object = Mapping[str, object]

NAME, ADDRESS, WEIGHT = "SERVER", "ADDRESS", "WEIGHT"
COLUMNS = (NAME, ADDRESS, "STATE", "SINCE", WEIGHT, "IN FLIGHT", "REQUESTS", "ERRORS", "LATENCY")
_TO_THE_LEFT = frozenset({NAME, ADDRESS, "STATE"})
_INDENT = "    "
SHOWN_VERDICTS = 5  # of a source


def page(status: Object, *, width: int | None = None, is_verbose: bool = False) -> str:
    """The process, its listeners, a table for every pool. width: of the terminal; None: lines of any length."""
    lines = [f"lbproxy {_shown(status.get('version'))}{_uptime(status)}: {status.get('reason') or 'ready'}"]
    kept = status.get("state_file")
    if isinstance(kept, dict) and (kept.get("error") or is_verbose):
        age = kept.get("age")
        told = "not written yet" if age is None else f"written {_seconds(age)} ago"
        told = f"cannot be written: {kept['error']}" if kept.get("error") else told
        lines.append(f"state_file {_shown(kept.get('path'))}: {told}")
    lines += [_worker(worker) for worker in _objects(status.get("workers"))]
    for listener in _objects(status.get("listeners")):
        name, mode, count = (_shown(listener.get(key)) for key in ("name", "mode", "connections"))
        bind = listener.get("bind")
        where = f", bound to {', '.join(map(str, bind))}" if is_verbose and isinstance(bind, list) else ""
        lines.append(f"listener {name} ({mode}): client connections {count}{where}")
    lines += [f"split {_split(split)}" for split in _objects(status.get("splits"))]
    for limit in _objects(status.get("rate_limits")):
        if is_verbose or limit.get("limited") or limit.get("open"):
            lines.append(f"rate limit {_limit(limit)}")
    for pool in _objects(status.get("pools")):
        lines += ["", *_pool(pool, width, is_verbose)]
    if width is None:
        return "\n".join(lines)
    return "\n".join(folded for line in lines for folded in _fold(line, width))


def _worker(worker: Object) -> str:
    number, state, clients = (_shown(worker.get(key)) for key in ("worker", "state", "connections"))
    text = f"worker {number}: {state}, client connections {clients}"
    cpu, memory, restarts = (worker.get(key) for key in ("cpu_seconds", "memory_bytes", "restarts"))
    if isinstance(cpu, (int, float)):
        text += f", CPU {_seconds(cpu)}"
    if isinstance(memory, int):
        text += f", memory {memory / (1 << 20):.0f} MiB"
    return f"{text}, replaced {restarts} time{'' if restarts == 1 else 's'}" if restarts else text


def _limit(limit: Object) -> str:
    name, key, rate, burst, store = (_shown(limit.get(word)) for word in ("name", "key", "rate", "burst", "store"))
    text = f"{name}: {rate}/s by {key}, burst {burst}, {store}; {_shown(limit.get('limited'))} refused"
    return f"{text}, {limit['open']} let through without an answer of Redis" if limit.get("open") else text


def _pool(pool: Object, width: int | None, is_verbose: bool) -> list[str]:
    servers = _objects(pool.get("servers"))
    name, strategy, usable = (_shown(pool.get(key)) for key in ("name", "strategy", "usable"))
    spoken = "" if pool.get("protocol") in (None, "h1") else f", {_shown(pool['protocol'])}"
    standby = f", {pool['standby']} stand by" if pool.get("standby") else ""
    lines = [f"pool {name} ({strategy}{spoken}): {usable} of {len(servers)} usable{standby}"]
    if pool.get("leaving"):
        lines.append("  the config no longer names it: it goes when what is in it is done")
    if pool.get("failing_open"):
        lines.append("  fails open: too few servers pass their checks, so those that were up are used all the same")
    if pool.get("reason"):
        lines.append(f"  not ready: it {pool['reason']}")
    queue = pool.get("queue")
    if isinstance(queue, dict) and (is_verbose or queue.get("depth") or any(s.get("max_inflight") for s in servers)):
        lines.append(f"  queue: {_queue(queue, is_verbose)}")
    out, most = pool.get("ejected"), pool.get("max_ejected")
    if out or (is_verbose and most is not None):
        lines.append(f"  ejected: {_shown(out)} of at most {_shown(most)} servers")
    settings = pool.get("kind_settings")
    if is_verbose and pool.get("kind"):
        told = [f"{key} {_shown(value)}" for key, value in settings.items()] if isinstance(settings, dict) else []
        lines.append(f"  kind {pool['kind']}: {', '.join(told)}")
    for known in _objects(pool.get("names")) if is_verbose else ():
        lines.append(f"  name {_name(known)}")
    for source in _objects(pool.get("discovery")) if is_verbose else ():
        lines.append(f"  source {_source(source)}")
    return lines + _table(servers, bool(pool.get("failing_open")), width, is_verbose)


def _split(split: Object) -> str:
    route = split.get("name") or split.get("route")
    shares = [f"{_shown(item.get('pool'))} {_percent(item.get('ratio'))}" for item in _objects(split.get("pools"))]
    how = f"by {split['by']}" if split.get("by") else "by chance"
    text = f"{_shown(split.get('listener'))}/{_shown(route)} ({how}): {', '.join(shares)}"
    live = split.get("live")
    if isinstance(live, dict):
        given = ", ".join(f"{_shown(item.get('pool'))} {_shown(item.get('file'))}" for item in _objects(split["pools"]))
        since = live.get("since")
        ago = f" {_seconds(since)} ago" if isinstance(since, (int, float)) else ""
        text += f"; set by {_shown(live.get('by'))}{ago}, the file says {given}"
    return text


def _percent(ratio: object) -> str:
    return f"{100 * ratio:.3g} %" if isinstance(ratio, (int, float)) else "-"


def _queue(queue: Object, is_verbose: bool) -> str:
    text = f"{_shown(queue.get('depth'))} of {_shown(queue.get('size'))} waiting"
    oldest = queue.get("oldest")
    if queue.get("depth") and isinstance(oldest, (int, float)):
        text += f", the oldest for {_seconds(oldest)}"
    if queue.get("newest_first"):
        text += "; the newest goes first while the queue stands"
    text += waiting_apart(queue)
    if is_verbose and queue.get("timeout") is not None:
        text += f"; each for at most {_seconds(queue['timeout'])}"
    return text


def _name(known: Object) -> str:
    host, count = _shown(known.get("host")), known.get("addresses")
    text = f"{host}: {count} address{'' if count == 1 else 'es'}" if count else f"{host}: no address"
    why, since = known.get("why"), known.get("since")
    if not why:
        return text
    kept = ", the last good answer stays in use" if count else ""
    return f"{text}; for {_seconds(since)}: {why}{kept}" if since is not None else f"{text}; {why}{kept}"


def _source(known: Object) -> str:
    name, count = _shown(known.get("source")), known.get("servers")
    age, error = known.get("age"), known.get("error")
    text = f"{name}: {_shown(count)} server{'' if count == 1 else 's'}"
    text += ", no answer yet" if age is None else f", seen {_seconds(age)} ago"
    said = known.get("says")
    verdicts = [f"{address} {_shown(word)}" for address, word in said.items()] if isinstance(said, dict) else []
    if verdicts:
        more = f" and {len(verdicts) - SHOWN_VERDICTS} more" if len(verdicts) > SHOWN_VERDICTS else ""
        text += f"; it says, which is not gone by: {', '.join(verdicts[:SHOWN_VERDICTS])}{more}"
    return f"{text}; {error}" if error else text


# --- the table ------------------------------------------------------------------------------------------------------


def _table(servers: Sequence[Object], is_failing_open: bool, width: int | None, is_verbose: bool) -> list[str]:
    left_out = set()
    if not is_verbose:
        if servers and all(server.get("name") == server.get("address") for server in servers):
            left_out.add(ADDRESS)
        if all(server.get("weight") in (1, None) for server in servers):
            left_out.add(WEIGHT)
    kept = [index for index, column in enumerate(COLUMNS) if column not in left_out]
    rows = [[row[index] for index in kept] for row in (COLUMNS, *map(_row, servers))]
    widths = [max(len(row[index]) for row in rows) for index in range(len(kept))]
    lines = [
        "  ".join(
            cell.ljust(size) if COLUMNS[column] in _TO_THE_LEFT else cell.rjust(size)
            for cell, size, column in zip(row, widths, kept, strict=True)
        )
        for row in rows
    ]
    notes = ["WHY", *("; ".join(_notes(server, is_failing_open)) for server in servers)]
    fits = zip(lines, notes, strict=True)
    is_beside = width is None or all(len(line) + 2 + len(note) <= width for line, note in fits)
    if not is_beside and not is_verbose:  # a line below for each server that is as it should be says too much
        notes = ["", *("; ".join(_notes(server, is_failing_open, is_short=True)) for server in servers)]
    out = []
    for line, note, server in zip(lines, notes, [None, *servers], strict=True):
        out.append(f"{line}  {note}".rstrip() if is_beside else line.rstrip())
        if not is_beside and note and server is not None:
            out.append(_INDENT + note)
        if is_verbose and server is not None:
            out.append(_INDENT + _details(server))
    return out


def _row(server: Object) -> tuple[str, ...]:
    inflight, limit = _shown(server.get("inflight")), server.get("max_inflight")
    return (
        *(_shown(server.get(key)) for key in ("name", "address", "state")),
        _seconds(server.get("since")),
        _shown(server.get("weight")),
        f"{inflight}/{limit}" if limit else inflight,
        *(_shown(server.get(key)) for key in ("requests", "errors")),
        _latency(server.get("latency"), server.get("latency_age")),
    )


def _notes(server: Object, is_failing_open: bool, *, is_short: bool = False) -> list[str]:
    """All that explains whether and when this server gets requests. is_short: not why it is well."""
    why, state = server.get("why"), server.get("state")
    is_well = state == "up" and server.get("health") == "up"
    notes = [str(why)] if why and not (is_short and is_well) else []
    if state == "down" and server.get("was_up") is False:
        notes.append("it never was up")
    if state == "down" and is_failing_open and server.get("used"):
        notes.append("used all the same, as the pool fails open")
    if server.get("backup"):
        notes.append("backup, in use" if server.get("used") else "backup")
    if server.get("far"):
        notes.append(f"in another zone, {_shown(server.get('zone'))}{', in use' if server.get('used') else ''}")
    if server.get("weight") == 0:
        notes.append("weight 0: no new requests")
    penalty, quarantined, ramp = (server.get(key) for key in ("penalty", "quarantined", "ramp"))
    if penalty and state in ("up", "busy"):
        notes.append(f"failed lately: used last for {_seconds(penalty)}")
    if quarantined:
        notes.append(f"{quarantined} slot{'' if quarantined == 1 else 's'} used last: given up, maybe still at work")
    if server.get("slower"):
        notes.append("slower than the others: used last")
    if isinstance(ramp, (int, float)):
        notes.append(f"slow start: {ramp:.0%} of its share")
    return notes


def _details(server: Object) -> str:
    axes = ", ".join(f"{axis} {_shown(server.get(axis))}" for axis in ("admin", "health", "breaker"))
    idle, reuse = server.get("idle_timeout"), server.get("requests_per_connection")
    parts = [axes, *_origins(server)]
    if isinstance(idle, dict):
        parts += [
            f"closes idle connections after {_seconds(idle[key])} ({word})"
            for key, word in (("announced", "as it says"), ("learned", "as was seen"))
            if idle.get(key) is not None
        ]
    open_now = server.get("connections")
    if isinstance(open_now, dict):
        parts.append(
            f"connections: {_shown(open_now.get('active'))} with requests, {_shown(open_now.get('idle'))} idle"
        )
    if reuse is not None:
        parts.append(f"closes connections after {reuse} requests")
    return "; ".join(parts)


def _origins(server: Object) -> list[str]:
    """Where the server and its values come from, as far as it is not the file."""
    sources, source = server.get("sources"), server.get("source")
    words = {
        "aws": "from AWS",
        "dns": "from DNS",
        "servers_file": "from the servers_file",
        "kubernetes": "from Kubernetes",
        "live": "added live",
    }
    told = [words[source]] if isinstance(source, str) and source in words else []
    if server.get("leaving"):
        told.append("goes when it is idle")
    for key, value in sources.items() if isinstance(sources, dict) and source != "live" else ():
        if isinstance(value, dict) and value.get("source") == "live":
            by, ago, given = _shown(value.get("by")), _seconds(value.get("since")), _given(value.get("given"))
            told.append(f"{key} {_given(server.get(key))} set by {by} {ago} ago (file: {given})")
    return told


def _given(value: object) -> str:
    return "off" if value is None else str(value)


# --- words ----------------------------------------------------------------------------------------------------------


def _objects(value: object) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _uptime(status: Object) -> str:
    uptime = status.get("uptime")
    return f", up {_seconds(uptime)}" if isinstance(uptime, (int, float)) else ""


def _seconds(value: object) -> str:
    """A time as a person reads it: 0.4 s, 12 s, 5 min, 3 h, 4 d."""
    if not isinstance(value, (int, float)):
        return "-"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    for size, unit in ((60, "min"), (3600, "h")):
        if value < 120 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86400:.0f} d"


def _latency(value: object, age: object) -> str:
    """Seconds as a person reads them, and how long ago that was if it is not of now. 0: no answer was measured yet."""
    if not isinstance(value, (int, float)) or not value > 0:
        return "-"
    shown = f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
    return f"{shown}, {_seconds(age)} ago" if isinstance(age, (int, float)) and age > LATENCY_FRESH_S else shown


def _fold(line: str, width: int) -> list[str]:
    """A line that is too long goes on below, indented; tables are cut by nobody."""
    if len(line) <= width or (not line.startswith(" ") and ": " not in line):
        return [line]
    indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [
        line
    ]
