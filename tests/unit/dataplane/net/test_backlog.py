"""One asks for all who wait for a unix server, less and less often, and they are served in order."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, cast

import pytest

from lbproxy.dataplane.net.backlog import MOST_S, Backlog

FULL = errno.EAGAIN


class Server:
    """connect(2) fails with `error`, if there is one, unless there is room."""

    def __init__(self) -> None:
        self.room = 0
        self.error = FULL
        self.n_attempts = 0
        self.sockets: list[FakeSocket] = []

    def make_socket(self, family: int, kind: int) -> socket.socket:
        assert (family, kind) == (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sockets.append(FakeSocket(self))
        return cast(socket.socket, self.sockets[-1])

    @property
    def n_open(self) -> int:
        return sum(not sock.is_closed for sock in self.sockets)


class FakeSocket:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_closed = False

    def connect_ex(self, path: str) -> int:
        assert path == "/run/a.sock"
        self.server.n_attempts += 1
        if not self.server.room:
            return self.server.error
        self.server.room -= 1
        return 0

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """A backlog whose timers run when the test says so."""

    def __init__(self) -> None:
        self.server = Server()
        self.n_emptied = 0
        self.delays: list[float] = []
        self._due: list[Any] = []
        self._real = asyncio.get_running_loop()
        self.backlog = Backlog(cast(Any, self), "/run/a.sock", self.server.make_socket, self._emptied)
        self.served: list[int] = []
        self.failed: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def create_future(self) -> asyncio.Future[Any]:
        return self._real.create_future()

    def call_later(self, delay: float, callback: Any) -> None:
        self.delays.append(delay)
        self._due.append(callback)
        assert len(self._due) == 1, "one timer for all"

    def _emptied(self) -> None:
        self.n_emptied += 1

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def join(self, *numbers: int) -> None:
        async def wait(number: int) -> None:
            try:
                await self.backlog.connect()
            except OSError:
                self.failed.append(number)
            else:
                self.served.append(number)

        self.tasks += [self._real.create_task(wait(number)) for number in numbers]
        await self.settle()

    async def tick(self) -> None:
        due, self._due = self._due, []
        for callback in due:
            callback()
        await self.settle()


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_five_hundred_who_wait_ask_as_often_as_one(bench: Bench) -> None:
    await bench.join(*range(500))
    for _ in range(40):
        await bench.tick()
    assert bench.server.n_attempts == 40 and bench.server.n_open == 0
    assert bench.delays[-1] == MOST_S and sum(bench.delays) > 35 * MOST_S
    for task in bench.tasks:
        task.cancel()
    await bench.settle()


async def test_they_are_served_in_the_order_in_which_they_came(bench: Bench) -> None:
    await bench.join(*range(10))
    await bench.tick()
    bench.server.room = 4
    await bench.tick()
    assert bench.served == [0, 1, 2, 3] and bench.n_emptied == 0
    await bench.join(10)
    bench.server.room = 100
    await bench.tick()
    assert bench.served == list(range(11)) and bench.n_emptied == 1 and bench.server.n_open == 11
    assert len(bench.backlog) == 0


async def test_after_room_it_asks_often_again(bench: Bench) -> None:
    await bench.join(1, 2, 3)
    for _ in range(10):
        await bench.tick()
    bench.server.room = 1
    await bench.tick()
    assert bench.delays[-1] < MOST_S / 5
    bench.server.room = 2
    await bench.tick()


async def test_a_server_that_is_gone_tells_each_of_them(bench: Bench) -> None:
    await bench.join(1, 2, 3)
    bench.server.error = errno.ECONNREFUSED
    await bench.tick()
    assert bench.failed == [1, 2, 3] and bench.server.n_open == 0 and bench.n_emptied == 1


async def test_whoever_gives_up_is_forgotten_and_holds_up_nobody(bench: Bench) -> None:
    await bench.join(*range(100))
    for number in range(99):
        bench.tasks[number].cancel()
    await bench.settle()
    assert len(bench.backlog) == 1 and len(bench.backlog._waiters) <= 2
    bench.server.room = 5
    await bench.tick()
    assert bench.served == [99] and bench.server.n_open == 1 and bench.n_emptied == 1


async def test_a_connection_that_comes_as_its_waiter_gives_up_is_closed(bench: Bench) -> None:
    await bench.join(1)
    bench.server.room = 1
    due, bench._due = bench._due, []
    due[0]()
    bench.tasks[0].cancel()
    await bench.settle()
    assert bench.served == [] and bench.server.n_open == 0


async def test_out_of_descriptors_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EMFILE, "too many")

    bench.backlog._make_socket = fail
    await bench.join(1)
    await bench.tick()
    assert bench.failed == [1]
