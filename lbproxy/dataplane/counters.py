"""The cells that an exchange counts in, looked up once."""

from __future__ import annotations

from typing import Final

from lbproxy import errors
from lbproxy.errors import Fault
from lbproxy.telemetry.slots import (
    CODES,
    DURATION_BUCKETS,
    LISTENER,
    POOL,
    RETRY_OUTCOMES,
    RETRY_REASONS,
    ROUTE,
    SERVER,
    TRAFFIC,
)

TCP_IN: Final = TRAFFIC.column("tcp_bytes_total", "in")
TCP_OUT: Final = TRAFFIC.column("tcp_bytes_total", "out")
SERVER_REQUESTS: Final = SERVER.offset["server_requests_total"]
GRPC: Final = SERVER.offset["grpc_requests_total"]
TTFB: Final = SERVER.offset["upstream_ttfb_seconds"]
TTFB_SUM: Final = TTFB + len(DURATION_BUCKETS) + 1
STALE: Final = SERVER.column("stale_connections_total")
DURATION: Final = POOL.offset["request_duration_seconds"]
DURATION_SUM: Final = DURATION + len(DURATION_BUCKETS) + 1
QUEUE_WAIT: Final = POOL.offset["queue_wait_seconds"]
BUDGET_EXHAUSTED: Final = POOL.column("retry_budget_exhausted_total")
FAIL_OPEN: Final = POOL.column("fail_open_total")
ROUTE_REQUESTS: Final = ROUTE.offset["route_requests_total"]
ROUTE_DURATION: Final = ROUTE.offset["route_request_duration_seconds"]
ROUTE_DURATION_SUM: Final = ROUTE_DURATION + len(DURATION_BUCKETS) + 1
BYTES_IN: Final = LISTENER.column("request_bytes_total")
BYTES_OUT: Final = LISTENER.column("response_bytes_total")
# Statuses of 600 and more count as 5xx, as RFC 9110 section 15 tells clients to read them.
CODE_INDEX: Final = tuple(
    CODES.index("499") if status == 499 else max(0, min(4, status // 100 - 1)) for status in range(1000)
)
UPSTREAM_ERROR: Final = {
    fault.word: SERVER.column("upstream_errors_total", fault.reason)
    for fault in errors.FAULTS.values()
    if fault.metric == "upstream_errors_total"
}
REJECTED: Final = {
    fault.word: LISTENER.column("rejected_total", fault.reason)
    for fault in errors.FAULTS.values()
    if fault.metric == "rejected_total"
}
ABORTED: Final = {phase: POOL.column("client_aborts_total", phase) for phase in errors.CLIENT_ABORT_PHASES}
RETRY: Final = {
    (reason, outcome): POOL.column("retries_total", reason, outcome)
    for reason in RETRY_REASONS
    for outcome in RETRY_OUTCOMES
}


_LOOKED_UP: Final[tuple[tuple[str, str], ...]] = tuple(
    [(direction, result) for direction in ("received", "sent") for result in ("known", "hit", "miss")]
)
LOOKUPS: Final[tuple[int, ...]] = tuple([LISTENER.column("h2_table_lookups_total", *cell) for cell in _LOOKED_UP])
UPSTREAM_LOOKUPS: Final[tuple[int, ...]] = tuple(
    [SERVER.column("upstream_h2_table_lookups_total", *cell) for cell in _LOOKED_UP]
)


def count_lookups(row: list[int], columns: tuple[int, ...], now: list[int], before: list[int]) -> None:
    """What a connection of HTTP/2 has looked up in its tables since. columns: their cells."""
    for at in range(len(now)):
        row[columns[at]] += now[at] - before[at]


def duration_index(seconds: float) -> int:
    """Which of DURATION_BUCKETS, the last one being +Inf, so long a time counts in.

    Written out: a look-up in a table of numbers makes an object of each that is compared, and every request counts two.
    """
    if seconds <= 0.25:
        if seconds <= 0.01:
            return 0 if seconds <= 0.001 else 1 if seconds <= 0.005 else 2
        if seconds <= 0.05:
            return 3 if seconds <= 0.025 else 4
        return 5 if seconds <= 0.1 else 6
    if seconds <= 10.0:
        if seconds <= 1.0:
            return 7 if seconds <= 0.5 else 8
        return 9 if seconds <= 2.5 else 10 if seconds <= 5.0 else 11
    if seconds <= 60.0:
        return 12 if seconds <= 30.0 else 13
    return 14 if seconds <= 120.0 else 15 if seconds <= 300.0 else 16


def retry_reason(fault: Fault) -> str:
    """The `reason` label of retries_total for a fault that was retried."""
    if fault in (errors.CLOSED_REUSED, errors.CLOSED_UNACKED):
        return "stale"
    if fault is errors.RESPONSE_TIMEOUT:
        return "timeout"
    if fault is errors.RETRYABLE_STATUS:
        return "status"
    if fault in (errors.REFUSED_STREAM, errors.GOAWAY_UNPROCESSED, errors.NO_GRPC):
        return "unprocessed"
    return "connect" if fault.retry is errors.Retry.ALWAYS else "reset"
