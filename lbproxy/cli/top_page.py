"""`lbproxy top` as text: a line for the process, one for each pool, a table of the servers, the last events."""

from __future__ import annotations

import time
from typing import Final

from lbproxy.cli.common import LATENCY_FRESH_S, waiting_apart
from lbproxy.cli.top_view import Object, Row, View, mapping, number

COLUMNS: Final[tuple[str, ...]] = (
    "SERVER", "STATE", "SINCE", "IN FLIGHT", "REQ/S", "ERRORS", "TTFB", "LATENCY", "WHY",
)  # fmt: skip
TO_THE_LEFT: Final = frozenset({"SERVER", "STATE", "WHY"})
EVENTS: Final = 5


def page(view: View, *, sort: str = "config", wanted: str = "", width: int | None = None) -> str:
    """width: of the terminal, beyond which lines are cut; None: lines of any length."""
    lines = [process_line(view), *pool_lines(view), "", *_table(view.rows(sort, wanted))]
    events = event_lines(view, EVENTS)
    lines += ["", *events] if events else []
    return "\n".join(line if width is None or len(line) <= width else line[: width - 1] + "~" for line in lines)


def process_line(view: View) -> str:
    status = view.status
    at = time.strftime("%H:%M:%S", time.localtime(number(view.rates.get("t")))) if view.rates else ""
    return f"lbproxy {status.get('version')}: {status.get('reason') or 'ready'}  {at}".rstrip()


def pool_lines(view: View) -> list[str]:
    return [_pool(pool, rates) for pool, rates in view.pools]


def _pool(pool: Object, rates: Object) -> str:
    servers = pool.get("servers")
    parts = [f"{pool.get('usable')} of {len(servers) if isinstance(servers, list) else 0} usable"]
    if pool.get("standby"):
        parts.append(f"{pool['standby']} stand by")
    if pool.get("failing_open"):
        parts.append("FAILS OPEN")
    if rates:
        parts.append(f"{number(rates.get('rps')):.1f} req/s")
        parts.append(f"errors {share(rates.get('error_ratio'))}")
        quantiles = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))
        parts.append(" ".join(f"{word} {seconds(rates.get(key))}" for word, key in quantiles))
        slots = rates.get("slots")
        of_slots = f"/{slots} ({share(rates.get('saturation'))})" if slots else ""
        parts.append(f"in flight {rates.get('inflight')}{of_slots}")
        queue = pool.get("queue")
        apart = waiting_apart(queue) if isinstance(queue, dict) else ""
        parts.append(f"waiting {rates.get('queue')}{f' ({apart[2:]})' if apart else ''}")
    return f"pool {pool.get('name')}: {', '.join(parts)}"


def event_lines(view: View, most: int) -> list[str]:
    """The last events, the newest last."""
    return [
        f"{time.strftime('%H:%M:%S', time.localtime(number(event.get('t'))))}  {event.get('text')}"
        + (f", by {event.get('by')}" if event.get("by") else "")
        for event in view.events[-most:]
    ]


def cells(row: Row) -> tuple[str, ...]:
    """What stands in each of COLUMNS."""
    server, rates = row.server, row.rates
    limit = server.get("max_inflight")
    return (
        str(row.target),
        str(server.get("state")),
        span(server.get("since")),
        f"{server.get('inflight')}/{limit}" if limit else str(server.get("inflight")),
        f"{number(rates.get('rps')):.1f}" if rates else "-",
        share(rates.get("error_ratio")) if rates else "-",
        seconds(rates.get("ttfb_p50")),
        _latency(server),
        _why(server),
    )


def _latency(server: Object) -> str:
    """That of the last answers, however long ago they were."""
    shown, age = seconds(server.get("latency")), number(server.get("latency_age"))
    return f"{shown}, {span(age)} ago" if age > LATENCY_FRESH_S and shown != "-" else shown


def _why(server: Object) -> str:
    """Not why it is well, which is no news."""
    is_well = server.get("state") == "up" and server.get("health") == "up"
    told = [] if is_well or not server.get("why") else [str(server["why"])]
    live = mapping(mapping(server.get("sources")).get("admin"))
    by = live.get("by")
    if live.get("source") == "live" and by and str(by) not in str(server.get("why")):
        told.append(f"set by {by}")
    if server.get("leaving"):
        told.append("goes when it is idle")
    return "; ".join(told)


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["no server"]
    table = [COLUMNS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(size) if name in TO_THE_LEFT else cell.rjust(size)
            for cell, size, name in zip(line, widths, COLUMNS, strict=True)
        ).rstrip()
        for line in table
    ]


# --- words ------------------------------------------------------------------------------------------------------------


def seconds(value: object) -> str:
    """How long something takes; 0 means that nothing was measured."""
    number_s = number(value)
    if number_s <= 0.0:
        return "-"
    return f"{number_s * 1000:.1f} ms" if number_s < 1.0 else f"{number_s:.2f} s"


def span(value: object) -> str:
    """How long ago."""
    if not isinstance(value, int | float):
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"


def share(value: object) -> str:
    return f"{number(value):.1%}"
