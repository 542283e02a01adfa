"""How an attempt gives its lease back: once, and with what its end says about the server."""

from __future__ import annotations

from math import inf

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.attempt_books import (
    CONNECTING,
    KEEPING,
    OVER,
    STREAMING,
    WAITING,
    AttemptBooks,
    AttemptOwner,
)
from lbproxy.dataplane.exchange.client_stream import SharingClientStream
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import parse_response_head
from tests.support.fake_transport import GET, FakeLb

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001", "127.0.0.1:9002"], health_check: off, max_inflight: 4}}
"""
BUSY = parse_response_head(b"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n", max_fields=10)


class Side(SharingClientStream):
    """As much of a client's end as attempts ask for here."""

    def __init__(self, lb: FakeLb) -> None:
        self.services = lb.services
        self.bound = None
        self.calls: list[str] = []

    def pause_body(self) -> None:
        self.calls.append("pause")

    def resume_body(self) -> None:
        self.calls.append("resume")


class Owner(AttemptOwner):
    """A request that decides nothing."""

    def __init__(self, lb: FakeLb) -> None:
        prepared = prepare(lb.listener.runtime, GET, is_trusted=False, log_format=None, local_host="h")
        super().__init__(Side(lb), prepared, b"")
        self.client = "192.0.2.7"


class Setting:
    """An attempt that has a lease on the first server."""

    def __init__(self, lb: FakeLb) -> None:
        self.lb = lb
        self.owner = Owner(lb)
        context = PickContext(self.owner.client, self.owner.prepared.head)
        lease = lb.pool.pool.acquire(context, (), lb.clock(), inf)
        assert isinstance(lease, Lease)
        self.server = lease.server
        self.attempt = AttemptBooks(self.owner, lease, lb.clock())
        self.attempt.runtime = lb.pool.servers[lease.server]

    @property
    def is_over(self) -> bool:
        return self.attempt.phase == OVER and self.lb.inflight == 0


@pytest.fixture
def lb() -> FakeLb:
    return FakeLb(CONFIG)


def test_a_plain_success(lb: FakeLb) -> None:
    with lb:
        setting = Setting(lb)
        setting.server.errors_in_a_row = 1
        setting.attempt.succeeded(lb.clock())
        assert setting.is_over and setting.server.errors_in_a_row == 0


def test_a_status_that_says_something(lb: FakeLb) -> None:
    with lb:
        setting = Setting(lb)
        setting.attempt.ended_with(BUSY, lb.clock())
        assert setting.is_over and setting.server.penalty_until == lb.clock() + 7.0 and setting.server.errors == 0


@pytest.mark.parametrize(
    ("phase", "fault", "n_errors", "n_quarantined"),
    [
        (WAITING, errors.RESET, 1, 0),
        (WAITING, errors.RESPONSE_TIMEOUT, 1, 1),
        (WAITING, errors.CLIENT_ABORT, 0, 1),
        (KEEPING, errors.CLIENT_ABORT, 0, 1),
        (STREAMING, errors.CLIENT_ABORT, 0, 1),
        (CONNECTING, errors.CLIENT_ABORT, 0, 0),
        (STREAMING, errors.TRUNCATED_BODY, 1, 0),
        (WAITING, errors.TOTAL_TIMEOUT, 0, 1),
    ],
)
def test_an_end_before_the_answer_s(lb: FakeLb, phase: int, fault: Fault, n_errors: int, n_quarantined: int) -> None:
    with lb:
        setting = Setting(lb)
        setting.attempt.phase = phase
        setting.attempt.give_up(fault)
        assert setting.is_over
        assert (setting.server.errors, setting.server.n_quarantined) == (n_errors, n_quarantined)


def test_whatever_is_said_afterwards_the_lease_goes_back_once(lb: FakeLb) -> None:
    """A second release would raise."""
    with lb:
        setting = Setting(lb)
        attempt, now = setting.attempt, lb.clock()
        attempt.tunnelled(Outcome.NEUTRAL, now)
        attempt.succeeded(now)
        attempt.ended_with(BUSY, now)
        attempt.give_up(errors.CLIENT_ABORT)
        attempt.tunnelled(Outcome.SUCCESS, now)
        assert setting.is_over and setting.server.penalty_until == 0.0


def test_the_client_is_held_back_once_and_let_go_once(lb: FakeLb) -> None:
    with lb:
        owner = Owner(lb)
        owner.resume_body()
        owner.pause_body()
        owner.pause_body()
        owner.resume_body()
        owner.resume_body()
        assert isinstance(owner.side, Side)
        assert owner.side.calls == ["pause", "resume"] and not owner.is_body_paused
