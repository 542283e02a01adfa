"""`GET /api/v1/events`: what the daemon does, as server-sent events, to a bounded number of readers.

A reader has no queue. What it is told is made when it can take it, from the present state: the servers that changed
since it was last told, the newest rates, the events that it has not had and that are still in the ring. So one that
reads slowly misses intermediate states and costs what the kernel and one message hold; one that takes nothing for
SLOW_S is dropped. Everything is made once for all readers that are equally far, and nothing while there is none. They
are told in turns of the loop of their own: all of them in one would hold up requests for milliseconds.

Its connections are those of the admin address, of which readers get at most half: probes and scrapes have the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web

from lbproxy.control.admin import ENDLESS, Route
from lbproxy.control.caller import Caller
from lbproxy.control.changes import Changes
from lbproxy.control.event_log import EventLog
from lbproxy.control.problem import problem
from lbproxy.control.rates import Meter
from lbproxy.control.status import Json
from lbproxy.telemetry.log import ThrottledLog

log = logging.getLogger(__name__)

READERS: Final = 32
RECENT: Final = 200
STEP_S: Final = 1.0
SLOW_S: Final = 10.0
KEEP_ALIVE_S: Final = 15.0
RETRY_MS: Final = 2000  # after which an EventSource comes again
PIECE_BYTES: Final = 64 * 1024  # given to the transport at once; aiohttp waits after as much
KEPT_MESSAGES: Final = 8
STUCK_S: Final = 1.0  # who takes nothing for so long is not waited for at the end of the process
KERNEL_BYTES: Final = 128 * 1024  # Linux takes twice as much, for its own books
CALL_S: Final = 0.0008  # of a reader that comes: what aiohttp does, one snapshot, and the first writes
DROPPED: Final = 4  # so many slow readers at most are dropped in one turn of the loop
_SLACK_S: Final = 0.05  # the tick comes a little early or late
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back
}


class Reader:
    """How far one reader is. transport: its connection. Times are monotonic seconds.

    number, shape: see Changes. position: of the last event that it was told. turn: of the rates. blocked_at: since when
    it takes nothing, None while it does.
    """

    __slots__ = ("blocked_at", "commented_at", "number", "position", "shape", "transport", "turn", "wake")

    def __init__(self, transport: asyncio.Transport | None, position: int, now: float) -> None:
        self.transport = transport
        self.position = position
        self.number = self.shape = self.turn = -1
        self.commented_at = now
        self.blocked_at: float | None = None
        self.wake = asyncio.Event()


class EventStream:
    """status: the JSON of /api/v1/status. clock: monotonic seconds; unix_clock: unix seconds. limit: readers.

    soon: has something called in the next turn of the loop; None: at once. cpu: seconds of this thread's
    processor time.
    """

    def __init__(
        self,
        status: Callable[[], Json],
        meter: Meter,
        events: EventLog,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        limit: int = READERS,
        soon: Callable[[Callable[[], None]], object] | None = None,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._status = status
        self._meter = meter
        self._events = events
        self._clock = clock
        self._unix_clock = unix_clock
        self._limit = limit
        self._soon = soon
        self._cpu = cpu
        self._state_s = 0.0  # what the last message with everything has cost
        self._readers: set[Reader] = set()
        self._to_wake: deque[Reader] = deque()
        self._is_over = False
        self._changes = Changes()
        self._state: Json = {}
        self._rates = b""
        self._turn = 0
        self._looked_at = float("-inf")
        self._made: dict[tuple[str, int], bytes] = {}  # messages of this turn, by kind and how far their reader was
        self._log = ThrottledLog(log, clock=clock)

    def routes(self) -> tuple[Route, ...]:
        return (("GET", ENDLESS, self._get),)

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """To be called some times a second: what is new is sent, and who takes nothing is dropped."""
        self._meter.tick(now, self._unix_clock(), is_watched=bool(self._readers))
        if not self._readers:
            return
        if now - self._looked_at >= STEP_S - _SLACK_S:
            self._look(now)
        is_waking = bool(self._to_wake)
        n_dropped = 0
        for reader in list(self._readers):
            if reader.blocked_at is not None and now - reader.blocked_at >= SLOW_S:
                n_dropped += 1
                if n_dropped <= DROPPED:
                    self._drop(reader)
            elif self._soon is None:
                reader.wake.set()
            elif not is_waking:
                self._to_wake.append(reader)
        if self._to_wake and not is_waking:
            self._wake_next()

    def _wake_next(self) -> None:
        """One in each turn of the loop."""
        self._to_wake.popleft().wake.set()
        if self._to_wake and self._soon is not None:
            self._soon(self._wake_next)

    def _look(self, now: float) -> None:
        """One snapshot for all readers."""
        self._looked_at = now
        self._turn += 1
        self._made.clear()
        self._state = self._status()
        self._changes.take(self._state)
        self._rates = _message("rates", json.dumps(self._meter.rates(now, self._unix_clock())))

    def _drop(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self._log.warning("slow", "a reader of events took nothing for %g s: its connection is closed", SLOW_S)
        if reader.transport is not None:
            reader.transport.abort()

    def finish(self) -> None:
        """The process stops: readers are told what there still is, and their streams end. New ones are refused."""
        self._is_over = True
        now = self._clock()
        if self._readers:
            self._look(now)
        for reader in list(self._readers):
            if reader.blocked_at is not None and now - reader.blocked_at >= STUCK_S and reader.transport is not None:
                reader.transport.abort()
            reader.wake.set()

    # --- one reader -------------------------------------------------------------------------------------------------

    def join(self, transport: asyncio.Transport | None, last_event_id: str | None) -> Reader:
        """A reader comes; last_event_id: of the last event that it has had, None if it never had one."""
        now = self._clock()
        if now - self._looked_at >= STEP_S:
            self._look(now)
        reader = Reader(transport, self._events.position(last_event_id), now)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def refusal(self) -> str | None:
        """Why another reader cannot be taken, None if it can."""
        if self._is_over:
            return "lbproxy is stopping."
        if len(self._readers) >= self._limit:
            return (
                f"{self._limit} readers of events are connected, the most that are taken. Close one, or ask for "
                "/api/v1/status now and then."
            )
        return None

    def news(self, reader: Reader) -> Iterator[bytes]:
        """What the reader is to be told now, in messages; it counts as told."""
        now, changes, events = self._clock(), self._changes, self._events
        # What counts as told is noted before each message is given out: taking it may last until there is more to tell.
        if reader.shape != changes.shape:
            message = self._once("state", reader.position, self._state_message)
            reader.shape, reader.number = changes.shape, changes.number
            yield message
        if reader.number != changes.number:
            message = self._once("servers", reader.number, self._servers_message)
            reader.number = changes.number
            yield message
        if reader.turn != self._turn:
            reader.turn = self._turn
            yield self._rates
        if now - reader.commented_at >= KEEP_ALIVE_S:
            reader.commented_at = now
            yield b": still here\n\n"
        for event in events.after(reader.position):
            reader.position = event.number
            yield _message("event", event.text, events.id_of(event.number))

    def _once(self, kind: str, far: int, make: Callable[[int], bytes]) -> bytes:
        message = self._made.get((kind, far))
        if message is None:
            began = self._cpu()
            if len(self._made) >= KEPT_MESSAGES:  # whoever comes says how far he is, so it can be anything
                self._made.clear()
            message = self._made[kind, far] = make(far)
            if kind == "state":
                self._state_s = self._cpu() - began
        return message

    @property
    def reader_s(self) -> float:
        """What another reader is going to cost of the loop's time, as far as is known."""
        return CALL_S + self._state_s

    def _state_message(self, position: int) -> bytes:
        """recent: up to what the reader has had; what it has missed follows as events."""
        recent = ", ".join(event.text for event in self._events.until(position, RECENT))
        history = json.dumps(self._meter.history())
        text = f'{json.dumps(self._state)[:-1]}, "recent": [{recent}], "history": {history}}}'
        return _message("state", text, self._events.id_of(position))

    def _servers_message(self, number: int) -> bytes:
        return _message("servers", json.dumps(self._changes.since(number)))

    # --- the connection ---------------------------------------------------------------------------------------------

    async def _get(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(headers=_HEADERS)
        refusal = self.refusal()
        if refusal is not None:
            return problem(503, refusal, {"Retry-After": "5"})
        _bound(request.transport)
        if request.transport is not None:
            request.transport.pause_reading()  # further requests would be collected for as long as this one lasts
        reader = self.join(request.transport, request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers=_HEADERS)
        response.force_close()  # nothing more is read from it
        try:
            await response.prepare(request)
            await self._write(reader, response, f"retry: {RETRY_MS}\n\n".encode())
            while reader in self._readers:
                is_over = self._is_over
                reader.wake.clear()
                for message in self.news(reader):
                    await self._write(reader, response, message)
                if is_over:
                    break
                await reader.wake.wait()
        except ConnectionError:
            pass  # it has left, or was dropped
        finally:
            self.leave(reader)
        return response

    async def _write(self, reader: Reader, response: web.StreamResponse, message: bytes) -> None:
        for start in range(0, len(message), PIECE_BYTES):
            reader.blocked_at = self._clock()
            await response.write(message[start : start + PIECE_BYTES])
            reader.blocked_at = None


def _message(kind: str, data: str, number: str = "") -> bytes:
    """data: without line breaks. number: the id, "" for none."""
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {kind}\ndata: {data}\n\n".encode()


def _bound(transport: asyncio.Transport | None) -> None:
    """Bounds of what the kernel does for a reader: bytes that it keeps, megabytes otherwise, and how long it tries.

    One whose machine is gone acknowledges nothing; it would be tried for a quarter of an hour.
    """
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    with contextlib.suppress(OSError):  # it has left
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, option, int(SLOW_S * 1000))
