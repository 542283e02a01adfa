"""Bounds of the admin address: who goes when it is full, and who is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from lbproxy.control.admin_gate import HEAD_BYTES
from lbproxy.control.admin_guard import (
    DISCARDED_BYTES,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    WRITE_S,
    AdminGuard,
    Gate,
    GuardedConnection,
)

HEAD = b"GET / HTTP/1.1\r\n\r\n"


class Inner(asyncio.Protocol):
    """aiohttp's protocol object."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")

    def data_received(self, data: bytes) -> None:
        self.calls.append(f"data {data!r}")

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Transport:
    def __init__(self) -> None:
        self.is_aborted = False
        self.is_closing_now = False
        self.unsent = 0
        self.is_reading = True
        self.written = b""
        self.has_ended = False

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 80) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.is_aborted or self.is_closing_now

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Loop:
    """What is to be done in its next turns."""

    def __init__(self) -> None:
        self.to_do: list[Callable[[], None]] = []

    def call_soon(self, work: Callable[[], None]) -> None:
        self.to_do.append(work)

    def call_later(self, delay: float, *work: object) -> asyncio.TimerHandle:
        return cast(asyncio.TimerHandle, self)

    def cancel(self) -> None:
        pass

    def turn(self) -> None:
        work, self.to_do = self.to_do, []
        for item in work:
            item()


def lets_pass(head: bytes, peer: str) -> bytes | None:
    return None


class Bench:
    def __init__(self, limit: int = 3, gate: Gate = lets_pass) -> None:
        self.now = 10.0
        self.guard = AdminGuard(limit, lambda: self.now, gate)

    def connect(self) -> tuple[GuardedConnection, Transport]:
        connection, transport = self.guard.guarded(Inner), Transport()
        connection.connection_made(cast(asyncio.Transport, transport))
        return connection, transport

    def ask(self, connection: GuardedConnection) -> None:
        connection.data_received(HEAD)
        self.guard.began(connection.inner)

    def answer(self, connection: GuardedConnection) -> None:
        self.guard.ended(connection.inner)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.guard.sweep()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_aiohttp_sees_everything(bench: Bench) -> None:
    connection, _ = bench.connect()
    connection.data_received(HEAD)
    inner = cast(Inner, connection.inner)
    connection.data_received(b"x")
    connection.pause_writing()
    connection.resume_writing()
    connection.eof_received()
    connection.connection_lost(None)
    assert inner.calls == ["made", f"data {HEAD!r}", "data b'x'", "pause", "resume", "eof", "lost"]
    assert len(bench.guard) == 0


def test_nothing_is_made_for_one_that_leaves_before_its_head_is_whole(bench: Bench) -> None:
    connection, _ = bench.connect()
    for octet in HEAD[:-1]:
        connection.data_received(bytes([octet]))
    connection.pause_writing()
    connection.resume_writing()
    connection.eof_received()
    connection.connection_lost(None)
    assert connection.inner is None
    assert len(bench.guard) == 0


def test_a_head_that_is_too_long_is_for_aiohttp_to_refuse(bench: Bench) -> None:
    connection, _ = bench.connect()
    connection.data_received(b"x" * HEAD_BYTES)
    assert connection.inner is None
    connection.data_received(b"x")
    assert cast(Inner, connection.inner).calls == ["made", f"data {b'x' * (HEAD_BYTES + 1)!r}"]


def refuses(head: bytes, peer: str) -> bytes | None:
    return f"no, {peer}".encode()


def test_one_that_is_refused_is_told_and_aiohttp_is_not() -> None:
    bench = Bench(gate=refuses)
    connection, transport = bench.connect()
    connection.data_received(HEAD + b"a body")
    assert connection.inner is None and transport.is_reading
    assert transport.written == b"no, 192.0.2.1" and transport.has_ended
    connection.data_received(HEAD)
    assert transport.written == b"no, 192.0.2.1"
    bench.after(LINGER_S - 0.1)
    assert not transport.is_aborted
    bench.after(0.1)
    assert transport.is_aborted and len(bench.guard) == 0


def test_of_a_body_that_was_refused_only_so_much_is_read() -> None:
    bench = Bench(gate=refuses)
    connection, transport = bench.connect()
    connection.data_received(HEAD)
    connection.data_received(bytes(DISCARDED_BYTES))
    assert transport.is_reading
    connection.data_received(b"x")
    assert not transport.is_reading


def test_heads_that_come_at_once_have_a_turn_of_the_loop_each() -> None:
    seen: list[bytes] = []

    def gate(head: bytes, peer: str) -> bytes | None:
        seen.append(head)
        if len(seen) == 2:
            raise ArithmeticError
        return None

    bench, loop = Bench(4, gate), Loop()
    bench.guard.start(cast(asyncio.AbstractEventLoop, loop))
    made = [bench.connect() for _ in range(4)]
    for number, (connection, transport) in enumerate(made):
        connection.data_received(HEAD + bytes([number]))
        connection.data_received(b"more")  # nothing is read meanwhile; what the loop had read already comes too
        assert not transport.is_reading
    made[2][1].is_closing_now = True
    assert seen == []
    loop.turn()
    assert seen == [HEAD + b"\0more"]
    with pytest.raises(ArithmeticError):  # a defect holds up nobody else
        loop.turn()
    loop.turn()
    assert len(seen) == 2
    loop.turn()
    assert seen[2:] == [HEAD + b"\3more"] and loop.to_do == []
    assert made[3][1].is_reading and made[2][0].inner is None
    bench.guard.stop()
    assert [transport.is_aborted for _, transport in made] == [False, True, True, False]


def test_the_longest_silent_one_makes_room(bench: Bench) -> None:
    made = []
    for _ in range(5):
        made.append(bench.connect()[1])
        bench.now += 1.0
    assert [transport.is_aborted for transport in made] == [True, True, False, False, False]
    assert len(bench.guard) == 3


def test_one_that_is_being_answered_does_not_make_room(bench: Bench) -> None:
    first, first_transport = bench.connect()
    bench.ask(first)
    bench.now += 1.0
    _, second_transport = bench.connect()
    bench.connect()
    bench.connect()
    assert not first_transport.is_aborted and second_transport.is_aborted


def test_when_all_are_being_answered_the_new_one_goes(bench: Bench) -> None:
    for _ in range(3):
        bench.ask(bench.connect()[0])
    _, transport = bench.connect()
    assert transport.is_aborted and len(bench.guard) == 3


def test_one_that_says_nothing_is_closed(bench: Bench) -> None:
    _, transport = bench.connect()
    bench.after(HEAD_S - 0.1)
    assert not transport.is_aborted
    bench.after(0.1)
    assert transport.is_aborted and len(bench.guard) == 0


def test_a_head_that_comes_byte_by_byte_has_no_more_time(bench: Bench) -> None:
    connection, transport = bench.connect()
    for _ in range(9):
        bench.after(HEAD_S / 10)
        connection.data_received(b"G")
    assert not transport.is_aborted
    bench.after(HEAD_S / 10)
    assert transport.is_aborted


def test_a_kept_connection_may_be_idle_for_longer_and_its_next_head_may_not(bench: Bench) -> None:
    connection, transport = bench.connect()
    bench.ask(connection)
    bench.answer(connection)
    bench.after(IDLE_S - 1.0)
    assert not transport.is_aborted
    connection.data_received(b"GET / HT")
    bench.after(HEAD_S - 0.1)
    assert not transport.is_aborted
    bench.after(0.1)
    assert transport.is_aborted


def test_an_idle_one_is_closed_in_the_end(bench: Bench) -> None:
    connection, transport = bench.connect()
    bench.ask(connection)
    bench.answer(connection)
    bench.after(IDLE_S)
    assert transport.is_aborted


def test_one_that_does_not_read_its_answer_is_closed(bench: Bench) -> None:
    connection, transport = bench.connect()
    bench.ask(connection)
    transport.unsent = 100_000
    bench.answer(connection)
    bench.after(WRITE_S)
    assert transport.is_aborted


def test_a_request_that_takes_long_is_not_silence(bench: Bench) -> None:
    connection, transport = bench.connect()
    bench.ask(connection)
    bench.after(10 * IDLE_S)
    assert not transport.is_aborted
