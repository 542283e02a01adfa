"""A server like moody_server.py over HTTP/2, by the library h2: each stream meets a mood, some end the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from lbproxy.protocol.h2.codes import CANCEL, GOAWAY, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM
from tests.soak.breaking import RETRY_ME_S, reset
from tests.support.h2_ends import frame

Mood = Callable[["Turn"], Awaitable[None]]

_STALL_S: Final = 5.0
_PIECE: Final = 16 * 1024


class Hurt(Exception):
    """The connection is over."""


class Turn:
    """One request on its stream."""

    def __init__(self, line: Line, number: int, target: str, is_head: bool) -> None:
        self.line = line
        self.number = number
        self.body = b"" if is_head else target.encode()
        self.is_head = is_head

    @property
    def rng(self) -> random.Random:
        return self.line.rng

    def head(self, status: int, *, length: int | None = None, is_end: bool = False) -> None:
        fields = [(":status", str(status)), ("content-length", str(len(self.body) if length is None else length))]
        self.line.do(lambda h: h.send_headers(self.number, fields, end_stream=is_end))

    async def answer(self, status: int) -> None:
        self.head(status, is_end=self.is_head)
        if not self.is_head:
            await self.line.data(self.number, self.body, is_end=True)


async def good(t: Turn) -> None:
    await t.answer(200)


async def slow(t: Turn) -> None:
    await asyncio.sleep(t.rng.uniform(0.02, 0.3))
    await t.answer(200)


async def in_pieces(t: Turn) -> None:
    """A quarter of a megabyte before the body that the client compares, with pauses."""
    t.line.do(lambda h: h.send_headers(t.number, [(":status", "200")]))
    for _ in range(16):
        await t.line.data(t.number, b" " * _PIECE, is_end=False)
        await asyncio.sleep(t.rng.uniform(0.0, 0.01))
    await t.line.data(t.number, t.body, is_end=True)


async def with_trailers(t: Turn) -> None:
    t.line.do(lambda h: h.send_headers(t.number, [(":status", "200")]))
    await t.line.data(t.number, t.body, is_end=False)
    t.line.do(lambda h: h.send_headers(t.number, [("x-sum", "1")], end_stream=True))


async def says_more_first(t: Turn) -> None:
    t.line.do(lambda h: h.send_headers(t.number, [(":status", "103"), ("link", "</x>")]))
    await t.answer(200)


async def fails(t: Turn) -> None:
    await t.answer(500)


async def is_unavailable(t: Turn) -> None:
    await t.answer(503)


async def refuses(t: Turn) -> None:
    t.line.do(lambda h: h.reset_stream(t.number, REFUSED_STREAM))


async def gives_up(t: Turn) -> None:
    code = t.rng.choice((CANCEL, INTERNAL_ERROR, NO_ERROR))
    t.line.do(lambda h: h.reset_stream(t.number, code))


async def dies_in_the_body(t: Turn) -> None:
    t.head(200, length=100_000)
    await t.line.data(t.number, b"x" * 1000, is_end=False)
    t.line.do(lambda h: h.reset_stream(t.number, INTERNAL_ERROR))


async def goes_away(t: Turn) -> None:
    """In peace: what it has is answered, what comes later is not looked at."""
    t.line.go_away(t.number)
    await t.answer(200)


async def goes_away_at_once(t: Turn) -> None:
    t.line.go_away(0)
    raise Hurt


async def cuts_all(t: Turn) -> None:
    reset(t.line.writer)
    raise Hurt


async def talks_nonsense(t: Turn) -> None:
    t.line.writer.write(frame(0, 0, 0, b"DATA on stream 0"))
    raise Hurt


async def narrows_windows(t: Turn) -> None:
    t.line.do(lambda h: h.update_settings({4: t.rng.choice((0, 1_000, 65_535, 1 << 20))}))
    await t.answer(200)
    t.line.do(lambda h: h.update_settings({4: 65_535}))


async def stalls(t: Turn) -> None:
    await asyncio.sleep(_STALL_S)


MOODS: dict[Mood, int] = {
    good: 60,
    slow: 20,
    in_pieces: 4,
    with_trailers: 4,
    says_more_first: 2,
    fails: 2,
    is_unavailable: 3,
    refuses: 2,
    gives_up: 2,
    dies_in_the_body: 1,
    goes_away: 2,
    goes_away_at_once: 1,
    cuts_all: 1,
    talks_nonsense: 1,
    narrows_windows: 2,
    stalls: 1,
}


class Line:
    """One connection, whose streams are tasks of it."""

    def __init__(self, rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.rng = rng
        self.reader = reader
        self.writer = writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._targets: dict[int, tuple[str, bool]] = {}
        self._last = 2**31
        self._moved = asyncio.Event()  # a window opened, or a stream ended

    def do(self, act: Callable[[h2.connection.H2Connection], object]) -> None:
        """Say something; nothing on a stream that its client has reset."""
        try:
            act(self._h2)
        except (h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
            return
        except h2.exceptions.ProtocolError:
            raise Hurt from None
        self.writer.write(self._h2.data_to_send())

    def go_away(self, last: int) -> None:
        """The library would end everything at once."""
        self._last = last
        self.writer.write(frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + bytes(4)))

    async def data(self, number: int, data: bytes, *, is_end: bool) -> None:
        """As the windows allow."""
        while True:
            try:
                most = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            except h2.exceptions.ProtocolError:
                return  # it was reset
            if data and most <= 0:
                self._moved.clear()
                await self._moved.wait()
                continue
            part, data = data[: max(most, 0)], data[max(most, 0) :]
            self.do(lambda h, part=part, rest=data: h.send_data(number, part, end_stream=is_end and not rest))  # type: ignore[misc]
            if not data:
                return

    async def run(self) -> None:
        """Until it ends."""
        self.do(lambda h: h.initiate_connection())
        async with asyncio.TaskGroup() as turns:
            while data := await self.reader.read(65_536):
                for event in self._h2.receive_data(data):
                    self._take(event, turns)
                self.writer.write(self._h2.data_to_send())
                await self.writer.drain()
            raise Hurt  # the streams that are left have nobody to tell

    def _take(self, event: h2.events.Event, turns: asyncio.TaskGroup) -> None:
        if isinstance(event, h2.events.RequestReceived) and event.stream_id and event.stream_id <= self._last:
            fields = {str(name): str(value) for name, value in event.headers or ()}
            self._targets[event.stream_id] = fields[":path"], fields[":method"] == "HEAD"
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self._targets:
            target, is_head = self._targets.pop(event.stream_id)
            turns.create_task(self._serve(Turn(self, event.stream_id, target, is_head), target))
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise Hurt
        self._moved.set()

    async def _serve(self, turn: Turn, target: str) -> None:
        if target == "/health":
            await good(turn)
        elif target.startswith("/retry-me"):
            await asyncio.sleep(RETRY_ME_S)
            await fails(turn)
        else:
            (mood,) = self.rng.choices(list(MOODS), list(MOODS.values()))
            await mood(turn)


async def visit(rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, until either side has had enough."""
    try:
        await Line(rng, reader, writer).run()
    except* (Hurt, OSError, h2.exceptions.ProtocolError):
        pass
    finally:
        writer.close()
