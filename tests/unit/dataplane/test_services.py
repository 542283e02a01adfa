"""What the protocol objects share: identities, the sweep, and RST."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time

import pytest

from lbproxy.dataplane.services import SWEEP_S, abort
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import GET, FakeLb, FakeSocket, FakeTransport, ok

INTERNAL_ERRORS = PROCESS.column("internal_errors_total")


class Item:
    """Something that is swept."""

    def __init__(self, size: int = 0, *, fails: bool = False) -> None:
        self.size = size
        self.fails = fails
        self.swept_at: list[float] = []

    def sweep(self, now: float) -> None:
        self.swept_at.append(now)
        if self.fails:
            raise ZeroDivisionError("on purpose")

    def buffered_bytes(self) -> int:
        return self.size

    def begin_drain(self, now: float) -> None: ...

    def shut_down(self) -> None: ...


def test_request_ids_are_32_hex_digits_and_never_repeat() -> None:
    with FakeLb() as lb:
        identities = [lb.services.next_request_id() for _ in range(1000)]
        assert len({text for text, _ in identities}) == 1000
        assert all(len(text) == 32 and int(text, 16) >= 0 for text, _ in identities)
        assert all(line == f"X-Request-ID: {text}\r\n".encode() for text, line in identities)


def test_a_request_id_has_all_of_its_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = bytes(range(256)) * 8
    monkeypatch.setattr(os, "urandom", lambda size: octets[:size])
    with FakeLb() as lb:
        identities = [lb.services.next_request_id() for _ in range(128)]
    assert "".join(text for text, _ in identities) == octets.hex()


def test_everything_is_swept_a_few_times_a_second() -> None:
    with FakeLb() as lb:
        item = Item()
        lb.services.swept.add(item)
        start = lb.clock()
        lb.advance(1.05)
        assert item.swept_at == pytest.approx([start + SWEEP_S * number for number in range(1, 6)])
        lb.services.swept.discard(item)


def test_one_that_fails_is_counted_and_stops_nobody() -> None:
    with FakeLb() as lb:
        items = [Item(fails=True), Item(), Item(fails=True)]
        called: list[float] = []

        def callback(now: float) -> None:
            raise ZeroDivisionError("on purpose")

        lb.services.on_sweep[:0] = [callback, called.append]
        lb.services.swept.update(items)
        lb.advance(SWEEP_S)
        assert all(len(item.swept_at) == 1 for item in items)
        assert len(called) == 1
        assert lb.services.row[INTERNAL_ERRORS] == 3
        lb.services.swept.clear()
        lb.services.on_sweep.clear()
        lb.services.row[INTERNAL_ERRORS] = 0


def test_an_item_may_leave_in_the_middle_of_the_sweep() -> None:
    with FakeLb() as lb:
        lb.connect()
        lb.connect()
        lb.advance(30.0)  # both are closed by the sweep itself
        assert not lb.services.swept


def test_overload_begins_just_below_the_limit_and_ends() -> None:
    with FakeLb() as lb:
        item = Item()
        lb.services.swept.add(item)
        for share, is_overloaded in ((0.94, False), (0.96, True), (2.0, True), (0.5, False)):
            item.size = int(lb.services.pressure.limit * share)
            lb.advance(SWEEP_S)
            assert lb.services.pressure.is_refusing is is_overloaded
        lb.services.swept.discard(item)


def test_a_blocked_client_counts_before_the_next_sweep() -> None:
    with FakeLb() as lb:
        lb.services.pressure.count(int(lb.services.pressure.limit * 0.9))
        assert not lb.services.pressure.is_refusing
        lb.services.pressure.count(int(lb.services.pressure.limit * 0.06))
        assert lb.services.pressure.is_refusing
        lb.advance(SWEEP_S)
        assert not lb.services.pressure.is_refusing and lb.services.pressure.buffered == 0


def test_a_client_that_is_blocked_again_and_again_counts_once() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        for _ in range(50):
            client.stop_reading(lb.services.pressure.limit // 10)
            assert lb.services.pressure.buffered == lb.services.pressure.limit // 10
            client.read_again()
        assert lb.services.pressure.buffered == 0 and not lb.services.pressure.is_refusing
        client.stop_reading(lb.services.pressure.limit // 10)
        client.reset()
        assert lb.services.pressure.buffered == 0


def test_the_log_s_time_follows_the_wall_clock() -> None:
    with FakeLb() as lb:
        lb.services.wall_offset = 0.0
        lb.advance(SWEEP_S)
        client = lb.connect()
        lb.exchange(client, GET).send(ok())
        assert not lb.log[0]["ts"].startswith("1970")


@pytest.mark.parametrize(
    ("family", "has_linger"), [(socket.AF_INET, True), (socket.AF_INET6, True), (socket.AF_UNIX, False)]
)
def test_abort_asks_for_rst_where_there_is_one(family: socket.AddressFamily, has_linger: bool) -> None:
    with FakeLb() as lb:
        transport = FakeTransport(lb.loop, asyncio.Protocol(), None, None)
        transport.sock.family = family
        abort(transport)
        assert [option[1] for option in transport.sock.options] == [socket.SO_LINGER] * has_linger
        assert transport.calls == ["abort"]
        lb.loop.run()


def test_abort_of_a_socket_that_is_gone_still_ends_the_transport() -> None:
    class Gone(FakeSocket):
        def setsockopt(self, level: int, option: int, value: object) -> None:
            raise OSError(errno.EBADF, "Bad file descriptor")

    class Bare(FakeTransport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return default

    with FakeLb() as lb:
        gone = FakeTransport(lb.loop, asyncio.Protocol(), None, None, sock=Gone())
        bare = Bare(lb.loop, asyncio.Protocol(), None, None)
        for transport in (gone, bare):
            abort(transport)
            assert transport.calls == ["abort"]
        lb.loop.run()


def test_a_crashed_task_is_a_defect() -> None:
    async def crash() -> None:
        raise ZeroDivisionError("on purpose")

    with FakeLb() as lb:
        lb.services.tasks.spawn(crash(), "crash")
        lb.loop.run()
        assert lb.services.row[INTERNAL_ERRORS] == 1
        lb.services.row[INTERNAL_ERRORS] = 0


def test_the_time_of_a_request_is_that_of_the_clock() -> None:
    with FakeLb() as lb:
        assert lb.services.now() == lb.clock()
        lb.advance(1.0)
        assert lb.services.now() == lb.clock()
        lb.services.clock = time.monotonic
        before = time.monotonic()
        assert before <= lb.services.now() <= time.monotonic()
