"""Extended CONNECT (RFC 8441) as a client without sockets has it."""

from __future__ import annotations

from lbproxy.protocol.websocket import accept_of
from tests.support.fake_transport import FakeLb, Peer
from tests.support.http2_client import Http2Client

VERSION = "sec-websocket-version: 13"


class Connecting(Http2Client):
    """An Http2Client that opens WebSockets."""

    def connect(
        self, *lines: str, path: str = "/chat", protocol: str = "websocket", is_end: bool = False, turns: bool = True
    ) -> int:
        number = self.end.open_stream()
        text = "".join(f"{line}\r\n" for line in (VERSION, *lines)).encode()
        self.end.send_request(number, b"CONNECT", b"http", b"h", path.encode(), text, b"", is_end, protocol.encode())
        if turns:
            self.carry()
        return number

    def end_it(self, number: int) -> None:
        """END_STREAM."""
        self.data(number, b"", is_end=True)

    def got(self, number: int) -> bytes:
        """What came through the tunnel so far."""
        self.carry()
        return self.answer(number).body


def key_in(head: bytes) -> bytes:
    """The Sec-WebSocket-Key of a request."""
    [key] = [line[19:] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")]
    return key


def switching_for(head: bytes, *lines: bytes) -> bytes:
    """The 101 that answers a request."""
    more = b"".join(b"%b\r\n" % line for line in lines)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept_of(key_in(head)), more)
    )


def opened(lb: FakeLb, client: Connecting, *lines: str) -> tuple[int, Peer]:
    """A tunnel to a server of HTTP/1.1."""
    number = client.connect(*lines)
    server = lb.accept()
    server.send(switching_for(server.got()))
    client.carry()
    assert client.answer(number).status == 200, client.end.seen
    return number, server
