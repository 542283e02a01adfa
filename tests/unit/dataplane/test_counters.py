"""The cells of an exchange: each fault and status counts where its label says."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest

from lbproxy import errors
from lbproxy.dataplane import counters
from lbproxy.telemetry.slots import (
    CODES,
    DURATION_BUCKETS,
    LISTENER,
    POOL,
    RETRY_OUTCOMES,
    RETRY_REASONS,
    SERVER,
    Layout,
)


@pytest.mark.parametrize(
    ("status", "code"),
    [(0, 0), (100, 0), (101, 0), (200, 1), (299, 1), (304, 2), (404, 3), (498, 3), (499, 5), (500, 4), (599, 4)],
)
def test_the_class_of_a_status(status: int, code: int) -> None:
    assert counters.CODE_INDEX[status] == code


@pytest.mark.parametrize("bound", [0.0, *DURATION_BUCKETS])
def test_a_duration_counts_where_the_table_of_buckets_says(bound: float) -> None:
    for seconds in (bound, math.nextafter(bound, 0.0), math.nextafter(bound, 1e9), bound * 1.1, bound * 0.9):
        assert counters.duration_index(seconds) == bisect_left(DURATION_BUCKETS, seconds), seconds


@pytest.mark.parametrize("fault", errors.FAULTS.values(), ids=lambda fault: fault.word)
def test_a_fault_is_counted_in_one_family_at_most(fault: errors.Fault) -> None:
    tables = {
        "upstream_errors_total": (counters.UPSTREAM_ERROR, SERVER),
        "rejected_total": (counters.REJECTED, LISTENER),
    }
    for metric, (table, layout) in tables.items():
        if fault.metric == metric:
            assert table[fault.word] == layout.column(metric, fault.reason)
        else:
            assert fault.word not in table


@pytest.mark.parametrize(
    ("table", "metric", "layout"),
    [
        (counters.UPSTREAM_ERROR, "upstream_errors_total", SERVER),
        (counters.REJECTED, "rejected_total", LISTENER),
    ],
)
def test_faults_share_a_cell_only_if_they_share_a_reason(table: dict[str, int], metric: str, layout: Layout) -> None:
    faults = [fault for fault in errors.FAULTS.values() if fault.metric == metric]
    assert set(table) == {fault.word for fault in faults}
    cells = {(fault.reason, table[fault.word]) for fault in faults}
    assert len({reason for reason, _ in cells}) == len({cell for _, cell in cells}) == len(cells)
    family = next(family for family in layout.families if family.name == metric)
    first = layout.offset[metric]
    assert {cell for _, cell in cells} == set(range(first, first + family.width)), "a label that nothing counts"


def test_no_cell_of_a_row_has_two_meanings() -> None:
    of_server = {*counters.UPSTREAM_ERROR.values(), counters.STALE}
    of_server |= {counters.SERVER_REQUESTS + index for index in set(counters.CODE_INDEX)}
    of_server |= set(range(counters.TTFB, counters.TTFB_SUM + 1))
    families = ("upstream_errors_total", "stale_connections_total", "server_requests_total", "upstream_ttfb_seconds")
    assert len(of_server) == sum(family.width for family in SERVER.families if family.name in families)
    of_pool = [*counters.ABORTED.values(), *counters.RETRY.values(), counters.FAIL_OPEN]
    of_pool += range(counters.DURATION, counters.DURATION_SUM + 1)
    assert len(of_pool) == len(set(of_pool))
    of_listener = [*counters.REJECTED.values(), counters.BYTES_IN, counters.BYTES_OUT]
    assert len(of_listener) == len(set(of_listener))


@pytest.mark.parametrize("code", CODES)
def test_every_class_is_reached_by_its_statuses(code: str) -> None:
    statuses = {status for status, index in enumerate(counters.CODE_INDEX) if CODES[index] == code and status >= 100}
    # RFC 9110 section 15: who meets a status of 600 or more treats it as one of 5xx.
    hundred = range(int(code[0]) * 100, 1000 if code == "5xx" else int(code[0]) * 100 + 100)
    assert statuses == ({499} if code == "499" else set(hundred) - {499})


def test_sums_stand_behind_their_buckets() -> None:
    assert len(DURATION_BUCKETS) + 1 == counters.TTFB_SUM - counters.TTFB
    assert len(DURATION_BUCKETS) + 1 == counters.DURATION_SUM - counters.DURATION


def test_every_phase_of_an_abort_has_a_cell() -> None:
    assert {
        phase: POOL.column("client_aborts_total", phase) for phase in errors.CLIENT_ABORT_PHASES
    } == counters.ABORTED


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (errors.CONNECT_REFUSED, "connect"),
        (errors.CLOSED_UNSENT, "connect"),
        (errors.CLOSED_UNACKED, "stale"),
        (errors.CLOSED_REUSED, "stale"),
        (errors.CLOSED_EARLY, "reset"),
        (errors.RESET, "reset"),
        (errors.RESPONSE_TIMEOUT, "timeout"),
    ],
)
def test_why_something_was_retried(fault: errors.Fault, reason: str) -> None:
    assert counters.retry_reason(fault) == reason
    for outcome in ("success", "failure"):
        assert counters.RETRY[reason, outcome] == POOL.column("retries_total", reason, outcome)


def test_every_fault_that_may_be_retried_has_its_reason() -> None:
    retryable = [fault for fault in errors.FAULTS.values() if fault.retry is not errors.Retry.NEVER]
    named: dict[str, set[str]] = {}
    for fault in retryable:
        named.setdefault(counters.retry_reason(fault), set()).add(fault.word)
    assert named.pop("connect") == {
        "connect_refused",
        "connect_unreachable",
        "connect_timeout",
        "connect_error",
        "tls_handshake",
        "tls_verify",
        "tls_timeout",
        "closed_unsent",
    }
    assert named == {
        "reset": {
            "closed_early",
            "h2_protocol",
            "maintenance",
            "ping_timeout",
            "reset",
            "stream_cancelled",
            "stream_reset",
        },
        "stale": {"closed_unacked", "upstream_closed_reused_conn"},
        "status": {"retryable_status"},
        "timeout": {"response_timeout"},
        "unprocessed": {"goaway_unprocessed", "no_grpc", "refused_stream"},
    }


def test_every_retry_has_a_cell_by_reason_and_outcome() -> None:
    assert {
        (reason, outcome): POOL.column("retries_total", reason, outcome)
        for reason in RETRY_REASONS
        for outcome in RETRY_OUTCOMES
    } == counters.RETRY
