"""What is counted of a request: the one place that knows which cell of which row (counters.py) an event belongs in."""

from __future__ import annotations

from typing import Final

from lbproxy import errors
from lbproxy.compiling import add_to
from lbproxy.dataplane.counters import (
    ABORTED,
    BUDGET_EXHAUSTED,
    BYTES_IN,
    BYTES_OUT,
    CODE_INDEX,
    DURATION,
    DURATION_SUM,
    FAIL_OPEN,
    GRPC,
    REJECTED,
    RETRY,
    ROUTE_DURATION,
    ROUTE_DURATION_SUM,
    ROUTE_REQUESTS,
    SERVER_REQUESTS,
    STALE,
    TCP_IN,
    TCP_OUT,
    TTFB,
    TTFB_SUM,
    UPSTREAM_ERROR,
    duration_index,
    retry_reason,
)
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.runtime import ListenerRuntime, PoolRuntime, ServerRuntime
from lbproxy.errors import Fault
from lbproxy.protocol.grpc import MOST

STALE_FAULTS: Final = frozenset((errors.CLOSED_REUSED, errors.CLOSED_UNACKED))
"""A kept connection was not good any more; the server may be."""


# What belongs to every request is counted with `add_to`: compiled, `+=` on an item makes a number anew each time.


def answer_began(runtime: ServerRuntime, ttfb_s: float) -> None:
    """A server's final head, so long after the request was sent to it."""
    row = runtime.row
    add_to(row, TTFB + duration_index(ttfb_s), 1)
    add_to(row, TTFB_SUM, int(ttfb_s * 1e9))


def lasted(pool: PoolRuntime, total_s: float) -> None:
    """A request, or a connection in TCP mode, took so long."""
    row = pool.row
    add_to(row, DURATION + duration_index(total_s), 1)
    add_to(row, DURATION_SUM, int(total_s * 1e9))


def ended(
    request: Underway, listener: ListenerRuntime, pool: PoolRuntime | None, runtime: ServerRuntime | None
) -> None:
    """A request is over. pool: where its route leads; runtime: the last server that it was given to."""
    prepared, total_s = request.prepared, request.total_s
    code = CODE_INDEX[request.status]
    add_to(prepared.route.traffic, prepared.requests_column + code, 1)
    named = prepared.route.named
    if named is not None:
        add_to(named, ROUTE_REQUESTS + code, 1)
        add_to(named, ROUTE_DURATION + duration_index(total_s), 1)
        add_to(named, ROUTE_DURATION_SUM, int(total_s * 1e9))
    row = listener.row
    if request.bytes_in:
        add_to(row, BYTES_IN, request.bytes_in)
    add_to(row, BYTES_OUT, request.bytes_out)
    if pool is not None:
        lasted(pool, total_s)
        if runtime is not None:
            add_to(runtime.row, SERVER_REQUESTS + code, 1)


def call_ended(runtime: ServerRuntime, status: int) -> None:
    """A call of gRPC was answered with this status; -1 if there was none."""
    add_to(runtime.row, GRPC + (status if 0 <= status <= MOST else MOST + 1), 1)


def failed_open(pool: PoolRuntime) -> None:
    """A request was placed although no server is known to be well."""
    pool.row[FAIL_OPEN] += 1


def server_failed(runtime: ServerRuntime, fault: Fault) -> None:
    """A fault of this server, or of the way to it."""
    if fault.word in UPSTREAM_ERROR:
        runtime.row[UPSTREAM_ERROR[fault.word]] += 1
    if fault in STALE_FAULTS:
        runtime.row[STALE] += 1


def refused(listener: ListenerRuntime, fault: Fault) -> None:
    """A fault that lbproxy answers itself, if it is one of those that count as a refusal."""
    if fault.word in REJECTED:
        listener.row[REJECTED[fault.word]] += 1


def client_left(pool: PoolRuntime, phase: str) -> None:
    """The client did not wait for the end."""
    pool.row[ABORTED[phase]] += 1


def retried(pool: PoolRuntime, why: Fault, outcome: str) -> None:
    """A further try has come to something: `success` or `failure`. why: what the one before it ended with."""
    pool.row[RETRY[retry_reason(why), outcome]] += 1


def not_retried(pool: PoolRuntime) -> None:
    """There would have been a further try, but the budget is spent."""
    pool.row[BUDGET_EXHAUSTED] += 1


def tunnelled(request: Underway, n_from_client: int, n_from_server: int) -> None:
    """A tunnel is over, which has carried so many bytes."""
    traffic = request.prepared.route.traffic
    traffic[TCP_IN] += n_from_client
    traffic[TCP_OUT] += n_from_server
    request.bytes_in += n_from_client
    request.bytes_out += n_from_server
