"""Clients that are polite, slow, or leave in the middle, by seed, over HTTP and plain TCP."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tests.soak.breaking import reset

Manner = Callable[["Caller"], Awaitable[None]]

_ANSWER_S: Final = 30.0
_BODIES: Final = (0, 10, 1_000, 100_000)


class Stranger(Exception):
    """An answer that belongs to somebody else, or is none. Never expected."""


class Caller:
    """One client. counts: statuses (as text), and manners by name."""

    def __init__(self, number: int, seed: int, port: int, counts: Counter[str]) -> None:
        self.rng = random.Random(f"{seed} client {number}")
        self.port = port
        self._number = number
        self._turn = 0
        self._counts = counts
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def call(self, manners: dict[Manner, int], until: asyncio.Event) -> None:
        """Behave in one manner after the other until told to stop."""
        while not until.is_set():
            (manner,) = self.rng.choices(list(manners), list(manners.values()))
            self._counts[manner.__name__] += 1
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await manner(self)
            except (OSError, EOFError):
                self._counts["connection ended"] += 1
                self.close()
            except TimeoutError:
                raise Stranger(f"{manner.__name__}: nothing came for {_ANSWER_S:g} s") from None
            await asyncio.sleep(self.rng.uniform(0.0, 0.05))
        self.close()

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self.reader, self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    def reset(self) -> None:
        if self.writer is not None:
            reset(self.writer)
        self.reader = self.writer = None

    def leave(self) -> None:
        """One way or the other."""
        if self.rng.random() < 0.5:
            self.reset()
        else:
            self.close()

    def target(self) -> str:
        self._turn += 1
        return f"/c{self._number}-{self._turn}"

    def request(self, method: str, target: str) -> bytes:
        """The whole request; every third POST is chunked."""
        head = f"{method} {target} HTTP/1.1\r\nHost: soak\r\n"
        if method != "POST":
            return f"{head}\r\n".encode()
        body = b"b" * self.rng.choice(_BODIES)
        if body and self.rng.random() < 0.3:
            chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def method(self) -> str:
        return self.rng.choice(("GET", "POST", "POST"))

    async def read_answer(self, target: str) -> None:
        """Raises Stranger unless it is the answer to this target, or an error."""
        assert self.reader is not None
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        if status < 200:
            await self.read_answer(target)
            return
        if "transfer-encoding: chunked" in head:
            body = await self._read_chunks(self.reader)
        else:
            body = await self.reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        self._counts[str(status)] += 1
        if status == 200 and body.strip() != target.encode():
            raise Stranger(f"{target} at port {self.port} was answered with {body.strip()[:100]!r}, after {head!r}")
        if "connection: close" in head:
            self.close()

    async def _read_chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body


async def asks(c: Caller) -> None:
    target = c.target()
    _, writer = await c.streams()
    writer.write(c.request(c.method(), target))
    await c.read_answer(target)


async def asks_several(c: Caller) -> None:
    """Pipelined."""
    targets = [c.target() for _ in range(3)]
    _, writer = await c.streams()
    writer.write(b"".join(c.request("GET", target) for target in targets))
    for target in targets:
        if c.writer is None:
            return  # the answer before said that the connection ends
        await c.read_answer(target)


async def sends_slowly(c: Caller) -> None:
    target = c.target()
    data = c.request("POST", target)
    _, writer = await c.streams()
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        writer.write(part)
        await asyncio.sleep(c.rng.uniform(0.0, 0.2))
    await c.read_answer(target)


async def leaves_while_sending(c: Caller) -> None:
    data = c.request("POST", c.target())
    _, writer = await c.streams()
    writer.write(data[: c.rng.randrange(1, len(data))])
    await asyncio.sleep(c.rng.uniform(0.0, 0.05))
    c.leave()


async def leaves_while_waiting(c: Caller) -> None:
    _, writer = await c.streams()
    writer.write(c.request(c.method(), c.target()))
    await asyncio.sleep(c.rng.choice((0.0, 0.01, 0.1, 0.4)))
    c.leave()


async def leaves_while_reading(c: Caller) -> None:
    reader, writer = await c.streams()
    writer.write(c.request(c.method(), c.target()))
    await reader.read(c.rng.choice((1, 100, 5_000)))
    c.leave()


async def connects_only(c: Caller) -> None:
    c.close()
    await c.streams()
    await asyncio.sleep(c.rng.uniform(0.0, 0.05))
    c.leave()


HTTP_MANNERS: dict[Manner, int] = {
    asks: 70,
    asks_several: 6,
    sends_slowly: 6,
    leaves_while_sending: 4,
    leaves_while_waiting: 8,
    leaves_while_reading: 4,
    connects_only: 2,
}


async def talks(c: Caller) -> None:
    """Echo some messages on a connection of its own, end the sending half, and wait for the other end."""
    c.close()
    reader, writer = await c.streams()
    for _ in range(c.rng.choice((1, 3, 10))):
        data = b"t" * c.rng.choice((1, 1_000, 200_000))
        writer.write(data)
        if await reader.readexactly(len(data)) != data:
            raise Stranger("an echo differs from what was sent")
    writer.write_eof()
    if surplus := await reader.read():
        raise Stranger(f"{len(surplus)} bytes more than were sent")
    c.close()


async def leaves_while_talking(c: Caller) -> None:
    c.close()
    _, writer = await c.streams()
    writer.write(b"t" * 50_000)
    await asyncio.sleep(c.rng.choice((0.0, 0.02, 0.2)))
    c.leave()


TCP_MANNERS: dict[Manner, int] = {talks: 6, leaves_while_talking: 3, connects_only: 1}
