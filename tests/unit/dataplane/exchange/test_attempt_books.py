"""How an attempt gives its lease back: once, and with what its end says about the server."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.attempt_books import KEEPING, OVER, STREAMING, WAITING, AttemptBooks, AttemptOwner
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import parse_response_head
from tests.support.fake_transport import GET, FakeLb

OK = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", max_fields=10)
BUSY = parse_response_head(b"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n", max_fields=10)


class FakeLease(Lease):
    """Notes how it was released."""

    def __init__(self, lb: FakeLb) -> None:
        self.server = lb.runtimes[0].server
        self.released: list[tuple[Any, ...]] = []

    def release(self, outcome: Outcome, now: float, **said: Any) -> None:
        self.released.append((outcome, said))


class Side(ClientStream):
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
    def __init__(self, lb: FakeLb) -> None:
        self.owner = Owner(lb)
        self.lease = FakeLease(lb)
        self.attempt = AttemptBooks(self.owner, self.lease, lb.clock())
        self.attempt.runtime = lb.runtimes[0]


@pytest.fixture
def lb() -> FakeLb:
    return FakeLb()


def test_a_plain_success(lb: FakeLb) -> None:
    with lb:
        setting = Setting(lb)
        setting.attempt.succeeded(lb.clock())
        assert setting.lease.released == [(Outcome.SUCCESS, {})] and setting.attempt.phase == OVER


def test_a_status_that_says_something(lb: FakeLb) -> None:
    with lb:
        setting = Setting(lb)
        setting.attempt.ended_with(BUSY, lb.clock())
        [(outcome, said)] = setting.lease.released
        assert outcome is Outcome.PUSH_BACK and said["penalty_s"] == 7.0


@pytest.mark.parametrize(
    ("phase", "fault", "outcome", "is_quarantined"),
    [
        (WAITING, errors.RESET, Outcome.FAILURE, False),
        (WAITING, errors.RESPONSE_TIMEOUT, Outcome.FAILURE, True),
        (WAITING, errors.CLIENT_ABORT, Outcome.ABORTED, True),
        (KEEPING, errors.CLIENT_ABORT, Outcome.ABORTED, True),
        (STREAMING, errors.CLIENT_ABORT, Outcome.ABORTED, True),
        (0, errors.CLIENT_ABORT, Outcome.NEUTRAL, False),
        (STREAMING, errors.TRUNCATED_BODY, Outcome.BAD_ANSWER, False),
        (WAITING, errors.TOTAL_TIMEOUT, Outcome.ABORTED, True),
    ],
)
def test_an_end_before_the_answer_s(
    lb: FakeLb, phase: int, fault: Fault, outcome: Outcome, is_quarantined: bool
) -> None:
    with lb:
        setting = Setting(lb)
        setting.attempt.phase = phase
        setting.attempt.give_up(fault)
        [(released, said)] = setting.lease.released
        assert released is outcome and (said["quarantine_s"] > 0.0) is is_quarantined


def test_whatever_is_said_afterwards_the_lease_goes_back_once(lb: FakeLb) -> None:
    with lb:
        setting = Setting(lb)
        attempt, now = setting.attempt, lb.clock()
        attempt.tunnelled(Outcome.NEUTRAL, now)
        attempt.succeeded(now)
        attempt.ended_with(OK, now)
        attempt.give_up(errors.CLIENT_ABORT)
        attempt.tunnelled(Outcome.SUCCESS, now)
        assert setting.lease.released == [(Outcome.NEUTRAL, {"is_timed": False})]


def test_the_client_is_held_back_once_and_let_go_once(lb: FakeLb) -> None:
    with lb:
        owner = Setting(lb).owner
        owner.resume_body()
        owner.pause_body()
        owner.pause_body()
        owner.resume_body()
        owner.resume_body()
        assert isinstance(owner.side, Side)
        assert owner.side.calls == ["pause", "resume"] and not owner.is_body_paused
