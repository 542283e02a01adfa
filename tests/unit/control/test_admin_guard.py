"""Bounds of the admin address: who goes when it is full, and who is too slow."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from lbproxy.control.admin_guard import HEAD_S, IDLE_S, SWEPT, WRITE_S, AdminGuard, GuardedConnection

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
        self.unsent = 0

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Bench:
    def __init__(self, limit: int = 3) -> None:
        self.now = 10.0
        self.guard = AdminGuard(limit, lambda: self.now)

    def connect(self, head: bytes = b"") -> tuple[GuardedConnection, Transport]:
        connection, transport = GuardedConnection(self.guard, Inner, head), Transport()
        self.guard.opened(connection)
        connection.connection_made(cast(asyncio.Transport, transport))
        return connection, transport

    def ask(self, connection: GuardedConnection) -> None:
        connection.data_received(HEAD)
        self.guard.began(connection.inner)

    def answer(self, connection: GuardedConnection) -> None:
        self.guard.ended(connection.inner)

    def after(self, seconds: float) -> None:
        self.now += seconds
        while self.guard.sweep():
            pass


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_aiohttp_sees_everything(bench: Bench) -> None:
    connection, _ = bench.connect(HEAD)
    inner = cast(Inner, connection.inner)
    connection.data_received(b"x")
    connection.pause_writing()
    connection.resume_writing()
    connection.eof_received()
    connection.connection_lost(None)
    assert inner.calls == ["made", f"data {HEAD!r}", "data b'x'", "pause", "resume", "eof", "lost"]
    assert len(bench.guard) == 0


def test_one_that_goes_before_it_has_a_transport_is_closed_when_it_gets_one(bench: Bench) -> None:
    connection, transport = GuardedConnection(bench.guard, Inner, HEAD), Transport()
    bench.guard.opened(connection)
    bench.after(HEAD_S)
    assert len(bench.guard) == 0
    connection.connection_made(cast(asyncio.Transport, transport))
    assert transport.is_aborted and connection.inner is None
    connection.data_received(b"x")
    connection.pause_writing()
    connection.resume_writing()
    connection.eof_received()
    connection.connection_lost(None)
    assert len(bench.guard) == 0


def test_few_are_closed_in_one_turn_of_the_loop() -> None:
    bench = Bench(3 * SWEPT)
    made = [bench.connect()[1] for _ in range(SWEPT + 1)]
    bench.now += HEAD_S
    assert bench.guard.sweep()
    assert sum(transport.is_aborted for transport in made) == SWEPT
    assert not bench.guard.sweep()
    assert all(transport.is_aborted for transport in made)


def test_one_that_was_answered_is_not_the_longest_silent_any_more(bench: Bench) -> None:
    made = []
    for _ in range(3):
        made.append(bench.connect())
        bench.now += 1.0
    bench.ask(made[0][0])
    bench.answer(made[0][0])
    bench.connect()
    assert [transport.is_aborted for _, transport in made] == [False, True, False]
    bench.ask(made[2][0])
    bench.answer(made[2][0])
    bench.now += 1.0
    made[0][0].data_received(b"GET")  # its next head begins
    bench.connect()
    bench.connect()
    assert [transport.is_aborted for _, transport in made] == [False, True, True]


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
