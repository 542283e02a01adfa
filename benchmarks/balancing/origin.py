"""Model servers: one process, one port for each server. `python -m benchmarks.balancing.origin '<json>'`.

A server works on as many requests at once as it has slots; others wait in its backlog, in order. Work is sleeping. As
a real one, it does not notice that a client has left, and finishes the work for nobody. It counts how many requests it
has at once, worked on or waiting, leaving out those whose client has left; a policy that respects slots never makes
that more than the slots. Whatever the control port is sent, it answers with what happened, as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.balancing import wire
from benchmarks.balancing.alarm import Alarm

_FAIL_S = 0.001


@dataclass(frozen=True, slots=True)
class Spec:
    """One server. speed: 1.0 takes as long as the request says. fail_status: it answers that in 1 ms; 0 = it works."""

    port: int
    slots: int
    speed: float = 1.0
    fail_status: int = 0


@dataclass(slots=True)
class Visit:
    """A request at a server. Monotonic seconds; finished 0.0: not yet. aborted: its client left before the answer."""

    number: int
    work_s: float
    arrived: float
    finished: float = 0.0
    aborted: bool = False


@dataclass(slots=True)
class Books:
    """What a server saw. most_at_once: with failing servers it says nothing."""

    port: int
    most_at_once: int = 0
    visits: list[Visit] = field(default_factory=list)


class Server:
    def __init__(self, spec: Spec, alarm: Alarm, soon: Callable[[Callable[[], object]], object]) -> None:
        """soon: calls back in the next turn of the loop."""
        self.spec = spec
        self._soon = soon
        self.books = Books(spec.port)
        self._alarm = alarm
        self._here = 0
        self._working = 0
        self._backlog: deque[tuple[Visit, Connection]] = deque()

    def arrived(self, visit: Visit, connection: Connection) -> None:
        self.books.visits.append(visit)
        if self.spec.fail_status:
            self._alarm.at(visit.arrived + _FAIL_S, functools.partial(self._answer, visit, connection))
            return
        self._here += 1
        self._soon(functools.partial(self._soon, self._note))
        self._backlog.append((visit, connection))
        self._start(visit.arrived)

    def _note(self) -> None:
        """Two turns after a request: the loop tells a turn late of a reset that came before it."""
        self.books.most_at_once = max(self.books.most_at_once, self._here)

    def _start(self, now: float) -> None:
        while self._backlog and self._working < self.spec.slots:
            visit, connection = self._backlog.popleft()
            self._working += 1
            done = now + visit.work_s / self.spec.speed
            self._alarm.at(done, functools.partial(self._done, visit, connection))

    def _done(self, visit: Visit, connection: Connection) -> None:
        self._working -= 1
        if not visit.aborted:
            self._here -= 1
        self._answer(visit, connection)
        self._start(time.monotonic())

    def _answer(self, visit: Visit, connection: Connection) -> None:
        visit.finished = time.monotonic()
        if not visit.aborted:
            connection.answer(self.spec.fail_status or 200)

    def aborted(self, visit: Visit) -> None:
        visit.aborted = True
        if not self.spec.fail_status:
            self._here -= 1


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.WriteTransport | None = None
        self._data = bytearray()
        self._visit: Visit | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        self._data += data
        whole = wire.cut(self._data)
        if whole is None:
            return
        head, length = whole
        del self._data[:length]
        number, work_s = wire.parse_target(head)
        self._visit = Visit(number, work_s, time.monotonic())
        self._server.arrived(self._visit, self)

    def answer(self, status: int) -> None:
        self._visit = None
        if self._transport is not None:
            self._transport.write(wire.answer(status))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._visit is not None:
            self._server.aborted(self._visit)
            self._visit = None


class Control(asyncio.Protocol):
    """Answers whatever it is sent with the books of all servers, and closes."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps([dataclasses.asdict(server.books) for server in self._servers]).encode())
        self._transport.close()


def parse_books(text: bytes) -> list[Books]:
    """The opposite of what the control port sends."""
    return [
        Books(entry["port"], entry["most_at_once"], [Visit(**visit) for visit in entry["visits"]])
        for entry in json.loads(text)
    ]


async def serve(specs: Sequence[Spec], control: int) -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop)
    servers = [Server(spec, alarm, loop.call_soon) for spec in specs]
    for server in servers:
        await loop.create_server(functools.partial(Connection, server), "127.0.0.1", server.spec.port, backlog=1024)
    await loop.create_server(functools.partial(Control, servers), "127.0.0.1", control)
    await loop.create_future()  # until SIGTERM


def main() -> None:
    given = json.loads(sys.argv[1])
    uvloop.run(serve([Spec(**spec) for spec in given["servers"]], given["control"]))


if __name__ == "__main__":
    main()
