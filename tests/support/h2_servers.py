"""A server of HTTP/2 that a test plays, on the transports of `fake_transport.py`."""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.message import Field
from tests.support.fake_transport import FakeLb, Peer
from tests.support.h2_ends import RecordingEnd

CONFIG = """
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app:
    servers: {servers}
    protocol: h2
    health_check: off
    retry: {retry}
    keep_alive: {keep_alive}
    limits: {limits}
"""


def config(
    *,
    servers: str = '["127.0.0.1:9001"]',
    retry: str = "{attempts: 0}",
    keep_alive: str = "{}",
    limits: str = "{}",
) -> str:
    return CONFIG.format(servers=servers, retry=retry, keep_alive=keep_alive, limits=limits)


class H2Server:
    """One connection of a server. end: what it makes of the octets. seen: what came since the last look."""

    def __init__(
        self, lb: FakeLb, peer: Peer, *, streams: int = 100, window: int = 65_535, websocket: bool = False
    ) -> None:
        self.lb = lb
        self.peer = peer
        self.end = RecordingEnd(
            True, OwnSettings(streams=streams, stream_window=window, websocket=websocket), gives_back=False
        )

    def greet(self) -> H2Server:
        """SETTINGS, and what the codec has to say to what came."""
        self.read()
        self.say()
        return self

    def read(self) -> list[tuple[object, ...]]:
        """What came since the last look, as the hooks were told."""
        self.lb.services.poller.turn_end.flush()  # what tests have said is not always followed by one
        self.end.received(self.peer.got(), 0.0)
        seen, self.end.seen = self.end.seen, []
        return [entry for entry in seen if entry[0] not in ("settings", "opened")]

    def say(self) -> None:
        """Send what waits."""
        octets = self.end.take_output()
        if octets:
            self.peer.send(octets)

    def answer(
        self,
        stream_id: int,
        body: bytes = b"hi",
        *,
        status: int = 200,
        lines: bytes = b"",
        is_end: bool = True,
        trailers: Sequence[Field] = (),
    ) -> None:
        """A head, and a body if there is one, in one write."""
        self.end.send_answer(stream_id, status, lines, b"", is_end and not body and not trailers)
        if body:
            self.end.send_data(stream_id, body, is_end and not trailers)
        if trailers:
            self.end.send_trailers(stream_id, b"".join([b"%b: %b\r\n" % field for field in trailers]))
        self.say()

    def more(self, stream_id: int, data: bytes, *, is_end: bool = False) -> None:
        assert self.end.send_data(stream_id, data, is_end) == len(data), "the window is full"
        self.say()

    def reset(self, stream_id: int, code: int) -> None:
        self.end.reset(stream_id, code)
        self.say()

    def go_away(self, last: int, code: int = 0) -> None:
        self.end.goaway(last, code)
        self.say()

    def ids(self) -> list[int]:
        """The streams of requests that have come since the last look."""
        return [int(str(entry[1])) for entry in self.read() if entry[0] == "head"]
