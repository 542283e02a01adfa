"""The cells of an exchange: each fault and status counts where its label says."""

from __future__ import annotations

import pytest

from lbproxy import errors
from lbproxy.dataplane import counters
from lbproxy.telemetry.slots import DURATION_BUCKETS, LISTENER, POOL, SERVER


@pytest.mark.parametrize(
    ("status", "code"),
    [(0, 0), (100, 0), (101, 0), (200, 1), (299, 1), (304, 2), (404, 3), (498, 3), (499, 5), (500, 4), (599, 4)],
)
def test_the_class_of_a_status(status: int, code: int) -> None:
    assert counters.CODE_INDEX[status] == code


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
        (errors.DNS_ERROR, "connect"),
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
