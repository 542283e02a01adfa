"""What a connection to a server of HTTP/2 hears of its transport, and that it hears nothing more when it is over."""

from __future__ import annotations

from lbproxy.dataplane.server.http2_wire import Http2Wire
from tests.unit.dataplane.server.http2_helpers import Asking


def test_what_comes_is_told_until_the_end() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        wire = server.peer.transport.protocol
        assert isinstance(wire, Http2Wire)
        [connection] = lb.endpoint.connections
        assert wire.connection is connection
        server.peer.stop_reading()
        assert connection.is_blocked
        server.peer.read_again()
        assert not connection.is_blocked
        server.answer(1)
        assert asked.heard == [(200, b"hi", True)]
        server.peer.reset()
        assert connection.has_ended and wire.connection is None


def test_after_the_end_nothing_is_told() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        wire = server.peer.transport.protocol
        assert isinstance(wire, Http2Wire)
        server.peer.reset()
        heard = [*asked.heard]
        wire.data_received(b"late")
        wire.pause_writing()
        wire.resume_writing()
        assert wire.eof_received() is False
        wire.connection_lost(None)
        assert asked.heard == heard == ["reset"]
