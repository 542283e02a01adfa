"""Which cell an event of a request is counted in."""

from __future__ import annotations

import pytest

from lbproxy import errors
from lbproxy.dataplane.counters import DURATION, DURATION_SUM, TTFB, TTFB_SUM
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.errors import Fault
from lbproxy.telemetry.slots import LISTENER, POOL, SERVER, TRAFFIC
from tests.support.fake_transport import GET, FakeLb


def request_of(lb: FakeLb) -> Underway:
    prepared = prepare(lb.listener.runtime, GET, is_trusted=False, log_format=None, local_host="h")
    return Underway(prepared, b"")


def counted(before: list[int], after: list[int]) -> dict[int, int]:
    """Which cells have changed, and by how much."""
    return {cell: now - was for cell, (was, now) in enumerate(zip(before, after, strict=True)) if now != was}


@pytest.mark.parametrize(
    ("fault", "columns"),
    [
        (errors.RESET, [("upstream_errors_total", "reset")]),
        (errors.CLOSED_UNACKED, [("upstream_errors_total", "closed_early"), ("stale_connections_total",)]),
        (errors.QUEUE_FULL, []),
    ],
)
def test_what_a_server_did(fault: Fault, columns: list[tuple[str, ...]]) -> None:
    with FakeLb() as lb:
        runtime = lb.runtimes[0]
        before = list(runtime.row)
        accounts.server_failed(runtime, fault)
        assert counted(before, list(runtime.row)) == {SERVER.column(*column): 1 for column in columns}


def test_a_refusal_of_lbproxy_s_own() -> None:
    with FakeLb() as lb:
        row = lb.listener.runtime.row
        before = list(row)
        accounts.refused(lb.listener.runtime, errors.RESET)
        assert list(row) == before
        accounts.refused(lb.listener.runtime, errors.BODY_TOO_LARGE)
        assert counted(before, list(row)) == {LISTENER.column("rejected_total", "body_too_large"): 1}


def test_a_request_that_is_over() -> None:
    with FakeLb() as lb:
        request, runtime = request_of(lb), lb.runtimes[0]
        request.status, request.total_s, request.bytes_in, request.bytes_out = 200, 0.25, 3, 5
        accounts.ended(request, lb.listener.runtime, lb.pool, runtime)
        assert lb.of_listener("request_bytes_total") == 3 and lb.of_listener("response_bytes_total") == 5
        assert lb.of_servers("server_requests_total", "2xx") == 1
        assert lb.pool.row[POOL.offset["request_duration_seconds"] :].count(1) == 1
        assert lb.pool.row[DURATION_SUM] == 250_000_000
        traffic = request.prepared.route.traffic
        assert sum(traffic) == 1 and traffic[request.prepared.requests_column + 1] == 1


def test_one_that_no_server_had() -> None:
    with FakeLb() as lb:
        request = request_of(lb)
        request.status, request.total_s, request.bytes_in, request.bytes_out = 503, 0.0, 0, 5
        accounts.ended(request, lb.listener.runtime, lb.pool, None)
        accounts.ended(request, lb.listener.runtime, None, None)
        assert sum(lb.pool.row[DURATION:DURATION_SUM]) == 1
        assert all(not any(runtime.row) for runtime in lb.runtimes)


def test_events_of_a_pool() -> None:
    with FakeLb() as lb:
        accounts.failed_open(lb.pool)
        accounts.not_retried(lb.pool)
        accounts.client_left(lb.pool, "queued")
        accounts.retried(lb.pool, errors.RESPONSE_TIMEOUT, "success")
        assert lb.of_pool("fail_open_total") == lb.of_pool("retry_budget_exhausted_total") == 1
        assert lb.of_pool("client_aborts_total", "queued") == 1
        assert lb.of_pool("retries_total", "timeout", "success") == 1


def test_the_first_byte_of_an_answer() -> None:
    with FakeLb() as lb:
        runtime = lb.runtimes[0]
        accounts.answer_began(runtime, 0.5)
        assert runtime.row[TTFB_SUM] == 500_000_000
        assert sum(runtime.row[TTFB:TTFB_SUM]) == 1


def test_a_tunnel_counts_as_traffic_of_its_request() -> None:
    with FakeLb() as lb:
        request = request_of(lb)
        request.bytes_in, request.bytes_out = 1, 2
        accounts.tunnelled(request, 10, 20)
        assert (request.bytes_in, request.bytes_out) == (11, 22)
        traffic = request.prepared.route.traffic
        assert traffic[TRAFFIC.column("tcp_bytes_total", "in")] == 10
        assert traffic[TRAFFIC.column("tcp_bytes_total", "out")] == 20


@pytest.mark.parametrize("start", [0, 255, 256, 257, (1 << 30) - 2, 1 << 30, (1 << 60) - 2, 1 << 60, (1 << 62) - 3, -5])
def test_a_count_that_somebody_has_read_stays_what_it_was(start: int) -> None:
    """Compiled, a number is changed where it stands while nobody else knows it."""
    with FakeLb() as lb:
        request, row = request_of(lb), lb.listener.runtime.row
        request.status, request.total_s, request.bytes_in, request.bytes_out = 200, 0.1, 1, 0
        cell = LISTENER.column("request_bytes_total")
        row[cell] = start + 0
        seen, copies = [], []
        for _ in range(2):
            for _ in range(3):
                accounts.ended(request, lb.listener.runtime, None, None)
            seen.append(row[cell])
            copies.append(list(row))
        assert seen == [start + 3, start + 6] and [copy[cell] for copy in copies] == seen
        request.bytes_in = 1 << 40
        accounts.ended(request, lb.listener.runtime, None, None)
        assert row[cell] == start + 6 + (1 << 40) and seen == [start + 3, start + 6]
