"""Counters as rows of cells, one writer per cell.

The data plane counts with `row[COLUMN] += 1` (about 0.03 us; a prometheus child costs 0.3 to 1.1). Nothing else happens
on the hot path: names, labels and text are made when /metrics is scraped, from the layouts below. A row belongs to one
thing (a server, a pool, a listener ...) and its columns are the table of that kind.

A row is a plain list: its items are read and written in half the time of a memoryview's. Several workers publish theirs
(lbproxy/shared/columns.py).

Histograms occupy one cell per bucket (not cumulative), then one for +Inf, then the sum in nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from lbproxy.errors import CLIENT_ABORT_PHASES, REJECTED_REASONS, UPSTREAM_ERROR_REASONS

CODES: Final[tuple[str, ...]] = ("1xx", "2xx", "3xx", "4xx", "5xx", "499")
METHODS: Final[tuple[str, ...]] = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other")
DURATION_BUCKETS: Final[tuple[float, ...]] = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
QUEUE_BUCKETS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
SERVER_STATES: Final[tuple[str, ...]] = ("up", "busy", "down", "ejected", "probing", "drain", "maint")
UNRESOLVED: Final = "unresolved"  # of a configured server whose name has no address yet
TLS_ERRORS: Final[tuple[str, ...]] = (
    "timeout",  # longer than timeouts.tls_handshake
    "closed",  # the client left before the end
    "limit",  # limits.handshakes, and no turn in time
    "plain_http",  # http:// to a TLS port
    "version",  # older than min_version
    "cipher",  # nothing in common
    "no_certificate",  # client_verify: required
    "bad_certificate",  # not signed by client_ca, expired
    "client_alert",  # the client refused: it does not trust our certificate
    "protocol",  # no TLS at all, or broken
)
RETRY_REASONS: Final[tuple[str, ...]] = ("connect", "reset", "timeout", "status", "stale", "unprocessed")
GRPC_STATUSES: Final[tuple[str, ...]] = (*[str(status) for status in range(17)], "other")
GOAWAYS: Final[tuple[str, ...]] = (
    "stop",  # lbproxy stops, or the listener is no more
    "idle",  # timeouts.keep_alive
    "max_age",  # limits.h2.max_age
    "room",  # it made way for another client at limits.connections
    "timeout",  # the client did not send what it had begun, or did not take what it was sent
    "error",  # the client broke the rules of HTTP/2
    "flood",  # limits.h2: resets, control_frames
)
RETRY_OUTCOMES: Final[tuple[str, ...]] = ("success", "failure")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family inside a row: a counter per combination of its own labels, or a histogram.

    name is without the prefix `lbproxy_`; labels are those beyond the row's own, outermost first.
    """

    name: str
    help: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        if self.buckets:
            return len(self.buckets) + 2
        width = 1
        for _, values in self.labels:
            width *= len(values)
        return width


class Layout:
    """The columns of one kind of row. `offset[name]` is the first cell of a family."""

    __slots__ = ("families", "offset", "row_labels", "width")

    def __init__(self, row_labels: tuple[str, ...], *families: Family) -> None:
        self.row_labels = row_labels
        self.families = families
        self.offset: dict[str, int] = {}
        position = 0
        for family in families:
            self.offset[family.name] = position
            position += family.width
        self.width = position

    def column(self, name: str, *values: str) -> int:
        """The cell of one label combination. Raises KeyError/ValueError for a name or value not in the table."""
        family = next(f for f in self.families if f.name == name)
        index = 0
        for (_, allowed), value in zip(family.labels, values, strict=True):
            index = index * len(allowed) + allowed.index(value)
        return self.offset[name] + index


_LOOKUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("direction", ("received", "sent")),
    ("result", ("known", "hit", "miss")),
)

SERVER: Final = Layout(
    ("pool", "server"),
    Family("server_requests_total", "Answers by class, as the client got them.", (("code", CODES),)),
    Family("grpc_requests_total", "Answers to gRPC requests, by their status.", (("grpc_status", GRPC_STATUSES),)),
    Family("upstream_errors_total", "Attempts that failed, by fault.", (("reason", UPSTREAM_ERROR_REASONS),)),
    Family("upstream_ttfb_seconds", "From sending a request to the first byte of its answer.", (), DURATION_BUCKETS),
    Family("upstream_connects_total", "Connections opened.", (("result", ("ok", "refused", "timeout", "error")),)),
    Family(
        "upstream_h2_table_lookups_total",
        "HTTP/2 servers: heads that were known whole, and fields of others, in the tables of HPACK or not.",
        _LOOKUPS,
    ),
    Family("stale_connections_total", "Kept connections found closed by the server when they were to be reused."),
    Family("health_checks_total", "Health checks.", (("result", ("pass", "fail", "busy", "discarded")),)),
    Family("server_transitions_total", "Changes of the shown state.", (("to", SERVER_STATES),)),
    Family(
        "server_ejections_total",
        "Ejections by the circuit breaker.",
        (("reason", ("consecutive_failures", "error_rate", "outlier", "probe_failed")),),
    ),
)

POOL: Final = Layout(
    ("pool",),
    Family("queue_wait_seconds", "Time that requests waited for a server.", (), QUEUE_BUCKETS),
    Family(
        "request_duration_seconds", "From the first byte of the request to the end of the answer.", (), DURATION_BUCKETS
    ),
    Family("retries_total", "Attempts beyond the first.", (("reason", RETRY_REASONS), ("outcome", RETRY_OUTCOMES))),
    Family("retry_budget_exhausted_total", "Retries that the budget did not allow."),
    Family(
        "client_aborts_total",
        "Clients that left, by what lbproxy was doing for them.",
        (("phase", CLIENT_ABORT_PHASES),),
    ),
    Family(
        "hash_picks_total",
        "Picks of consistent_hash, one for each try of a request: the key's first server, the first of the own zone, "
        "another one, or by load for want of a key.",
        (("result", ("owner", "near", "spilled", "no_key")),),
    ),
    Family(
        "sticky_requests_total",
        "Requests to a pool with sticky cookies, by what became of the cookie.",
        (("result", ("kept", "new", "moved", "spilled")),),
    ),
    Family("fail_open_total", "Requests balanced over servers that checks say are down."),
    Family("strategy_errors_total", "Exceptions raised by the strategy; the pool fell back to least connections."),
)

LISTENER: Final = Layout(
    ("listener",),
    Family("client_connections_total", "Client connections accepted."),
    Family(
        "client_connections_evicted_total",
        "Client connections that made way for others when limits.connections was reached.",
        (("reason", ("idle", "answered")),),
    ),
    Family(
        "accept_errors_total",
        "Connections that could not be accepted.",
        (("reason", ("network", "resources")),),
    ),
    Family("rejected_total", "Requests and connections that lbproxy itself refused.", (("reason", REJECTED_REASONS),)),
    Family("request_bytes_total", "Bytes of request bodies received (TCP mode: bytes from clients)."),
    Family("response_bytes_total", "Bytes of response bodies sent (TCP mode: bytes to clients)."),
    Family("tls_handshakes_total", "TLS handshakes that succeeded.", (("resumed", ("no", "yes")),)),
    Family("tls_handshake_errors_total", "TLS handshakes that failed.", (("reason", TLS_ERRORS),)),
    Family("h2_goaways_total", "HTTP/2 connections of clients that lbproxy ended.", (("reason", GOAWAYS),)),
    Family(
        "h2_table_lookups_total",
        "HTTP/2 clients: heads that were known whole, and fields of others, in the tables of HPACK or not.",
        _LOOKUPS,
    ),
)

TRAFFIC: Final = Layout(
    ("listener", "pool"),
    Family("requests_total", "Requests by method and class of status.", (("method", METHODS), ("code", CODES))),
    Family("tcp_bytes_total", "Bytes relayed in TCP mode and tunnels.", (("direction", ("in", "out")),)),
)

ROUTE: Final = Layout(
    ("listener", "route"),
    Family("route_requests_total", "Requests of a route that has a name, by class of status.", (("code", CODES),)),
    Family(
        "route_request_duration_seconds",
        "From the first byte of a request of a route that has a name to the end of the answer.",
        (),
        DURATION_BUCKETS,
    ),
)

LIMIT: Final = Layout(
    ("rule",),
    Family("rate_limited_total", "Requests that a rate limit refused."),
    Family(
        "rate_limit_open_total",
        "Requests that a rate limit of the fleet let through, within the local one, because Redis did not answer.",
    ),
)

UPGRADE_RESULTS: Final[tuple[str, ...]] = ("success", "failure", "refused")

PROCESS: Final = Layout(
    (),
    Family("internal_errors_total", "Defects: exceptions that no code expected."),
    Family("log_dropped_total", "Access log lines dropped because the output was blocked or closed."),
    Family(
        "headers_dropped_total",
        "Request fields dropped.",
        (("reason", ("underscore", "nominated", "spoofed", "bad_deadline")),),
    ),
    Family(
        "replay_copies_dropped_total", "Request bodies whose copy for a retry was given up: memory was short (limits)."
    ),
    Family("config_reloads_total", "Reloads of the config file.", (("result", ("success", "failure")),)),
    Family(
        "upgrades_total", "Upgrades, those of the processes before this one included.", (("result", UPGRADE_RESULTS),)
    ),
    Family(
        "rate_limit_keys_forgotten_total",
        "Buckets of rate limits that made room for others before they were full: too many keys for the table.",
    ),
    Family("dns_failures_total", "Name look-ups that failed; the last good answer stays in use."),
    Family("state_file_errors_total", "Writes of `state_file` that failed; they are tried again."),
    Family("loop_lag_seconds", "How late the event loop ran its timer.", (), QUEUE_BUCKETS),
)

Row = list[int]


def observe(row: Row, first: int, buckets: tuple[float, ...], value_s: float) -> None:
    """Count one value in the histogram whose first cell is `first`."""
    row[first + bisect_left(buckets, value_s)] += 1
    if value_s > 0:
        row[first + len(buckets) + 1] += int(value_s * 1e9)


class Slots:
    """Hands out rows."""

    __slots__ = ()

    def allocate(self, layout: Layout) -> Row:
        """A row of zeroes for one thing of this kind."""
        return [0] * layout.width
