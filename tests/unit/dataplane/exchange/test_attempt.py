"""One try at one server; and two of them for one request, as a hedge would make them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.exchange.attempt_books import OVER, AttemptBooks
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import SharingClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.domain.lease import Lease
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from tests.support.fake_transport import CLIENT, GET, FakeLb, FakeTransport, Peer, body_of, ok, post

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app:
    servers: ["127.0.0.1:9001", "127.0.0.1:9002"]
    strategy: round_robin
    health_check: off
    circuit_breaker: off
    retry: {attempts: 0}
    timeouts: {response_head: 2s, read: 3s}
"""


class Client(SharingClientStream):
    """Notes what it is given."""

    def __init__(self, lb: FakeLb) -> None:
        self.services = lb.services
        self.transport = FakeTransport(lb.loop, asyncio.Protocol(), CLIENT, ("127.0.0.1", 5000))
        lb.clients.append(Peer(lb.loop, self.transport))
        self.facts = ClientFacts(lb.listener.runtime)
        self.facts.connected(self.transport.get_extra_info("peername"), self.transport.get_extra_info("sockname"))
        self.bound = None
        self.heard: list[object] = []

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        self.heard.append((head.status, body, is_done))

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        self.heard.append((data, is_done))

    def send_interim(self, head: ResponseHead | None) -> None:
        self.heard.append(head.status if head is not None else 100)

    def answer_fault(self, request: Underway, fault: Fault, detail: str, retry_after_s: int | None) -> None:
        self.heard.append(fault.word)

    def cut(self, fault: Fault) -> None:
        self.heard.append("cut")

    def pause_body(self) -> None:
        self.heard.append("pause")

    def resume_body(self) -> None:
        self.heard.append("resume")


class Hedged(Exchange):
    """Asks a second server as well: the first answer is taken, and the other attempt given up."""

    second: Attempt | None = None

    def hedge(self, now: float) -> None:
        pool, first = self.pool_runtime, self.attempt
        assert pool is not None and first is not None
        lease = pool.pool.acquire(PickContext(self.client, self.prepared.head), (first.runtime.server,), now, inf)
        assert isinstance(lease, Lease)
        self.attempts += 1
        self.second = Attempt(self, lease, now)
        self.second.start(pool.servers[lease.server], now)

    def _other(self, attempt: AttemptBooks) -> Attempt | None:
        other = self.attempt if attempt is self.second else self.second
        return None if other is None or other.phase == OVER else other

    def _is_for(self, attempt: AttemptBooks) -> None:
        assert isinstance(attempt, Attempt)
        self.attempt, self.second = attempt, None
        self.runtime, self.server = attempt.runtime, attempt.runtime.label

    def answered(
        self,
        attempt: AttemptBooks,
        head: ResponseHead,
        body: bytes,
        now: float,
        *,
        is_done: bool,
        trailers: Sequence[Field],
    ) -> None:
        other = self._other(attempt)
        if other is not None:
            other.give_up(errors.CLIENT_ABORT)
        self._is_for(attempt)
        super().answered(attempt, head, body, now, is_done=is_done, trailers=trailers)

    def lost(self, attempt: AttemptBooks, fault: Fault, detail: str) -> None:
        other = self._other(attempt)
        self._is_for(other or attempt)
        if other is None:
            super().lost(attempt, fault, detail)

    def _let_go(self, fault: Fault) -> None:
        if self.second is not None:
            self.second.give_up(fault)
        super()._let_go(fault)


class Race:
    """One request, and two servers that have it."""

    def __init__(self, lb: FakeLb, raw: bytes = GET, body: bytes = b"", *, is_done: bool = True) -> None:
        self.lb = lb
        self.client = Client(lb)
        head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        prepared = prepare(
            lb.listener.runtime, head, is_trusted=False, log_format=lb.listener.runtime.log_format, local_host="h"
        )
        identity = lb.services.next_request_id()
        self.request = Hedged(self.client, prepared, identity, self.client.facts.address, lb.clock())
        self.request.start(body, is_done=is_done)
        lb.loop.run()

    def hedge(self) -> None:
        """Ask the second server."""
        self.request.hedge(self.lb.clock())
        self.lb.loop.run()

    def begin(self, *, after_s: float = 0.0) -> tuple[Peer, Peer]:
        """The two servers; the second is asked after a while."""
        first = self.lb.accept()
        self.lb.advance(after_s)
        self.hedge()
        return first, self.lb.accept()

    def check(self, end: str, winner: str, code: str) -> None:
        """The books are even, and there was one request."""
        lb = self.lb
        assert lb.inflight == 0 and lb.ends == [end] and self.request.is_done
        assert (lb.log[0]["server"], lb.log[0]["attempts"]) == (winner, 2)
        assert sum(self.request.prepared.route.traffic) == 1
        assert lb.of_servers("server_requests_total", code) == 1
        assert self.request.attempt is None and self.request.body.kept == 0


@pytest.fixture
def lb() -> FakeLb:
    return FakeLb(CONFIG)


@pytest.mark.parametrize("after_s", [0.0, 0.5])
@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_answer_is_taken_and_the_other_attempt_given_up(lb: FakeLb, winner: int, after_s: float) -> None:
    with lb:
        race = Race(lb)
        servers = race.begin(after_s=after_s)
        assert lb.inflight == 2 and servers[0].got() == servers[1].got() != b""
        servers[winner].send(ok(b"first"))
        assert race.client.heard == [(200, b"first", True)]
        assert servers[1 - winner].saw_reset and servers[winner].is_open and lb.n_idle == 1
        servers[1 - winner].send(ok(b"second"))
        assert race.client.heard == [(200, b"first", True)], "there is one answer"
        race.check("ok", f"127.0.0.1:900{1 + winner}", "2xx")


def test_an_answer_in_pieces_is_one_server_s(lb: FakeLb) -> None:
    with lb:
        race = Race(lb)
        one, two = race.begin()
        two.send(ok(b"halves")[:-3])
        assert one.saw_reset and lb.inflight == 1
        two.send(b"ves")
        assert race.client.heard == [(200, b"hal", False), (b"ves", True)]
        race.check("ok", "127.0.0.1:9002", "2xx")


def test_one_that_is_still_being_dialled_is_given_up(lb: FakeLb) -> None:
    with lb:
        race = Race(lb)
        first = lb.accept()
        race.hedge()
        assert len(lb.loop.dials) == 1 and lb.inflight == 2
        first.send(ok(b"first"))
        lb.loop.run()
        assert race.client.heard == [(200, b"first", True)] and not lb.loop.dials
        race.check("ok", "127.0.0.1:9001", "2xx")


def test_both_have_the_body_from_its_first_byte_to_its_last(lb: FakeLb) -> None:
    with lb:
        race = Race(lb, post(b"0123456789"), b"012", is_done=False)
        first = lb.accept()
        race.request.request_body(b"345", is_done=False)
        race.hedge()
        second = lb.accept()
        race.request.request_body(b"6789", is_done=True)
        assert body_of(first.got()) == body_of(second.got()) == b"0123456789"
        second.send(ok(b"done"))
        assert race.client.heard == [(200, b"done", True)] and lb.log[0]["bytes_in"] == 10
        race.check("ok", "127.0.0.1:9002", "2xx")


@pytest.mark.parametrize("loser", [0, 1])
def test_one_that_is_lost_leaves_it_to_the_other(lb: FakeLb, loser: int) -> None:
    with lb:
        race = Race(lb)
        servers = race.begin()
        servers[loser].reset()
        assert race.client.heard == [] and lb.inflight == 1
        servers[1 - loser].send(ok(b"whole"))
        assert race.client.heard == [(200, b"whole", True)]
        race.check("ok", f"127.0.0.1:900{2 - loser}", "2xx")


def test_when_both_are_lost_there_is_one_error(lb: FakeLb) -> None:
    with lb:
        race = Race(lb)
        one, two = race.begin()
        one.reset()
        two.fin()
        assert race.client.heard == ["closed_early"]
        race.check("closed_early", "127.0.0.1:9002", "5xx")


def test_a_client_that_leaves_ends_both(lb: FakeLb) -> None:
    with lb:
        race = Race(lb)
        one, two = race.begin()
        race.request.client_left()
        lb.loop.run()
        assert one.saw_reset and two.saw_reset and race.client.heard == []
        race.check("client_abort", "127.0.0.1:9001", "499")


# --- one attempt ----------------------------------------------------------------------------------------------------


def test_it_is_over_after_its_answer_and_holds_nothing(lb: FakeLb) -> None:
    with lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        attempt = server.transport.protocol.sink  # type: ignore[union-attr]
        assert isinstance(attempt, Attempt) and attempt.upstream is not None and lb.inflight == 1
        server.send(ok())
        assert attempt.phase == OVER and attempt.upstream is None and lb.inflight == 0
        attempt.give_up(errors.CLIENT_ABORT)
        attempt.give_up(errors.CLIENT_ABORT)
        assert server.is_open and lb.inflight == 0, "once is all"


def test_what_one_server_does_not_take_holds_the_client_back(lb: FakeLb) -> None:
    with lb:
        race = Race(lb, post(bytes(90_000)), bytes(10), is_done=False)
        server = lb.accept()
        server.stop_reading()
        server.read_again()
        assert race.client.heard == ["pause", "resume"]
        race.request.client_left()


def test_a_time_out_of_the_answer(lb: FakeLb) -> None:
    with lb:
        race = Race(lb)
        server = lb.accept()
        race.request.sweep(lb.clock() + 1.9)
        assert not race.request.is_done
        race.request.sweep(lb.clock() + 2.0)
        lb.loop.run()
        assert race.client.heard == ["response_timeout"] and server.saw_reset and lb.inflight == 0
