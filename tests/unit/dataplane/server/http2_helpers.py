"""What the tests of servers of HTTP/2 share."""

from __future__ import annotations

from lbproxy.dataplane.server.http2_endpoint import Http2Endpoint
from lbproxy.dataplane.server.http2_stream import Http2Stream
from tests.support.asking import Asked, AskingLb, prepared_by
from tests.support.fake_transport import GET
from tests.support.h2_servers import H2Server, config

POST = b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n"


class Asking(AskingLb):
    """Its endpoint, too."""

    def __init__(self, **keys: str) -> None:
        super().__init__(config(**keys))
        endpoint = self.runtimes[0].endpoint
        assert isinstance(endpoint, Http2Endpoint)
        self.endpoint = endpoint

    def dialled(self, *, streams: int = 100) -> H2Server:
        """The dial succeeds."""
        return H2Server(self, self.accept(), streams=streams)

    def begun(self, raw: bytes = GET, body: bytes = b"", *, is_done: bool = True) -> Asked:
        """A request on a stream that is there at once."""
        asked = self.ask()
        assert asked.stream is not None, asked.heard
        asked.sent_at = self.clock()
        asked.begin(prepared_by(self, raw), body, is_done=is_done)
        return asked

    def server(self, *, streams: int = 100) -> tuple[H2Server, Asked]:
        """A server with one request, and no word of it yet but SETTINGS."""
        asked = self.ask()
        server = self.dialled(streams=streams)
        asked.sent_at = self.clock()
        asked.begin(prepared_by(self))
        server.greet()
        asked.heard.clear()
        return server, asked

    def close(self) -> None:
        """What is idle goes."""
        self.runtimes[0].retire()
        self.loop.run()
        assert self.runtimes[0].n_connections == 0 and self.endpoint.connections == []

    def open_streams(self) -> list[Http2Stream]:
        return [stream for connection in self.endpoint.connections for stream in connection.streams.values()]

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.runtimes[0].sweep(self.clock.now)
        self.loop.run()
