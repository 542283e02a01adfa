"""Clients and servers in one event loop: thousands of connections that only have to be there.

A server answers a POST to /predict at once. One to /held is answered when `Origin.release` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from benchmarks.balancing import wire
from benchmarks.load.errors import BenchmarkError

IDLE: Final = "/predict"
HELD: Final = "/held"
_BATCH: Final = 100  # connections that are opened at once: fewer than anybody's backlog
_LIMIT_S: Final = 30.0
_POLL_S: Final = 0.01
_ANSWER: Final = wire.answer(200)


def request(path: str) -> bytes:
    """A small POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nContent-Length: {len(wire.BODY)}"
    return head.encode() + b"\r\n\r\n" + wire.BODY


class Origin:
    """The servers of all ports. `held`: requests that wait for their answer."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._held: list[asyncio.WriteTransport] = []

    @property
    def held(self) -> int:
        return len(self._held)

    async def listen(self, count: int) -> tuple[int, ...]:
        """Servers on ports that the kernel chooses."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            made = await loop.create_server(lambda: _Served(self), "127.0.0.1", 0, backlog=1024)
            self._servers.append(made)
        return tuple(server.sockets[0].getsockname()[1] for server in self._servers)

    def asked(self, head: bytes, transport: asyncio.WriteTransport) -> None:
        """One whole request is there."""
        if head.startswith(f"POST {HELD} ".encode()):
            self._held.append(transport)
        else:
            transport.write(_ANSWER)

    def release(self) -> None:
        """Answer all that wait."""
        held, self._held = self._held, []
        for transport in held:
            transport.write(_ANSWER)

    def close(self) -> None:
        for server in self._servers:
            server.close()


class _Served(asyncio.Protocol):
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (whole := wire.cut(self._data)) is not None:
            head, length = whole
            del self._data[:length]
            self._origin.asked(head, self._transport)


class Crowd:
    """Client connections to one port, each of which has sent one request.

    answered: requests with a 200. lost: connections that ended, or had another answer; `complaint` is the first reason.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._members: list[asyncio.WriteTransport] = []
        self.answered = 0
        self.lost = 0
        self.complaint = ""

    async def grow(self, count: int, path: str) -> None:
        """`count` more connections. Returns when each is made and has sent its request."""
        loop = asyncio.get_running_loop()
        data = request(path)
        for start in range(0, count, _BATCH):
            made = await asyncio.gather(
                *(
                    loop.create_connection(lambda: _Member(self), "127.0.0.1", self._port)
                    for _ in range(min(_BATCH, count - start))
                )
            )
            for transport, _ in made:
                self._members.append(transport)
                transport.write(data)

    async def until_answered(self, count: int) -> None:
        """Wait until so many requests have been answered. Raises BenchmarkError."""
        await self._until(lambda: self.answered >= count, lambda: f"{self.answered} of {count} requests were answered")

    async def until_held(self, origin: Origin, count: int) -> None:
        """Wait until so many requests are at the servers. Raises BenchmarkError."""
        await self._until(lambda: origin.held >= count, lambda: f"{origin.held} of {count} requests came through")

    async def _until(self, is_so: Callable[[], bool], what: Callable[[], str]) -> None:
        limit = asyncio.get_running_loop().time() + _LIMIT_S
        while not is_so():
            self.check_whole()
            if asyncio.get_running_loop().time() > limit:
                raise BenchmarkError(f"{what()} within {_LIMIT_S:.0f} s")
            await asyncio.sleep(_POLL_S)

    def check_whole(self) -> None:
        """Raise BenchmarkError unless every connection is still there."""
        if self.lost:
            raise BenchmarkError(f"{self.lost} of {len(self._members)} connections were lost: {self.complaint}")

    def lose(self, reason: str) -> None:
        self.lost += 1
        self.complaint = self.complaint or reason

    def close(self) -> None:
        for transport in self._members:
            transport.abort()


class _Member(asyncio.Protocol):
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        self._data += data
        whole = wire.cut(self._data)
        if whole is None:
            return
        head, length = whole
        del self._data[:length]
        if wire.parse_status(head) == 200 and not wire.is_last(head):
            self._crowd.answered += 1
        else:
            self._crowd.lose(head.partition(b"\r\n")[0].decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lose(f"it was closed ({exc})" if exc else "it was closed")
