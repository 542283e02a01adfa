"""What RFC 9113 asks of a client in more than one frame: what lbproxy says to a server, and how it minds windows."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from lbproxy.protocol.h2.codes import ACK, DATA, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.h2_cases import settings, u32
from tests.support.h2_cases_of_servers import OK
from tests.support.h2_ends import frame, headers
from tests.support.h2_stage import before_one_server
from tests.support.h2_wire import FrameSocket
from tests.support.rig import get

END = frame(DATA, END_STREAM, 1, b"body")


class Stage:
    """A daemon, and the socket on which it finds its server."""

    def __init__(self, lb: LbProxy, listener: socket.socket) -> None:
        self.lb = lb
        self.listener = listener

    @contextlib.contextmanager
    def asked(self, request: bytes, *said: tuple[int, int]) -> Iterator[tuple[Client, FrameSocket]]:
        """A client with its request, and the server that has it, on a connection of its own. said: its SETTINGS."""
        with Client(self.lb.port("in")) as client:
            client.send(request)
            sock, _ = self.listener.accept()
            with FrameSocket(sock, preface=True) as peer:
                peer.send(settings(*said))
                peer.read_until(lambda: bool(peer.on(1).heads), "the request")
                yield client, peer
                peer.reset()  # from a FIN lbproxy would learn for how long this server keeps connections


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with before_one_server(tmp_path_factory.mktemp("talks")) as (lb, listener):
        yield Stage(lb, listener)


def test_3_4_the_preface_and_settings_come_first_and_no_push_is_wanted(stage: Stage) -> None:
    with stage.asked(get("/first")) as (_, peer):
        kind, flags, on, body = peer.frames[0]
        assert (kind, flags & ACK, on) == (SETTINGS, 0, 0)
        assert bytes.fromhex("000200000000") in [body[at : at + 6] for at in range(0, len(body), 6)], "ENABLE_PUSH 0"
        assert [number for number in peer.streams if number] == [1], "section 5.1.1: odd, and from the first on"


def test_6_5_3_settings_are_acknowledged_one_by_one(stage: Stage) -> None:
    with stage.asked(get("/settings")) as (_, peer):
        peer.send(settings((1, 100)), settings(), settings((3, 7), (4, 100)), settings(flags=ACK))
        peer.round_trip(b"settings")
        assert sum(flags & ACK for _, flags, _, _ in peer.kinds(SETTINGS)) == 4


def test_4_3_1_a_smaller_table_is_announced_in_the_next_block(stage: Stage) -> None:
    with stage.asked(get("/one"), (3, 100)) as (client, peer):
        peer.send(headers(1, OK), END, settings((1, 0)))
        assert client.response().body == b"body"
        peer.round_trip(b"settings")
        client.send(get("/two"))
        peer.read_until(lambda: peer.on(3).is_ended, "the next request")
        found = [body for kind, _, on, body in peer.frames if kind == HEADERS and on == 3]
        assert found[0][0] == 0x20


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"GET /x?y HTTP/1.1", "/x?y"),
        (b"GET http://case.example HTTP/1.1", "/"),
        (b"OPTIONS * HTTP/1.1", "*"),
        (b"OPTIONS http://case.example HTTP/1.1", "*"),
    ],
)
def test_8_3_1_a_request_of_http_1_as_a_server_of_http_2_gets_it(stage: Stage, line: bytes, path: str) -> None:
    """Sections 8.2, 8.2.2 and 8.3.1: what is first, what is in lower case, and what is left out."""
    fields = b"X-Own: 1\r\nX-Mixed-Case: Yes\r\nConnection: X-Own, TE\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\n"
    with stage.asked(line + b"\r\nHost: case.example\r\n" + fields + b"\r\n") as (_, peer):
        [head] = peer.on(1).heads
        names = list(head)
        assert [name for name in names if name.startswith(":")] == names[:4], "pseudo-fields first"
        assert (head[":path"], head[":authority"], head[":scheme"]) == (path, "case.example", "http")
        assert head["x-mixed-case"] == "Yes" and head["te"] == "trailers" and names == [name.lower() for name in names]
        assert not {"host", "connection", "keep-alive", "x-own", "transfer-encoding"} & head.keys()


def test_6_9_2_a_body_keeps_to_windows_that_open_and_shrink(stage: Stage) -> None:
    body = bytes(range(20))
    request = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n" + body
    with stage.asked(request) as (client, peer):
        peer.read_until(lambda: peer.on(1).is_ended, "the first request, of which the default window held nothing back")
        peer.send(headers(1, OK), END, settings((4, 0)))
        assert client.response().status == 200
        peer.round_trip(b"settings")
        client.send(request)
        heard = peer.on(3)
        peer.read_until(lambda: bool(heard.heads), "the head, which no window holds back")
        for octets, taken in (
            (b"", 0),
            (frame(WINDOW_UPDATE, 0, 3, u32(1)), 1),
            (settings((4, 4)), 5),
            (settings((4, 0)), 5),  # the window is below nothing now
            (frame(WINDOW_UPDATE, 0, 3, u32(4)), 5),
            (frame(WINDOW_UPDATE, 0, 3, u32(2)), 7),
            (settings((4, 0), (4, 3)), 10),
        ):
            peer.send(octets)
            peer.round_trip(b"%8d" % taken)
            assert heard.body == body[:taken] and not heard.is_ended
        peer.send(settings((4, 100)))
        peer.read_until(lambda: heard.is_ended, "the rest")
        assert heard.body == body
