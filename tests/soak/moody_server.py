"""A server that misbehaves by seed: `python -m tests.soak.moody_server SEED HTTP_FD TCP_FD HTTP2_FD`.

The listening sockets, for HTTP, plain TCP and HTTP/2 (moody_http2.py), are inherited, so that the ports outlive a kill.
Over HTTP /health is always well and /retry-me answers 500 after a while; everything else meets one of `MOODS`. A good
answer's body is the request's target, so that a client sees whether it got somebody else's.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable, Callable

from tests.soak import moody_http2
from tests.soak.breaking import RETRY_ME_S, reset

Mood = Callable[["Visit"], Awaitable[bool]]

_STALL_S = 30.0


class Visit:
    """One request and the connection that it came on. A mood returns whether the connection goes on."""

    def __init__(
        self, rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, is_head: bool
    ) -> None:
        self.rng = rng
        self.reader = reader
        self.writer = writer
        self.body = b"" if is_head else target.encode()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def head(self, status: int, *fields: str, length: int | None = None) -> bytes:
        size = len(self.body) if length is None else length
        return ("\r\n".join([f"HTTP/1.1 {status} Said", f"Content-Length: {size}", *fields]) + "\r\n\r\n").encode()


async def good(v: Visit) -> bool:
    await v.send(v.head(200) + v.body)
    return True


async def slow(v: Visit) -> bool:
    await asyncio.sleep(v.rng.uniform(0.02, 0.3))
    return await good(v)


async def in_chunks(v: Visit) -> bool:
    """A quarter of a megabyte before the body that the client compares, in chunks with pauses."""
    await v.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(16):
        await v.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        await asyncio.sleep(v.rng.uniform(0.0, 0.01))
    await v.send(f"{len(v.body):x}\r\n".encode() + v.body + b"\r\n0\r\n\r\n")
    return True


async def drips(v: Visit) -> bool:
    for byte in v.head(200) + v.body:
        await v.send(bytes([byte]))
        await asyncio.sleep(0.001)
    return True


async def says_more_first(v: Visit) -> bool:
    await v.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    return await good(v)


async def says_goodbye(v: Visit) -> bool:
    await v.send(v.head(200, "Connection: close") + v.body)
    return False


async def closes_afterwards(v: Visit) -> bool:
    """Without saying so: whoever reuses this connection meets its end."""
    await good(v)
    return False


async def fails(v: Visit) -> bool:
    await v.send(v.head(500) + v.body)
    return True


async def is_unavailable(v: Visit) -> bool:
    await v.send(v.head(503) + v.body)
    return True


async def pushes_back(v: Visit) -> bool:
    await v.send(v.head(503, "Retry-After: 1") + v.body)
    return True


async def closes(v: Visit) -> bool:
    return False


async def resets(v: Visit) -> bool:
    reset(v.writer)
    return False


async def dies_in_the_head(v: Visit) -> bool:
    await v.send(v.head(200)[:20])
    reset(v.writer)
    return False


async def dies_in_the_body(v: Visit) -> bool:
    await v.send(v.head(200, length=100_000) + b"x" * 1000)
    await asyncio.sleep(0.01)
    reset(v.writer)
    return False


async def talks_nonsense(v: Visit) -> bool:
    await v.send(b"\x16\x03\x01 what?\r\n\r\n")
    return False


async def stalls(v: Visit) -> bool:
    """Until the other side has had enough."""
    async with asyncio.timeout(_STALL_S):
        await v.reader.read(1)
    return False


MOODS: dict[Mood, int] = {
    good: 60,
    slow: 20,
    in_chunks: 4,
    drips: 2,
    says_more_first: 2,
    says_goodbye: 3,
    closes_afterwards: 3,
    fails: 2,
    is_unavailable: 3,
    pushes_back: 1,
    closes: 2,
    resets: 2,
    dies_in_the_head: 1,
    dies_in_the_body: 1,
    talks_nonsense: 1,
    stalls: 1,
}


class MoodyServer:
    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, TimeoutError, ValueError):
            pass  # the proxy left, or was cut off by its client
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        method, target, _ = head.split(" ", 2)
        await _skip_body(reader, head)
        visit = Visit(self._rng, reader, writer, target, method == "head")
        if target == "/health":
            return await good(visit)
        if target.startswith("/retry-me"):
            await asyncio.sleep(RETRY_ME_S)
            return await fails(visit)
        (mood,) = self._rng.choices(list(MOODS), list(MOODS.values()))
        return await mood(visit)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo, until the client ends or the mood changes."""
        try:
            patience = self._rng.choice((0, 1, 5, 1000))
            while data := await reader.read(65_536):
                if patience == 0:
                    reset(writer)
                    return
                patience -= 1
                await asyncio.sleep(self._rng.choice((0.0, 0.0, 0.05)))
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the proxy reset it
        finally:
            writer.close()


async def _skip_body(reader: asyncio.StreamReader, head: str) -> None:
    if "transfer-encoding:" in head:
        size = 1
        while size:
            size = int(await reader.readuntil(b"\r\n"), 16)
            await reader.readexactly(size + 2)
    elif "content-length:" in head:
        await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))


async def serve(seed: str, http_fd: int, tcp_fd: int, http2_fd: int) -> None:
    server = MoodyServer(seed)
    rng = random.Random(f"{seed} http2")

    async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await moody_http2.visit(rng, reader, writer)

    await asyncio.start_server(server.http, sock=socket.socket(fileno=http_fd))
    await asyncio.start_server(server.tcp, sock=socket.socket(fileno=tcp_fd))
    await asyncio.start_server(http2, sock=socket.socket(fileno=http2_fd))
    await asyncio.get_running_loop().create_future()  # until it is killed


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], *map(int, sys.argv[2:5])))
