"""Rates and quantiles: what the counters were at two moments, and what lies between them.

The counters are those of /metrics (telemetry/slots.py). A point of the history is taken every five seconds, always, so
that a page that is opened after an incident shows it; everything else is made only while somebody looks. Quantiles are
of the differences between two states of a histogram, interpolated within its buckets as Prometheus does it.

    errors of a pool     answers 5xx, and answers that broke off in the middle
    errors of a server   the same, or the requests that failed at it, whichever are more: most of those were sent
                         again to others, and are no errors of the pool
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lbproxy.control.metrics import Registry
from lbproxy.control.status import Json
from lbproxy.domain.pool import Pool
from lbproxy.telemetry.slots import CODES, DURATION_BUCKETS, POOL, SERVER, TRAFFIC

STEP_S: Final = 5.0
POINTS: Final = 120  # ten minutes
WINDOW_S: Final = 60.0  # of the quantiles
COLUMNS: Final[tuple[str, ...]] = ("t", "rps", "error_ratio", "p50", "p99", "saturation", "queue")

_CELLS: Final = len(DURATION_BUCKETS) + 1
_DURATION: Final = POOL.offset["request_duration_seconds"]
_TTFB: Final = SERVER.offset["upstream_ttfb_seconds"]
_REQUESTS: Final = TRAFFIC.offset["requests_total"]
_N_REQUESTS: Final = next(item.width for item in TRAFFIC.families if item.name == "requests_total")
_5XX: Final = CODES.index("5xx")
_SERVER_5XX: Final = SERVER.column("server_requests_total", "5xx")
_LOST: Final = tuple(
    SERVER.column("upstream_errors_total", word) for word in ("truncated_body", "bad_chunk", "idle_timeout")
)
Cells = Sequence[int]


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Of a pool, since the start. n_lost by server: one that goes takes its counts with it."""

    n_errors: int
    n_lost: Mapping[str, int]
    durations: Cells

    def errors_since(self, old: PoolCounts) -> int:
        lost = sum(max(0, count - old.n_lost.get(name, 0)) for name, count in self.n_lost.items())
        return max(0, self.n_errors - old.n_errors) + lost


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """Of a server, since it joined."""

    n_requests: int
    n_failed: int
    n_errors: int
    ttfb: Cells


@dataclass(frozen=True, slots=True)
class Sample:
    """All counts at one moment. at: monotonic seconds. servers: by "POOL/SERVER"; empty if nobody asked."""

    at: float
    pools: Mapping[str, PoolCounts]
    servers: Mapping[str, ServerCounts] = field(default_factory=dict)


def quantile(share: float, cells: Cells) -> float | None:
    """Seconds below which this share of the values lies. cells: values per bucket. None: there are no values.

    The bucket without an upper bound counts as its lower one, so that is the largest answer.
    """
    rank = share * sum(cells)
    if rank <= 0.0:
        return None
    below, lower = 0, 0.0
    for count, upper in zip(cells, DURATION_BUCKETS, strict=False):
        if below + count >= rank:
            return round(lower + (upper - lower) * (rank - below) / count, 6)
        below += count
        lower = upper
    return lower


def difference(new: Cells, old: Cells | None) -> Cells:
    """What was counted in between; all of it if it was not there before, or began anew."""
    if old is None:
        return new
    cells = [after - before for after, before in zip(new, old, strict=True)]
    return new if min(cells) < 0 else cells


class Meter:
    """Looks at the counters. registry: their rows; its pools are asked for what is in flight and who waits."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._history: dict[str, deque[tuple[float | None, ...]]] = {}
        self._minute: deque[Sample] = deque(maxlen=int(WINDOW_S / STEP_S) + 1)
        self._last: Sample | None = None
        self._stepped_at = float("-inf")

    # --- the history ------------------------------------------------------------------------------------------------

    def tick(self, now: float, unix_s: float, *, is_watched: bool) -> None:
        """To be called often: takes a point of the history when it is time. is_watched: somebody asks for `rates`."""
        if now - self._stepped_at < STEP_S:
            return
        self._stepped_at = now
        before = self._minute[-1] if self._minute else None
        sample = self._sample(now, has_servers=is_watched)
        self._minute.append(sample)
        if not is_watched:
            self._last = None
        if before is None:
            return
        for name in self._history.keys() - self._registry.pools.keys():
            del self._history[name]
        for name, counts in sample.pools.items():
            pool, old = self._registry.pools[name], before.pools.get(name)
            cells = difference(counts.durations, old.durations if old is not None else None)
            n_requests, n_errors = sum(cells), counts.errors_since(old) if old is not None else 0
            slots = _slots(pool)
            point = (
                round(unix_s, 3),
                _per_second(n_requests, now - before.at),
                _ratio(n_errors, n_requests),
                quantile(0.5, cells),
                quantile(0.99, cells),
                _saturation(pool, slots),
                _depth(pool),
            )
            self._history.setdefault(name, deque(maxlen=POINTS)).append(point)

    def history(self) -> Json:
        """The last ten minutes of each pool: a list of values for each of COLUMNS, the newest last.

        Rates and quantiles are of the five seconds before each point.
        """
        return {
            name: dict(zip(COLUMNS, map(list, zip(*points, strict=True)), strict=True))
            for name, points in self._history.items()
        }

    # --- rates ------------------------------------------------------------------------------------------------------

    def rates(self, now: float, unix_s: float) -> Json:
        """Since the last call, or since the last point of the history; quantiles of the last minute."""
        sample = self._sample(now, has_servers=True)
        last = self._last or (self._minute[-1] if self._minute else sample)
        base = next((old for old in self._minute if now - old.at <= WINDOW_S + STEP_S), last)
        self._last = sample
        past_s = sample.at - last.at
        pools: Json = {}
        servers: Json = {}
        for name, counts in sample.pools.items():
            pools[name] = self._pool(name, counts, last.pools.get(name), base.pools.get(name), past_s)
        for key, now_there in sample.servers.items():
            seen = next((old.servers[key] for old in self._minute if key in old.servers), None)
            servers[key] = _server(now_there, last.servers.get(key), seen, past_s)
        return {"t": round(unix_s, 3), "pools": pools, "servers": servers}

    def _pool(
        self, name: str, counts: PoolCounts, last: PoolCounts | None, base: PoolCounts | None, past_s: float
    ) -> Json:
        pool = self._registry.pools[name]
        n_requests = sum(difference(counts.durations, last.durations)) if last is not None else 0
        n_errors = counts.errors_since(last) if last is not None else 0
        minute = difference(counts.durations, base.durations if base is not None else None)
        slots = _slots(pool)
        return {
            "rps": _per_second(n_requests, past_s),
            "errors": _per_second(n_errors, past_s),
            "error_ratio": _ratio(n_errors, n_requests),
            "p50": quantile(0.5, minute),
            "p99": quantile(0.99, minute),
            "p999": quantile(0.999, minute),
            "saturation": _saturation(pool, slots),
            "queue": _depth(pool),
            "inflight": sum(server.inflight for server in pool.servers),
            "slots": slots,
        }

    # --- samples ----------------------------------------------------------------------------------------------------

    def _sample(self, now: float, *, has_servers: bool) -> Sample:
        registry = self._registry
        n_errors = dict.fromkeys(registry.pools, 0)
        for labels in registry.labels(TRAFFIC):
            if labels[1] in n_errors:
                cells = registry.cells(TRAFFIC, labels, _REQUESTS, _REQUESTS + _N_REQUESTS)
                n_errors[labels[1]] += sum(cells[_5XX :: len(CODES)])
        pools: dict[str, PoolCounts] = {}
        servers: dict[str, ServerCounts] = {}
        for name, pool in registry.pools.items():
            n_lost: dict[str, int] = {}
            for server in pool.servers:
                labels = (name, server.name)
                row = registry.cells(SERVER, labels, 0, SERVER.width)
                n_lost[server.name] = sum(row[column] for column in _LOST)
                if has_servers:
                    servers[f"{name}/{server.name}"] = ServerCounts(
                        server.requests,
                        server.errors,
                        row[_SERVER_5XX] + n_lost[server.name],
                        row[_TTFB : _TTFB + _CELLS],
                    )
            durations = registry.cells(POOL, (name,), _DURATION, _DURATION + _CELLS)
            pools[name] = PoolCounts(n_errors[name], n_lost, durations)
        return Sample(now, pools, servers)


def _server(counts: ServerCounts, last: ServerCounts | None, seen: ServerCounts | None, past_s: float) -> Json:
    n_requests = max(0, counts.n_requests - last.n_requests) if last is not None else 0
    n_failed = max(counts.n_failed - last.n_failed, counts.n_errors - last.n_errors, 0) if last is not None else 0
    ttfb = difference(counts.ttfb, seen.ttfb) if seen is not None else ()
    return {
        "rps": _per_second(n_requests, past_s),
        "error_ratio": _ratio(n_failed, n_requests),
        "ttfb_p50": quantile(0.5, ttfb),
    }


def _per_second(count: int, past_s: float) -> float:
    return round(count / past_s, 3) if past_s > 0.0 else 0.0


def _ratio(part: int, whole: int) -> float:
    return round(min(1.0, part / whole), 6) if whole else 1.0 if part else 0.0


def _slots(pool: Pool) -> int | None:
    """How many requests it takes at once, None if there is no limit."""
    return sum(server.max_inflight for server in pool.servers) or None


def _saturation(pool: Pool, slots: int | None) -> float | None:
    """Requests in flight and queued over slots, at most 1."""
    if slots is None:
        return None
    busy = sum(server.inflight for server in pool.servers if server.max_inflight) + _depth(pool)
    return round(min(1.0, busy / slots), 4)


def _depth(pool: Pool) -> int:
    return len(pool.queue) if pool.queue is not None else 0
