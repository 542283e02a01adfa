"""What RFC 9113 asks of a server in more than one frame: what it says first, of its tables, and how it goes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lbproxy.dataplane.client.http2_connection import CONNECTION_WINDOW
from lbproxy.protocol.h2.codes import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    WINDOW_UPDATE,
)
from tests.support.daemon import LbProxy
from tests.support.h2_cases import STREAM, settings
from tests.support.h2_cases_of_heads import GET
from tests.support.h2_ends import frame, headers
from tests.support.h2_wire import FrameSocket
from tests.support.origin import Origin


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("talks")) as made:
            yield made


def connect(lb: LbProxy) -> FrameSocket:
    return FrameSocket(socket.create_connection(("127.0.0.1", lb.port("in"))))


def begun(lb: LbProxy) -> FrameSocket:
    peer = connect(lb)
    peer.send(PREFACE, settings())
    peer.round_trip(b"at first")
    return peer


def head_octets(peer: FrameSocket, stream: int) -> bytes:
    """The field block of the answer to a GET on this stream."""
    peer.send(headers(stream, GET, is_end=True))
    assert peer.read_stream(stream).status == 200
    return next(body for kind, _, on, body in peer.frames if kind == HEADERS and on == stream)


def test_3_4_settings_are_the_first_frame_and_the_clients_are_acknowledged_behind_them(lb: LbProxy) -> None:
    with connect(lb) as peer:
        peer.send(PREFACE, settings((3, 7)))
        peer.round_trip(b"at first")
        found = [(flags, on) for kind, flags, on, _ in peer.frames if kind == SETTINGS]
        assert peer.frames[0][0] == SETTINGS and found == [(0, 0), (ACK, 0)]


def test_4_3_1_a_smaller_table_is_announced_in_the_next_block(lb: LbProxy) -> None:
    with begun(lb) as peer:
        assert head_octets(peer, 1)[0] & 0xE0 != 0x20, "nothing has changed"
        peer.send(settings((1, 0)))
        assert head_octets(peer, 3)[0] == 0x20, "RFC 7541 section 6.3: the size is 0"
        assert head_octets(peer, 5)[0] & 0xE0 != 0x20, "once is enough"


def test_4_3_1_of_a_table_that_was_smaller_in_between_the_smallest_size_is_told(lb: LbProxy) -> None:
    """RFC 7541 section 4.2. lbproxy does not use the room that comes back, so that this is the last size, too."""
    with begun(lb) as peer:
        head_octets(peer, 1)
        peer.send(settings((1, 0)), settings((1, 100)))
        assert head_octets(peer, 3)[0] == 0x20
        assert head_octets(peer, 5)[0] & 0xE0 != 0x20


def test_5_4_1_goaway_names_the_last_stream_and_then_the_connection_ends(lb: LbProxy) -> None:
    with begun(lb) as peer:
        head_octets(peer, 5)
        peer.send(frame(DATA, 0, 0, b"x"))
        peer.read_to_end()
        *_, (kind, _, on, body) = peer.frames
        assert (kind, on) == (GOAWAY, 0)
        assert (int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")) == (5, PROTOCOL_ERROR)


def test_6_9_octets_of_streams_that_were_reset_count_and_are_given_back(lb: LbProxy) -> None:
    """More than the connection's window has room for, on streams that are refused."""
    size = 16_384
    n_streams = CONNECTION_WINDOW // size + 10
    with begun(lb) as peer:
        for at in range(n_streams):
            number = STREAM + 2 * at
            peer.send(headers(number, GET[1:]), frame(DATA, END_STREAM, number, bytes(size)))
            assert peer.read_stream(number).reset is not None
        peer.round_trip(b"at last!")
        given = [int.from_bytes(body, "big") for kind, _, on, body in peer.frames if kind == WINDOW_UPDATE and not on]
        assert sum(given) >= n_streams * size - CONNECTION_WINDOW // 2 and peer.goaway is None
        head_octets(peer, STREAM + 2 * n_streams)
