"""Servers at many addresses that come and go, and requests at a fixed rate; all in one thread of the test.

A server says when each request came and what it was at when it was closed, so a test can tell whether a proxy sent
something to one that was about to go.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from tests.support.open_loop import OpenLoop

T = TypeVar("T")
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SLOW_EACH: Final = 10


class Farm:
    """service_s: what a request takes; each tenth takes ten times as long. arrivals: when requests came, by host, as
    monotonic seconds; at_work: how many are in progress there; cut: hosts that were closed meanwhile."""

    def __init__(self, service_s: float = 0.02) -> None:
        self._service_s = service_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="farm")
        self._servers: dict[str, asyncio.Server] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {}
        self.arrivals: dict[str, list[float]] = {}
        self.at_work: Counter[str] = Counter()
        self.cut: list[str] = []

    def __enter__(self) -> Farm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self._servers):
            self.close(host)
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def open(self, host: str, port: int = 0) -> int:
        """A server listens there. Returns its port."""
        return self._do(self._open(host, port))

    def close(self, host: str) -> None:
        """It is gone, and so are its connections."""
        self._do(self._close(host))

    @contextmanager
    def load(self, port: int, rate: float) -> Iterator[OpenLoop]:
        """Requests to this port while the block runs; every one of them is answered with 200."""
        made = OpenLoop(port, rate)
        done = asyncio.run_coroutine_threadsafe(made.run(), self._loop)
        try:
            yield made
        finally:
            made.is_asking = False
            done.result(60)
        report = made.report
        assert (set(report.statuses), report.refused, report.broken) == ({200}, 0, []), report

    def told(self, host: str) -> str:
        """What its last requests were, for people."""
        last = [f"{time.monotonic() - at:.3f}" for at in self.arrivals[host][-3:]]
        return f"{host}: {self.at_work[host]} at work, the last came {', '.join(last)} s ago"

    # --- on the loop ------------------------------------------------------------------------------------------------

    async def _open(self, host: str, port: int) -> int:
        self.arrivals.setdefault(host, [])
        self._writers[host] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(host, reader, writer)

        server = self._servers[host] = await asyncio.start_server(serve, host, port, backlog=512)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def _close(self, host: str) -> None:
        self._servers.pop(host).close()
        if self.at_work[host]:
            self.cut.append(host)
        for writer in self._writers.pop(host):
            writer.close()

    async def _serve(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = self._writers[host]
        writers.add(writer)
        arrivals = self.arrivals[host]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/open-loop" in head:  # and no health check
                    arrivals.append(time.monotonic())
                self.at_work[host] += 1
                try:
                    await asyncio.sleep(self._service_s * (10 if len(arrivals) % SLOW_EACH == 0 else 1))
                    writer.write(_ANSWER)
                finally:
                    self.at_work[host] -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
