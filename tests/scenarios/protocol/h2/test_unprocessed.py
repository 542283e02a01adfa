"""What a server says that it has not processed is sent again, whatever its method (RFC 9113 sections 6.8 and 8.7)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.protocol.h2.codes import (
    ACK,
    CANCEL,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
)
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.h2_cases import settings, u32
from tests.support.h2_ends import frame, headers
from tests.support.h2_wire import FrameSocket
from tests.support.waiting import PATIENCE_S, wait_until

OK = ((b":status", b"200"),)
POST = b"POST /once HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


class Stage:
    """A daemon, and a server by hand; everything is on, as it is by default."""

    def __init__(self, lb: LbProxy, listener: socket.socket) -> None:
        self.lb = lb
        self.listener = listener

    def accept(self) -> FrameSocket:
        """A connection that has begun."""
        sock, _ = self.listener.accept()
        peer = FrameSocket(sock, preface=True)
        peer.send(settings((3, 100)))
        peer.read_until(lambda: any(one[1] & ACK for one in peer.kinds(SETTINGS)), "SETTINGS ACK")
        return peer

    def ask(self) -> Client:
        client = Client(self.lb.port("in"))
        client.send(POST)
        return client


def answer(peer: FrameSocket, stream: int) -> None:
    peer.send(headers(stream, OK), frame(DATA, END_STREAM, stream, b"done"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"127.0.0.1:{listener.getsockname()[1]}"],
                    "protocol": "h2",
                    "health_check": "off",
                    "circuit_breaker": "off",
                }
            },
        }
        with LbProxy(config, tmp_path) as lb:
            yield Stage(lb, listener)


@pytest.mark.parametrize("code", [NO_ERROR, ENHANCE_YOUR_CALM, INTERNAL_ERROR])
def test_6_8_goaway_sends_elsewhere_what_it_does_not_cover(stage: Stage, code: int) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(stage.ask())
        peer = stack.enter_context(stage.accept())
        peer.read_until(lambda: peer.on(1).is_ended, "the first request")
        second = stack.enter_context(stage.ask())
        peer.read_until(lambda: peer.on(3).is_ended, "the second request")
        peer.send(frame(GOAWAY, 0, 0, u32(1, code) + b"so it is"))
        other = stack.enter_context(stage.accept())
        other.read_until(lambda: other.on(1).is_ended, "the second request again")
        assert other.on(1).body == b"body"
        answer(other, 1)
        assert second.response().body == b"done"
        answer(peer, 1)  # what it covers is answered where it is
        assert first.response().body == b"done"
        peer.read_to_end()
        assert peer.end == "fin"
    assert stage.lb.metric("requests_total", code="2xx") == 2


def test_6_8_two_steps_and_what_came_between_them(stage: Stage) -> None:
    """First 2^31-1: nothing more is sent there; then the last stream."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(stage.ask())
        peer = stack.enter_context(stage.accept())
        peer.read_until(lambda: peer.on(1).is_ended, "the first request")
        peer.send(frame(GOAWAY, 0, 0, u32(2**31 - 1, 0)))
        peer.round_trip(b"received")
        second = stack.enter_context(stage.ask())
        other = stack.enter_context(stage.accept())
        other.read_until(lambda: other.on(1).is_ended, "the second request, elsewhere")
        peer.send(frame(GOAWAY, 0, 0, u32(1, 0)))
        answer(peer, 1)
        answer(other, 1)
        assert [client.response().body for client in (first, second)] == [b"done", b"done"]
        assert 3 not in peer.streams


def test_6_8_a_larger_number_takes_nothing_back(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(stage.ask())
        peer = stack.enter_context(stage.accept())
        peer.read_until(lambda: peer.on(1).is_ended, "the request")
        peer.send(frame(GOAWAY, 0, 0, u32(0, 0)), frame(GOAWAY, 0, 0, u32(5, 0)))
        other = stack.enter_context(stage.accept())
        other.read_until(lambda: other.on(1).is_ended, "the request again")
        answer(peer, 1)  # too late: it has gone elsewhere
        answer(other, 1)
        assert client.response().body == b"done"


def test_8_7_a_refused_stream_is_sent_again(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(stage.ask())
        peer = stack.enter_context(stage.accept())
        peer.read_until(lambda: peer.on(1).is_ended, "the request")
        peer.send(frame(RST_STREAM, 0, 1, u32(REFUSED_STREAM)))
        peer.read_until(lambda: peer.on(3).is_ended, "the request again")
        answer(peer, 3)
        assert client.response().body == b"done"


@pytest.mark.parametrize("code", [CANCEL, INTERNAL_ERROR, ENHANCE_YOUR_CALM])
def test_8_7_what_may_have_been_processed_is_not_sent_again(stage: Stage, code: int) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(stage.ask())
        peer = stack.enter_context(stage.accept())
        peer.read_until(lambda: peer.on(1).is_ended, "the request")
        peer.send(frame(RST_STREAM, 0, 1, u32(code)))
        assert client.response().status == 502
        peer.round_trip(b"the last")
        assert [number for number in peer.streams if number] == [1]


def test_5_1_2_no_stream_beyond_the_servers_limit(stage: Stage) -> None:
    """The limit shrinks to 1 while two are under way: the next one waits, or goes elsewhere, and is not sent there."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(stage.ask())]
        peer = stack.enter_context(stage.accept())
        clients.append(stack.enter_context(stage.ask()))
        peer.read_until(lambda: peer.on(1).is_ended and peer.on(3).is_ended, "two requests")
        peer.send(settings((3, 1)))
        peer.round_trip(b"received")
        clients.append(stack.enter_context(stage.ask()))
        other = stack.enter_context(stage.accept())
        other.read_until(lambda: other.on(1).is_ended, "the third request, on a connection of its own")
        for one, stream in ((peer, 1), (peer, 3), (other, 1)):
            answer(one, stream)
        assert [client.response().body for client in clients] == [b"done"] * 3
        wait_until(lambda: stage.lb.metric("server_inflight") == 0, "nothing to be under way")
        assert 5 not in peer.streams
