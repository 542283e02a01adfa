"""The load: an open loop. A request is sent when the trace says so, however many are still without an answer."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.balancing import wire
from benchmarks.balancing.alarm import Alarm
from benchmarks.balancing.trace import Trace

_LEAD_S = 0.2


@dataclass(slots=True)
class Asked:
    """One request. Monotonic seconds; `due` is when the trace wanted it sent, and what latency is counted from.

    status 0: no answer. gave_up: because the client's patience was over.
    """

    due: float
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    gave_up: bool = False

    @property
    def latency_s(self) -> float:
        return self.answered - self.due


@dataclass(slots=True)
class Lane:
    """One independent copy of the experiment: its listener's port, its trace, and what came of it."""

    port: int
    trace: Trace
    asked: list[Asked] = field(default_factory=list)


def run_load(lanes: Sequence[Lane], patience_s: float, is_impatient: bool) -> None:
    """Send all traces at the same time; blocks until the last request has an answer or its time is over.

    patience_s: after that a client closes its connection. An impatient one counts as having given up; if clients are
    meant to be patient, it is a failure.
    """
    uvloop.run(_run(lanes, patience_s, is_impatient))


async def _run(lanes: Sequence[Lane], patience_s: float, is_impatient: bool) -> None:
    alarm = Alarm(asyncio.get_running_loop())
    start = time.monotonic() + _LEAD_S
    async with asyncio.TaskGroup() as tasks:
        senders = [_Sender(lane, alarm, tasks, patience_s, is_impatient) for lane in lanes]
        for sender in senders:
            sender.schedule(start)
        for sender in senders:
            await sender.is_done.wait()
    for sender in senders:
        sender.close()
    alarm.close()


class _Sender:
    def __init__(
        self, lane: Lane, alarm: Alarm, tasks: asyncio.TaskGroup, patience_s: float, is_impatient: bool
    ) -> None:
        self.lane = lane
        self.is_done = asyncio.Event()
        self.patience_s = patience_s
        self.is_impatient = is_impatient
        self.idle: list[_Connection] = []
        self._alarm = alarm
        self._tasks = tasks
        self._open = len(lane.trace)
        self._loop = asyncio.get_running_loop()

    def schedule(self, start: float) -> None:
        for number, arrival in enumerate(self.lane.trace.arrivals):
            self.lane.asked.append(Asked(start + arrival))
            self._alarm.at(start + arrival, functools.partial(self._send, number))

    def _send(self, number: int) -> None:
        asked = self.lane.asked[number]
        asked.sent = time.monotonic()
        data = wire.request(number, self.lane.trace.works[number])
        if self.idle:
            self.idle.pop().begin(asked, data)
        else:
            self._tasks.create_task(self._connect(asked, data))

    async def _connect(self, asked: Asked, data: bytes) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.lane.port)
        except OSError:
            self.finished(asked, 0)
            return
        connection.begin(asked, data)

    def finished(self, asked: Asked, status: int) -> None:
        asked.answered = time.monotonic()
        asked.status = status
        self._open -= 1
        if not self._open:
            self.is_done.set()

    def close(self) -> None:
        for connection in self.idle:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._data = bytearray()
        self._asked: Asked | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def begin(self, asked: Asked, data: bytes) -> None:
        self._asked = asked
        if self._transport is None:  # lost since it was made
            self._end(0)
            return
        left_s = asked.due + self._sender.patience_s - time.monotonic()
        self._timer = self._loop.call_later(max(0.0, left_s), self._give_up)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data += data
        whole = wire.cut(self._data)
        if whole is None or self._asked is None:
            return
        head, length = whole
        del self._data[:length]
        self._end(wire.parse_status(head))
        if wire.is_last(head):
            self.close()
        else:
            self._sender.idle.append(self)

    def _give_up(self) -> None:
        if self._asked is not None:
            self._asked.gave_up = self._sender.is_impatient
            self._end(0)
        self.close()

    def _end(self, status: int) -> None:
        asked, self._asked = self._asked, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if asked is not None:
            self._sender.finished(asked, status)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._sender.idle:
            self._sender.idle.remove(self)
        self._end(0)
