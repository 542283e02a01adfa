"""A server of HTTP/2 that does what costs it little and lbproxy much: its connection ends, and nobody else notices.

The request that it had under way is answered with 502, or cut where its answer had begun.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from lbproxy.protocol.h2.codes import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
)
from tests.scenarios.http.test_http2_floods import is_quiet
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.h2_cases import settings, u32
from tests.support.h2_cases_of_servers import OK
from tests.support.h2_ends import block, frame, headers
from tests.support.h2_wire import FrameSocket
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Ended, WireError

MIB = 1 << 20
MOST_OCTETS = MIB  # if nobody stops it
MOST_GROWTH = 15 * MIB
Kind = tuple[bytes, bytes]  # what comes first, and what comes again and again

FLOODS: dict[str, Kind] = {
    "pings": (b"", frame(PING, 0, 0, b"12345678")),
    "pongs": (b"", frame(PING, ACK, 0, b"12345678")),
    "settings": (b"", settings((4, 65_535), (1, 0), (1, 4096))),
    "acknowledgements": (b"", settings(flags=ACK)),
    "priorities": (b"", frame(PRIORITY, 0, 1, u32(0) + b"\x10")),
    "unknown frames": (b"", frame(0x2A, 0, 0, b"x" * 100)),
    "empty DATA": (headers(1, OK), frame(DATA, 0, 1)),
    "small updates": (b"", frame(WINDOW_UPDATE, 0, 0, u32(1))),
    "resets of a closed stream": (headers(1, OK, is_end=True), frame(RST_STREAM, 0, 1, u32(8))),
    "CONTINUATION": (frame(HEADERS, END_STREAM, 1, block(OK)), frame(CONTINUATION, 0, 1, block([(b"x", b"y" * 100)]))),
}


class Stage:
    """A daemon with a server by hand (pool `flood`), and one that behaves."""

    def __init__(self, lb: LbProxy, listener: socket.socket) -> None:
        self.lb = lb
        self.listener = listener

    def beside(self) -> int:
        with Client(self.lb.port("beside")) as client:
            return client.ask(get("/beside")).status


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as listener, Origin() as origin:
        listener.settimeout(PATIENCE_S)
        calm = {"health_check": "off", "circuit_breaker": "off", "retry": {"attempts": 0}}
        config: dict[str, object] = {
            "listeners": [
                {"name": "flood", "bind": "127.0.0.1:0", "pool": "flood"},
                {"name": "beside", "bind": "127.0.0.1:0", "pool": "beside"},
            ],
            "pools": {
                "flood": {"servers": [f"127.0.0.1:{listener.getsockname()[1]}"], "protocol": "h2", **calm},
                "beside": {"servers": [origin.address], **calm},
            },
        }
        with LbProxy(config, tmp_path_factory.mktemp("floods")) as lb:
            made = Stage(lb, listener)
            assert made.beside() == 200
            yield made


def pour(peer: FrameSocket, piece: bytes) -> None:
    batch = piece * (16_384 // len(piece) + 1)
    for _ in range(MOST_OCTETS // len(batch)):
        peer.send(batch)


@pytest.mark.parametrize("name", FLOODS)
def test_its_connection_ends_and_nobody_else_notices(stage: Stage, name: str) -> None:
    first, again = FLOODS[name]
    lb = stage.lb
    before = most = lb.rss_bytes()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(lb.port("flood")))
        client.send(get("/flooded"))
        sock, _ = stage.listener.accept()
        peer = stack.enter_context(FrameSocket(sock, preface=True))
        peer.send(settings((3, 100)))
        peer.read_until(lambda: peer.on(1).is_ended, "the request")
        peer.acks = False
        peer.send(first)
        pouring = threading.Thread(target=pour, args=(peer, again))
        pouring.start()
        for _ in range(5):
            assert stage.beside() == 200
            most = max(most, lb.rss_bytes())
        peer.read_to_end()
        pouring.join()
        assert peer.goaway in (ENHANCE_YOUR_CALM, None), peer.summary()  # RST may have overtaken it
        assert answer_of(client) in ((200,) if name.startswith("resets") else (0, 502))
        wait_until(lambda: is_quiet(lb), "lbproxy to have nothing to do")
        most = max(most, lb.rss_bytes())
    lb.check_idle()
    assert most - before <= MOST_GROWTH
    assert stage.beside() == 200


def answer_of(client: Client) -> int:
    """Its status; 0 if it was cut."""
    try:
        return client.response().status
    except (Ended, WireError):
        return 0
