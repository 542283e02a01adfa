"""Clients of HTTP/2 that are polite, slow, or give up in the middle, by seed. The library h2 judges what they get."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from lbproxy.protocol.h2.codes import CANCEL
from tests.soak.rude_clients import Caller, Manner, Stranger

_BODIES: Final = (0, 10, 1_000, 40_000)


class Http2Caller(Caller):
    """A client with one connection. counts: statuses, resets and manners by name."""

    def __init__(self, number: int, seed: int, port: int, counts: Counter[str]) -> None:
        super().__init__(number, seed, port, counts)
        self._said = counts
        self._h2: h2.connection.H2Connection | None = None
        self._bodies: dict[int, bytes] = {}
        self._statuses: dict[int, int] = {}
        self._open: dict[int, str] = {}  # targets by stream

    def close(self) -> None:
        self._h2 = None
        self._open.clear()
        super().close()

    def reset(self) -> None:
        self._h2 = None
        self._open.clear()
        super().reset()

    async def link(self) -> h2.connection.H2Connection:
        """The connection, a new one if there is none."""
        _, writer = await self.streams()
        if self._h2 is None:
            config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
            self._h2 = h2.connection.H2Connection(config)
            self._h2.initiate_connection()
            writer.write(self._h2.data_to_send())
        return self._h2

    async def begin(self, method: str, target: str, body: bytes, *, is_whole: bool = True) -> int:
        """A request, as far as the window lets its body go; or all of it but the end."""
        link = await self.link()
        number = link.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "soak"), (":path", target)]
        has_body = method == "POST"
        link.send_headers(number, fields, end_stream=not has_body)
        self._open[number] = target
        self._bodies[number] = b""
        if has_body:
            body = body[: max(0, min(link.local_flow_control_window(number), len(body)))]
            for at in range(0, len(body), 16_000):
                link.send_data(number, body[at : at + 16_000])
            if is_whole:
                link.end_stream(number)
        self.flush()
        return number

    def flush(self) -> None:
        if self._h2 is not None and self.writer is not None:
            self.writer.write(self._h2.data_to_send())

    def give_up(self, number: int) -> None:
        """RST_STREAM, if it is still open."""
        if self._h2 is not None and self._open.pop(number, None) is not None:
            self._h2.reset_stream(number, CANCEL)
            self.flush()

    async def end(self, number: int) -> None:
        """The end of a body that was left open."""
        if self._h2 is not None and number in self._open:
            self._h2.end_stream(number)
            self.flush()

    async def read_until_done(self, *numbers: int) -> None:
        """Until each of these has ended, in one way or the other."""
        while any(number in self._open for number in numbers):
            await self.read_some()

    async def read_some(self) -> None:
        """One read."""
        assert self.reader is not None and self._h2 is not None
        data = await self.reader.read(65_536)
        if not data:
            raise EOFError
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            if "RECV_INFORMATIONAL_HEADERS in state 6" in str(error):
                # One was on its way to a stream that was given up: other frames the library ignores then, these not.
                raise EOFError from None
            raise Stranger(f"h2 does not take what lbproxy sent: {error!r}") from error
        for event in events:
            self._take(self._h2, event)
        self.flush()

    def _take(self, link: h2.connection.H2Connection, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._said["goaway"] += 1
            raise EOFError
        number = getattr(event, "stream_id", None) or 0
        if isinstance(event, h2.events.DataReceived):
            link.acknowledge_received_data(event.flow_controlled_length or 0, number)
            if number in self._open:
                self._bodies[number] += event.data or b""
        elif isinstance(event, h2.events.ResponseReceived):
            self._statuses[number] = next(int(value) for name, value in event.headers or () if str(name) == ":status")
        elif isinstance(event, h2.events.StreamReset):
            if self._open.pop(number, None) is not None:
                self._said["stream reset"] += 1
        elif isinstance(event, h2.events.StreamEnded):
            target = self._open.pop(number, None)
            if target is not None:
                self._judge(self._statuses[number], self._bodies.pop(number).strip(), target)

    def _judge(self, status: int, body: bytes, target: str) -> None:
        self._said[str(status)] += 1
        self._said["200 over HTTP/2"] += status == 200
        if status == 200 and body != target.encode():
            raise Stranger(f"{target} at port {self.port} was answered with {body[:100]!r}")

    def body(self) -> bytes:
        return b"b" * self.rng.choice(_BODIES)


async def _begun(c: Caller, *, is_whole: bool = True, method: str = "") -> tuple[Http2Caller, int]:
    assert isinstance(c, Http2Caller)
    return c, await c.begin(method or c.method(), c.target(), c.body(), is_whole=is_whole)


async def asks(c: Caller) -> None:
    one, number = await _begun(c)
    await one.read_until_done(number)


async def asks_many(c: Caller) -> None:
    """At once."""
    begun = [await _begun(c) for _ in range(8)]
    await begun[0][0].read_until_done(*[number for _, number in begun])


async def sends_slowly(c: Caller) -> None:
    one, number = await _begun(c, is_whole=False, method="POST")
    await asyncio.sleep(c.rng.uniform(0.0, 0.2))
    await one.end(number)
    await one.read_until_done(number)


async def gives_up(c: Caller) -> None:
    """Some of several, while they wait or are read."""
    begun = [await _begun(c) for _ in range(4)]
    one = begun[0][0]
    await asyncio.sleep(c.rng.choice((0.0, 0.01, 0.1)))
    for _, number in begun[::2]:
        one.give_up(number)
    await one.read_until_done(*[number for _, number in begun])


async def gives_up_while_sending(c: Caller) -> None:
    one, number = await _begun(c, is_whole=False, method="POST")
    await asyncio.sleep(c.rng.uniform(0.0, 0.05))
    one.give_up(number)


async def leaves_while_waiting(c: Caller) -> None:
    for _ in range(3):
        await _begun(c)
    await asyncio.sleep(c.rng.choice((0.0, 0.01, 0.1, 0.4)))
    c.leave()


async def leaves_while_reading(c: Caller) -> None:
    one, _ = await _begun(c)
    await one.read_some()
    c.leave()


async def connects_only(c: Caller) -> None:
    c.close()
    assert isinstance(c, Http2Caller)
    await c.link()
    await asyncio.sleep(c.rng.uniform(0.0, 0.05))
    c.leave()


HTTP2_MANNERS: dict[Manner, int] = {
    asks: 70,
    asks_many: 6,
    sends_slowly: 6,
    gives_up: 4,
    gives_up_while_sending: 3,
    leaves_while_waiting: 4,
    leaves_while_reading: 3,
    connects_only: 2,
}
