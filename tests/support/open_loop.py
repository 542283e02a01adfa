"""Requests at a fixed rate, whatever comes of them, over kept connections; and a server that can take it.

Both are coroutines in one thread of the test, because threads would be busier than what they measure.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

REQUEST = b"GET /open-loop HTTP/1.1\r\nHost: a\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Report:
    """What came of the requests. `refused`: no connection; `broken`: a connection, and no whole answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    refused: int = 0
    told_to_close: int = 0
    broken: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    connections: int = 0

    @property
    def is_over(self) -> bool:
        """Every request has come to an end."""
        return self.sent == self.statuses.total() + self.refused + len(self.broken)


class OpenLoop:
    """`rate` requests a second to a port. A client keeps its connection until it is told to close it, or it ends.

    The connection that has been idle for longest is taken, so that each of them asks several times a second.
    connections: how many it has, from the beginning on; 0: as many as it needs. While it `is_paused` it asks nothing.
    """

    def __init__(self, port: int, rate: float, connections: int = 0) -> None:
        self.report = Report()
        self._port = port
        self._rate = rate
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._connections = connections
        self._may_ask = asyncio.Semaphore(connections) if connections else None
        self.is_asking = True
        self.is_paused = False
        self.began = 0.0

    async def run(self) -> None:
        """Ask until `is_asking` is False, then wait for what is left. Those that are late are sent all the same."""
        for _ in range(self._connections):
            self._idle.append(await self._connected())
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while self.is_asking:
                if self.is_paused:
                    await asyncio.sleep(0.01)
                    self.began += 0.01
                    continue
                self.report.sent += 1
                tasks.create_task(self._ask())
                wait_s = self.began + self.report.sent / self._rate - time.monotonic()
                await asyncio.sleep(max(0.0, wait_s))
        for _, writer in self._idle:
            writer.close()

    async def _ask(self) -> None:
        async with self._may_ask or contextlib.nullcontext():
            await self._asked()

    async def _asked(self) -> None:
        try:
            reader, writer = await self._connection()
        except OSError:
            self.report.refused += 1
            return
        began = time.perf_counter()
        try:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.report.broken.append(repr(error))
            writer.close()
            return
        self.report.latencies_s.append(time.perf_counter() - began)
        self.report.statuses[int(head[9:12])] += 1
        if b"connection: close" in head.lower():
            self.report.told_to_close += 1
            writer.close()
        else:
            self._idle.append((reader, writer))

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.popleft()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await self._connected()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.report.connections += 1
        return await asyncio.open_connection("127.0.0.1", self._port)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service_s: float) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(service_s)
            writer.write(_ANSWER)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


class Servers:
    """Servers that take `service_s` for each request, and the thread in which everything here runs."""

    def __init__(self, count: int, service_s: float) -> None:
        self._count = count
        self._service_s = service_s
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="open-loop")
        self.addresses: list[str] = []

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _serve(reader, writer, self._service_s)

        servers = [await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512) for _ in range(self._count)]
        self.addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        self._is_up.set()
        await self._stop.wait()
        for server in servers:
            server.close()

    def __enter__(self) -> Servers:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @contextmanager
    def load(self, port: int, rate: float, connections: int = 0) -> Iterator[OpenLoop]:
        """An open loop while the block runs; at its end every request has its end. connections: see there."""
        made = OpenLoop(port, rate, connections)
        done = asyncio.run_coroutine_threadsafe(made.run(), self._loop)
        try:
            yield made
        finally:
            made.is_asking = False
            done.result(30)
