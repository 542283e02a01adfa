"""WebSockets at servers of HTTP/2: extended CONNECT (RFC 8441), for clients of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lbproxy.dataplane.server.http2_endpoint import Http2Endpoint
from lbproxy.protocol.h2.codes import CANCEL, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR
from tests.support.fake_transport import GET, UPGRADE, FakeLb, Peer, status_of
from tests.support.h2_servers import H2Server, config
from tests.support.websocket_h2 import Connecting

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASK = (
    b"GET /chat?x=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
)
LIMITED = config().replace("health_check: off", "health_check: off\n    timeouts: {tunnel: 5s, half_closed: 2s}")


@contextmanager
def before_server(text: str = "", *, websocket: bool = True) -> Iterator[tuple[FakeLb, Peer, H2Server, int]]:
    """A client of HTTP/1 that has asked for a WebSocket, and the server that has heard of it."""
    with FakeLb(text or config()) as lb:
        client = lb.connect()
        client.send(ASK)
        server = H2Server(lb, lb.accept(), websocket=websocket)
        assert server.read() == [], "nothing before its SETTINGS"
        server.say()
        seen = server.read()
        number = int(str(seen[0][1])) if seen else 0
        yield lb, client, server, number
        for connection in list(lb.services.swept):
            connection.shut_down()
        lb.runtimes[0].retire()
        lb.loop.run()


def test_a_client_of_http_1_gets_its_101() -> None:
    with before_server() as (lb, client, server, number):
        head = server.end.heads[0]
        assert (head.method, head.protocol, head.path, head.authority) == (b"CONNECT", b"websocket", b"/chat?x=1", b"h")
        assert b"key" not in head.lines.lower() and b"pgrade" not in head.lines
        assert b"sec-websocket-version: 13\r\n" in head.lines and b"via: 1.1 lbproxy\r\n" in head.lines
        server.answer(number, b"first", lines=b"sec-websocket-protocol: chat\r\n", is_end=False)
        answer = client.got()
        assert status_of(answer) == 101 and answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"Sec-WebSocket-Accept: %b\r\n" % ACCEPT in answer and b"Upgrade: websocket\r\n" in answer
        assert b"sec-websocket-protocol: chat\r\n" in answer and answer.endswith(b"\r\n\r\nfirst")
        client.send(b"ping")
        assert server.read() == [("data", number, b"ping", False)]
        server.more(number, b"pong")
        assert client.got() == b"pong" and lb.inflight == 1
        client.fin()
        assert server.read() == [("data", number, b"", True)]
        server.more(number, b"rest", is_end=True)
        assert client.got() == b"rest"
        [line] = lb.log
        assert (line["status"], line["end"], line["bytes_in"], line["bytes_out"]) == (101, "ok", 4, 13)
        assert lb.inflight == 0 and lb.runtimes[0].n_connections == 1
        assert not server.end.has_stream(number) and not client.saw_reset


def test_a_server_may_end_its_direction_with_its_head() -> None:
    with before_server() as (lb, client, server, number):
        server.answer(number, b"", is_end=True)
        assert status_of(client.got()) == 101 and client.saw_fin
        client.send(b"more")
        client.fin()
        assert server.read() == [("data", number, b"more", False), ("data", number, b"", True)]
        assert lb.ends == ["ok"]


@pytest.mark.parametrize("status", [400, 403, 503])
def test_another_answer_is_passed_on(status: int) -> None:
    with before_server() as (lb, client, server, number):
        server.answer(number, b"no", status=status)
        answer = client.got()
        assert status_of(answer) == status and answer.endswith(b"\r\n2\r\nno\r\n0\r\n\r\n")
        assert server.read() == [("reset", number, NO_ERROR)]
        assert lb.ends == ["ok"] and lb.inflight == 0


def test_a_server_that_offers_none_is_named() -> None:
    with before_server(websocket=False) as (lb, client, server, _):
        assert server.read() == [] and status_of(client.got()) == 502
        assert lb.ends == ["no_websocket"] and lb.inflight == 0
        client = lb.connect()
        client.send(ASK)  # and now it is known
        answer = client.got()
        assert status_of(answer) == 502 and b"no extended CONNECT" in answer
        client.send(GET)
        assert len(server.ids()) == 1, "its connection serves others"


def test_one_that_leaves_before_the_settings_leaves_nothing() -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(ASK)
        server = H2Server(lb, lb.accept(), websocket=True)
        client.reset()
        server.greet()
        assert server.read() == [] and lb.ends == ["client_abort"] and lb.inflight == 0
        lb.runtimes[0].retire()
        lb.loop.run()


def test_one_that_dies_before_its_settings_is_a_failed_dial() -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(ASK)
        lb.accept().fin()
        assert status_of(client.got()) == 502 and lb.ends == ["closed_unsent"]


def test_a_server_that_says_nothing_is_given_up() -> None:
    with FakeLb(LIMITED.replace("tunnel: 5s", "connect: 3s, tunnel: 5s")) as lb:
        client = lb.connect()
        client.send(ASK)
        server = lb.accept()
        lb.advance(4.0)
        assert status_of(client.got()) == 504 and lb.ends == ["connect_timeout"]
        server.reset()


def test_other_requests_do_not_wait_for_a_tunnel() -> None:
    with FakeLb(config()) as lb:
        one, other = lb.connect(), lb.connect()
        one.send(ASK)
        other.send(GET)
        server = H2Server(lb, lb.accept(), websocket=True)
        [number] = server.ids()
        server.say()
        [tunnel] = server.ids()
        server.answer(number)
        assert status_of(other.got()) == 200 and tunnel > number
        one.reset()
        assert server.read() == [("reset", tunnel, CANCEL)]
        lb.runtimes[0].retire()
        lb.loop.run()


def test_tunnels_that_have_all_streams_make_another_connection() -> None:
    with FakeLb(config()) as lb:
        clients = [lb.connect() for _ in range(2)]
        for client in clients:
            client.send(ASK)
        server = H2Server(lb, lb.accept(), streams=1, websocket=True).greet()
        assert len(server.ids()) == 1
        another = H2Server(lb, lb.accept(), streams=1, websocket=True).greet()
        assert len(another.ids()) == 1
        for client in clients:
            client.reset()
        lb.runtimes[0].retire()
        lb.loop.run()


@pytest.mark.parametrize("key", [b"", b"Sec-WebSocket-Key: short\r\n"])
def test_a_client_without_a_good_key_is_told(key: bytes) -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(ASK.replace(b"Sec-WebSocket-Key: %b\r\n" % KEY, key))
        answer = client.got()
        assert status_of(answer) == 400 and b"Sec-WebSocket-Key" in answer and lb.ends == ["bad_request"]


def test_other_protocols_are_not_for_servers_of_http_2() -> None:
    with FakeLb(config().replace("pool: app}", "pool: app, upgrade: [irc]}")) as lb:
        client = lb.connect()
        client.send(UPGRADE.replace(b"websocket", b"irc"))
        server = H2Server(lb, lb.accept())
        [number] = server.ids()
        server.say()
        assert server.end.heads[0].method == b"GET"
        server.answer(number)
        assert status_of(client.got()) == 200
        lb.runtimes[0].retire()
        lb.loop.run()


def test_both_ends_may_speak_http_2() -> None:
    with FakeLb(config()) as lb:
        client = Connecting(lb)
        number = client.connect("sec-websocket-protocol: chat")
        server = H2Server(lb, lb.accept(), websocket=True).greet()
        [up] = server.ids()
        client.carry()
        server.answer(up, b"hello", lines=b"sec-websocket-protocol: chat\r\n", is_end=False)
        client.carry()
        answer = client.answer(number)
        assert (answer.status, answer.fields, answer.body) == (200, {"sec-websocket-protocol": "chat"}, b"hello")
        client.data(number, b"ping", is_end=True)
        assert server.read() == [("data", up, b"ping", False), ("data", up, b"", True)]
        server.more(up, b"pong", is_end=True)
        client.carry()
        assert client.answer(number).body == b"hellopong" and client.answer(number).is_whole
        assert lb.ends == ["ok"] and lb.log[0]["status"] == 200
        lb.runtimes[0].retire()
        lb.loop.run()


@pytest.mark.parametrize(
    ("end", "word"),
    [("client", "client_abort"), ("server", "reset"), ("connection", "reset"), ("silence", "tunnel_timeout")],
)
def test_a_cut_at_one_side_is_one_at_the_other(end: str, word: str) -> None:
    with before_server(LIMITED) as (lb, client, server, number):
        server.answer(number, b"", is_end=False)
        client.got()
        if end == "client":
            client.reset()
        elif end == "server":
            server.reset(number, INTERNAL_ERROR)
        elif end == "connection":
            server.peer.reset()
        else:
            lb.advance(6.0)
        assert lb.ends == [word] and lb.inflight == 0
        if end in ("client", "silence"):
            assert server.read() == [("reset", number, CANCEL)]
        if end != "client":
            assert client.saw_reset


def test_trailers_are_no_part_of_a_tunnel() -> None:
    with before_server() as (lb, client, server, number):
        server.answer(number, b"", is_end=False)
        server.end.send_trailers(number, b"a: b\r\n")
        server.say()
        assert client.saw_reset and lb.ends == ["reset"]
        assert server.read() == [("reset", number, PROTOCOL_ERROR)]


def test_a_client_that_does_not_read_holds_back_its_stream_only() -> None:
    with before_server() as (lb, client, server, number):
        server.answer(number, b"", is_end=False)
        client.stop_reading()
        sent = 0
        while taken := server.end.send_data(number, bytes(16_384), False):
            sent += taken
            server.say()
            server.read()
        assert sent <= 1 << 19
        other = lb.connect()
        other.send(GET)
        [second] = server.ids()
        server.answer(second)
        assert status_of(other.got()) == 200
        client.read_again()
        server.read()
        assert server.end.sendable(number) > 0
        client.reset()
        server.read()


def test_a_server_that_takes_nothing_holds_back_its_client() -> None:
    with before_server() as (_, client, server, number):
        server.answer(number, b"", is_end=False)
        client.send(bytes(65_535), bytes(100_000))
        assert client.transport.is_paused
        seen = server.read()
        assert sum(len(entry[2]) for entry in seen) == 65_535  # type: ignore[arg-type, misc]
        server.end.consumed(number, 65_535)
        server.say()
        server.read()
        server.end.consumed(number, 65_535)
        server.say()
        assert not client.transport.is_paused
        client.reset()


# --- a server that may choose (`protocol: auto`) and opens none in HTTP/2 ---------------------------------------------

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % ACCEPT
)


@contextmanager
def before_choice() -> Iterator[tuple[FakeLb, Peer]]:
    """A client, and a server that a moment ago chose HTTP/2, with a request that it has answered."""
    with FakeLb(config()) as lb:
        endpoint = lb.runtimes[0].endpoint
        assert isinstance(endpoint, Http2Endpoint)
        endpoint._is_auto = True
        client = lb.connect()
        yield lb, client
        for connection in list(lb.services.swept):
            connection.shut_down()
        lb.runtimes[0].retire()
        lb.loop.run()


def test_it_gets_a_connection_of_http_1() -> None:
    with before_choice() as (lb, client):
        client.send(ASK)
        http2 = H2Server(lb, lb.accept())
        assert http2.read() == []
        http2.say()
        assert http2.read() == []
        server = lb.accept()
        head = server.got()
        assert head.startswith(b"GET /chat?x=1 HTTP/1.1\r\n") and b"Sec-WebSocket-Key: %b\r\n" % KEY in head
        server.send(SWITCHING + b"first")
        assert status_of(answer := client.got()) == 101 and answer.endswith(b"first")
        other = lb.connect()
        other.send(GET)
        assert http2.ids() == [1], "requests go on in HTTP/2"
        http2.answer(1)
        assert status_of(other.got()) == 200
        third = lb.connect()
        third.send(ASK)
        lb.accept().send(SWITCHING)  # it is known by now
        assert status_of(third.got()) == 101
        assert lb.of_servers("upstream_connects_total", "ok") == 3


def test_one_that_was_refused_leaves_its_connection_to_the_next() -> None:
    with before_choice() as (lb, client):
        client.send(ASK)
        http2 = H2Server(lb, lb.accept()).greet()
        assert http2.read() == []
        server = lb.accept()
        assert server.got()
        server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert status_of(client.got()) == 403 and lb.n_idle == 1
        client.send(ASK)
        assert server.got().startswith(b"GET /chat?x=1 HTTP/1.1\r\n") and not lb.loop.dials
        server.send(SWITCHING)
        assert status_of(client.got()) == 101


@pytest.mark.parametrize("how", ["client", "refused", "late"])
def test_ends_while_it_is_dialled(how: str) -> None:
    with before_choice() as (lb, client):
        client.send(ASK)
        H2Server(lb, lb.accept()).greet()
        assert len(lb.loop.dials) == 1
        if how == "client":
            client.reset()
            assert lb.ends == ["client_abort"] and not lb.loop.dials
        elif how == "refused":
            lb.refuse()
            assert lb.ends == ["no_server"], "the only one is down"
        else:
            lb.advance(30.0)
            assert lb.ends == ["connect_timeout"] and not lb.loop.dials
        assert lb.inflight == 0
