"""The door of the admin address, with sockets of this machine, and with a clock and a price of work as arguments."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lbproxy.control.admin_door import (
    DISCARDED_BYTES,
    FIRST_BYTES,
    LINGER_S,
    LONG_BURST_S,
    LONG_SHARE,
    LONG_STEP_S,
    SHORT_BURST_S,
    SHORT_SHARE,
    SHORT_STEP_S,
    TURN_S,
    UNREAD_S,
    WAITING_READERS,
    Door,
)
from lbproxy.control.admin_gate import HEAD_BYTES, READER, UNREAD, Verdict
from lbproxy.control.admin_guard import HEAD_S, AdminGuard
from lbproxy.tasks import Tasks

HEAD = b"GET /%s HTTP/1.1\r\n\r\n"
BODY = b"POST /no HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
PIECE_S = 0.0001
READER_S = 0.001


class Handle:
    def __init__(self, at: float, work: Callable[..., None], *args: object) -> None:
        self.at = at
        self.work = work
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Time passes only as the test says."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.reader: Callable[[], None] | None = None
        self.handles: list[Handle] = []

    def add_reader(self, fd: int, work: Callable[[], None]) -> None:
        assert self.reader is None
        self.reader = work

    def remove_reader(self, fd: int) -> None:
        self.reader = None

    def call_later(self, delay: float, work: Callable[..., None], *args: object) -> Handle:
        handle = Handle(self._bench.now + delay, work, *args)
        self.handles.append(handle)
        return handle

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._bench.passed.append(cast(Any, work).cr_frame.f_locals["sock"])
        work.close()


class Bench:
    """gate: what stands in the path decides."""

    def __init__(self, limit: int = 8, listening: socket.socket | None = None) -> None:
        self.now = 10.0
        self.spent_s = 0.0
        self.passed: list[socket.socket] = []
        self.stack = contextlib.ExitStack()
        self.guard = AdminGuard(limit, lambda: self.now)
        self.loop = Loop(self)
        self.door = Door(
            self.guard,
            self.gate,
            asyncio.Protocol,
            tasks=cast(Tasks, self.loop),
            clock=lambda: self.now,
            reader_s=lambda: READER_S,
            cpu=self.cpu,
        )
        self.listening = listening or socket.create_server(("127.0.0.1", 0), backlog=64)
        self.door.open(cast(asyncio.AbstractEventLoop, self.loop), [self.listening])
        self.door.serve()
        self.door.serve()  # once is enough
        self.n_judged = 0

    def cpu(self) -> float:
        """Each piece of work costs PIECE_S."""
        self.spent_s += PIECE_S
        return self.spent_s

    def gate(self, head: bytes, peer: str) -> Verdict:
        self.n_judged += 1
        if b"/no" in head:
            return Verdict(b"no, " + peer.encode(), has_body=b"Content-Length" in head)
        return Verdict(None, READER if b"/reader" in head else UNREAD if b"/junk" in head else "allowed")

    def connect(self, data: bytes = b"") -> socket.socket:
        client = self.stack.enter_context(socket.socket(self.listening.family))
        client.settimeout(5.0)
        client.connect(self.listening.getsockname())
        client.sendall(data)
        return client

    def turns(self, most: int = 1000) -> int:
        """As long as something is to be done now; how many turns of the loop that took."""
        for number in range(most):
            if self.loop.reader is None or not self.door._epoll.poll(0, 1):
                return number
            self.loop.reader()
        return most

    def wait(self, seconds: float) -> None:
        """Time passes, and timers run."""
        ends = self.now + seconds
        while due := sorted((h for h in self.loop.handles if h.at <= ends and not h.is_cancelled), key=lambda h: h.at):
            self.loop.handles.remove(due[0])
            self.now = max(self.now, due[0].at)
            due[0].work(*due[0].args)
        self.now = ends


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    with made.stack:
        yield made
        made.door.close()
        for sock in made.passed:
            sock.close()


def received(client: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            found += piece
    return found


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_one_that_is_refused_is_told_and_gone(bench: Bench) -> None:
    client = bench.connect(HEAD % b"no")
    bench.turns()
    assert received(client) == b"no, 127.0.0.1" and bench.passed == []
    assert len(bench.guard) == 0


def test_one_that_announced_a_body_may_send_it_first(bench: Bench) -> None:
    """Else its own octets would bring a reset, which could take the answer from it."""
    client = bench.connect(BODY)
    bench.turns()
    client.sendall(b"the body")
    bench.turns()
    assert received(client) == b"no, 127.0.0.1"
    assert len(bench.guard) == 1
    bench.wait(LINGER_S - 0.1)
    bench.guard.sweep()
    assert len(bench.guard) == 1
    bench.wait(0.1)
    bench.guard.sweep()
    assert len(bench.guard) == 0


def test_it_goes_when_its_client_does(bench: Bench) -> None:
    client = bench.connect(BODY)
    bench.turns()
    client.close()
    bench.turns()
    assert len(bench.guard) == 0


def test_of_a_body_that_was_refused_only_so_much_is_read(bench: Bench) -> None:
    client = bench.connect(BODY)
    bench.turns()
    client.setblocking(False)
    sent, idle = 0, 0
    while idle < 20:
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(65536))
            idle = 0
        idle += 1
        bench.wait(1.0)
        bench.turns()
    guest = next(iter(bench.door._guests.values()))
    assert -65536 <= guest.may_discard < 0 and sent > DISCARDED_BYTES
    bench.guard.sweep()
    assert len(bench.guard) == 0


def test_a_head_may_come_in_pieces(bench: Bench) -> None:
    client = bench.connect()
    bench.turns()
    for octet in HEAD % b"yes":
        assert bench.passed == []
        client.sendall(bytes([octet]))
        bench.turns()
    assert len(bench.passed) == 1 and len(bench.guard) == 1


def test_a_head_that_is_too_long_is_judged_as_it_is(bench: Bench) -> None:
    client = bench.connect(b"x" * HEAD_BYTES)
    bench.turns()
    assert bench.n_judged == 0
    client.sendall(b"x")
    bench.turns()
    assert bench.n_judged == 1


def test_who_leaves_before_its_head_is_whole_is_forgotten(bench: Bench) -> None:
    client = bench.connect(b"GET")
    bench.turns()
    assert len(bench.guard) == 1
    client.close()
    bench.turns()
    assert len(bench.guard) == 0


def test_a_silent_one_is_closed(bench: Bench) -> None:
    client = bench.connect(b"GET")
    bench.turns()
    bench.wait(HEAD_S)
    bench.guard.sweep()
    assert is_closed(client)


def test_each_turn_of_the_loop_has_one_of_them(bench: Bench) -> None:
    for _ in range(5):
        bench.connect(HEAD % b"no")
    assert bench.turns() == 5


def test_the_longest_silent_one_makes_room(bench: Bench) -> None:
    clients = [bench.connect() for _ in range(10)]
    bench.turns()
    assert [is_closed(client) for client in clients] == [True] * 2 + [False] * 8


def test_one_that_is_refused_at_once_takes_nobodys_place(bench: Bench) -> None:
    silent = [bench.connect() for _ in range(8)]
    bench.turns()
    flood = [bench.connect(HEAD % b"no") for _ in range(20)]
    bench.turns()
    assert {received(client) for client in flood} == {b"no, 127.0.0.1"}
    assert not any(is_closed(client) for client in silent)


@pytest.mark.parametrize("size", [FIRST_BYTES - 1, FIRST_BYTES, FIRST_BYTES + 1])
def test_one_with_a_long_head_is_told_and_gone(bench: Bench, size: int) -> None:
    head = HEAD % b"no"
    client = bench.connect(head[:-2] + b"X: " + b"x" * (size - len(head) - 5) + b"\r\n\r\n")
    bench.turns()
    assert received(client) == b"no, 127.0.0.1"
    assert len(bench.guard) == 0


def test_one_that_has_left_before_it_was_accepted_is_forgotten(bench: Bench) -> None:
    bench.connect().close()
    client = bench.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    bench.turns()
    assert len(bench.guard) == 0 and bench.door._guests == {}


def test_a_defect_holds_up_nobody_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.connect(HEAD % b"no")
    with monkeypatch.context() as patch:
        patch.setattr(bench.door, "_gate", lambda head, peer: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.turns()
    client = bench.connect(HEAD % b"no")
    bench.turns()
    assert received(client) == b"no, 127.0.0.1"


def test_who_is_refused_takes_a_share_of_the_time_and_others_wait(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """In a hundred seconds in which somebody comes whenever the door is open."""
    n_turns = 0
    for _ in range(25_000):
        if bench.loop.reader is not None:
            with bench.connect(HEAD % b"no"):
                n_turns += bench.turns()
        bench.wait(0.004)
    took_s = n_turns * (PIECE_S + TURN_S)
    assert SHORT_SHARE * 100.0 * 0.9 <= took_s <= SHORT_SHARE * 100.0 + SHORT_BURST_S + PIECE_S + TURN_S
    assert "callers that are refused have taken their share" in caplog.text
    most_wait_s = (SHORT_STEP_S + PIECE_S + TURN_S) / SHORT_SHARE
    assert all(handle.at <= bench.now + most_wait_s for handle in bench.loop.handles)


def test_who_is_allowed_pays_nothing(bench: Bench) -> None:
    for _ in range(500):
        client = bench.connect()
        bench.turns()
        client.sendall(HEAD % b"yes")
        bench.turns()
        client.close()
        bench.passed.pop().close()
        for connection in list(bench.guard._connections):
            bench.guard.closed(connection)
    assert bench.door.short.left_s == pytest.approx(SHORT_BURST_S)


def test_an_allowed_one_waits_for_a_moment_only_behind_a_flood(bench: Bench) -> None:
    flood = [bench.connect(HEAD % b"no") for _ in range(60)]
    bench.door.short.spend(SHORT_BURST_S)
    client = bench.connect(HEAD % b"yes")
    began = bench.now
    while not bench.passed:
        bench.turns()
        bench.wait(0.005)
    assert bench.now - began <= 61 * (PIECE_S + TURN_S) / SHORT_SHARE + SHORT_STEP_S / SHORT_SHARE + 0.01
    assert not is_closed(client)
    assert {received(other) for other in flood} == {b"no, 127.0.0.1"}


def test_what_the_gate_cannot_read_is_let_in_at_a_pace(bench: Bench) -> None:
    for _ in range(8):
        bench.connect(HEAD % b"junk")
        bench.turns()
    bench.wait(0.0)
    at_once = len(bench.passed)
    assert at_once == -(-LONG_BURST_S // UNREAD_S)
    bench.wait(2 * UNREAD_S / LONG_SHARE)
    assert at_once < len(bench.passed) <= at_once + 2
    other = bench.connect(HEAD % b"yes")  # is not behind those
    bench.turns()
    assert other.getsockname() == bench.passed[-1].getpeername()
    bench.wait(10.0)
    assert len(bench.passed) == 9


def test_readers_go_before_junk_and_more_than_a_few_are_told_to_wait(bench: Bench) -> None:
    bench.guard.limit = 64
    bench.door.long.spend(2 * LONG_BURST_S)
    for _ in range(3):
        bench.connect(HEAD % b"junk")
        bench.turns()
    readers = [bench.connect(HEAD % b"reader") for _ in range(WAITING_READERS + 2)]
    bench.turns()
    told = [received(client) for client in readers[WAITING_READERS:]]
    assert all(b" 503 " in answer and b"Retry-After" in answer for answer in told)
    bench.wait(WAITING_READERS * READER_S / LONG_SHARE)
    names = [sock.getpeername() for sock in bench.passed]
    assert [client.getsockname() for client in readers[: len(names)]] == names and len(names) > 2


def test_who_left_while_it_waited_costs_nothing(bench: Bench) -> None:
    bench.door.long.spend(LONG_BURST_S)
    for name in (b"reader", b"junk"):
        for client in [bench.connect(HEAD % name) for _ in range(3)]:
            bench.turns()
            client.close()
    assert len(bench.guard) == 6
    last = bench.connect(HEAD % b"junk")
    bench.turns()
    bench.wait(2 * LONG_STEP_S / LONG_SHARE)
    assert [sock.getpeername() for sock in bench.passed] == [last.getsockname()]
    assert bench.door.long.left_s == pytest.approx(LONG_STEP_S - UNREAD_S, abs=2 * LONG_STEP_S)


def test_no_more_wait_than_there_are_connections(bench: Bench) -> None:
    bench.door.long.spend(1000.0)
    for _ in range(100):
        bench.connect(HEAD % b"junk")
        bench.turns()
    assert len(bench.door._unread) == len(bench.door._guests) == len(bench.guard) == 8


def test_who_waits_is_judged_again_as_others_came_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.door.long.spend(LONG_BURST_S)
    client, gone = bench.connect(HEAD % b"reader"), bench.connect(HEAD % b"reader")
    bench.turns()
    monkeypatch.setattr(bench.door, "_gate", lambda head, peer: Verdict(b"too late"))
    bench.door.end(list(bench.door._guests.values())[-1])
    bench.wait(10.0)
    assert received(client) == b"too late" and is_closed(gone) and bench.passed == []


def test_over_a_unix_socket_nobody_waits(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.fspath(tmp_path / "s"))
    listening.listen(64)
    bench = Bench(limit=32, listening=listening)
    with bench.stack:
        bench.door.long.spend(LONG_BURST_S)
        for name in (b"reader", b"junk") * 10:
            bench.connect(HEAD % name)
        client = bench.connect(HEAD % b"no")
        bench.turns()
        assert len(bench.passed) == 20 and received(client) == b"no, unix"
        assert bench.door.short.left_s >= SHORT_BURST_S - 1e-9
        bench.door.close()
        for sock in bench.passed:
            sock.close()


def test_a_listening_socket_that_another_process_has_too_is_left(bench: Bench) -> None:
    """It would stay in the epoll, and wake the loop for whoever comes to the other process."""
    with bench.listening.dup() as other:
        other.settimeout(5.0)
        bench.connect(HEAD % b"no")
        bench.door.close()
        bench.door.close()
        assert bench.loop.reader is None and bench.door.sockets == ()
        accepted, _ = other.accept()
        accepted.close()


def test_what_the_system_is_out_of_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        family = socket.AF_INET

        def _accept(self) -> None:
            raise OSError(24, "Too many open files")

    fd = bench.listening.fileno()
    client = bench.connect(HEAD % b"no")
    bench.door._listening[fd] = cast(socket.socket, Failing())
    assert bench.turns() == 1 and bench.loop.reader is None
    assert "cannot accept" in caplog.text
    bench.door._listening[fd] = bench.listening
    bench.wait(1.0)
    bench.turns()
    assert received(client) == b"no, 127.0.0.1"
