"""WebSockets over HTTP/2 (RFC 8441), from clients, to servers of HTTP/1.1."""

from __future__ import annotations

import gc

import pytest

from lbproxy.dataplane.client.http2_stream import Http2Stream
from lbproxy.dataplane.client.http2_tunnel import ConnectStream
from lbproxy.protocol.h2.codes import CANCEL, ENABLE_CONNECT_PROTOCOL, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import FakeLb, Peer, ok
from tests.support.websocket_h2 import Connecting, key_in, opened, switching_for
from tests.unit.dataplane.client.helpers import connection_of

CONFIG = """
access_log: {{path: /dev/null}}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  timeouts: {{request_head: 2s, request_body: 3s, keep_alive: 40s, write: 5s}}
  upgrade: {upgrade}
  limits: {{h2: {{resets: 3 in 10s}}}}
  routes:
  - {{match: {{path: /here}}, respond: {{status: 200, body: here}}}}
  - {{match: {{path: /gone}}, redirect: {{status: 301, location: /there}}}}
  - {{match: {{path_prefix: /plain}}, pool: app, upgrade: off}}
  - {{match: {{path_prefix: /}}, pool: app}}
pools:
  app:
    servers: ["127.0.0.1:9001"]
    health_check: off
    retry: {{attempts: 0}}
    timeouts: {{response_head: 2s, tunnel: 5s, half_closed: 2s, write: 4s}}
"""
ON = CONFIG.format(upgrade="[websocket]")


def streams_of(lb: FakeLb) -> list[Http2Stream]:
    return list(connection_of(lb)._streams.values())


def setting(client: Connecting) -> bool:
    return client.end.peer.enable_connect_protocol


def test_it_is_offered_where_a_route_lets_websockets_through() -> None:
    assert ENABLE_CONNECT_PROTOCOL == 8
    with FakeLb(ON) as lb:
        assert setting(Connecting(lb))
    with FakeLb(CONFIG.format(upgrade="off")) as lb:
        assert not setting(Connecting(lb))


def test_a_server_gets_an_upgrade_and_bytes_go_both_ways() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect("sec-websocket-protocol: chat", "sec-websocket-key: mine", "origin: http://h")
        server = lb.accept()
        head = server.got()
        assert head.startswith(b"GET /chat HTTP/1.1\r\nHost: h\r\n")
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert head.lower().count(b"sec-websocket-key: ") == 1 and key_in(head) != b"mine"
        assert b"sec-websocket-protocol: chat\r\n" in head and b"origin: http://h\r\n" in head
        assert b"Via: 2 lbproxy\r\n" in head and b"Transfer-Encoding" not in head
        server.send(switching_for(head, b"Sec-WebSocket-Protocol: chat") + b"first")
        client.carry()
        answer = client.answer(number)
        assert (answer.status, answer.fields) == (200, {"sec-websocket-protocol": "chat"})
        assert answer.body == b"first"
        client.data(number, b"ping")
        assert server.got() == b"ping"
        server.send(b"pong")
        assert client.got(number) == b"firstpong"
        assert lb.inflight == 1 and lb.ends == []
        client.end_it(number)
        assert server.saw_fin and server.is_open
        server.send(b"rest")
        server.fin()
        client.carry()
        answer = client.answer(number)
        assert answer.body == b"firstpongrest" and answer.is_whole and answer.reset is None
        [line] = lb.log
        assert (line["method"], line["protocol"], line["status"], line["end"]) == ("GET", "HTTP/2", 200, "ok")
        assert (line["bytes_in"], line["bytes_out"]) == (4, 13)
        assert lb.inflight == 0 and client.peer.is_open and not client.end.has_stream(number)


def test_a_server_may_end_its_direction_first() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        server.fin()
        client.carry()
        assert client.answer(number).is_whole
        client.data(number, b"more")
        assert server.got() == b"more"
        client.end_it(number)
        assert lb.ends == ["ok"] and client.answer(number).reset is None


def test_each_request_has_a_key_of_its_own() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        keys = set()
        for _ in range(3):
            number = client.connect()
            server = lb.accept()
            keys.add(key_in(server.got()))
            client.cancel(number)
        assert len(keys) == 3


def test_what_comes_early_is_kept_with_its_end() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect(turns=False)
        client.end.send_data(number, b"ear", False)
        client.end.send_data(number, b"ly", True)
        client.carry()
        server = lb.accept()
        head = server.got()
        assert head.endswith(b"\r\n\r\n") and not server.saw_fin
        assert sum(item.buffered_bytes() for item in lb.services.swept) == 5
        server.send(switching_for(head))
        assert server.got() == b"early" and server.saw_fin
        server.fin()
        client.carry()
        assert client.answer(number).is_whole and lb.ends == ["ok"]


def test_no_more_than_a_window_comes_early() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect()
        server = lb.accept()
        head = server.got()
        sent = 0
        while taken := client.data(number, bytes(16_384)):
            sent += taken
        assert sent <= 256 * 1024
        server.send(switching_for(head))
        client.carry()
        assert len(server.got()) == sent
        assert client.data(number, bytes(16_384)) == 16_384, "the credit is back"
        client.cancel(number)


@pytest.mark.parametrize("is_whole", [True, False])
def test_another_answer_is_passed_on(is_whole: bool) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect(is_end=is_whole)
        server = lb.accept()
        server.got()
        server.send(ok(b"no", status="403 Forbidden"))
        client.carry()
        answer = client.answer(number)
        assert (answer.status, answer.body, answer.is_whole) == (403, b"no", True)
        assert answer.reset == (None if is_whole else NO_ERROR)
        assert lb.ends == ["ok"] and lb.log[0]["status"] == 403
        assert not client.end.has_stream(number)


@pytest.mark.parametrize("answer", [ok(b"hi"), b"HTTP/1.1 200 OK\r\n\r\nhi", ok(b"", status="204 No Content")])
def test_a_2xx_without_a_switch_opens_nothing(answer: bytes) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect()
        server = lb.accept()
        server.got()
        server.send(answer)
        client.carry()
        assert client.answer(number).status == 502 and lb.ends == ["no_websocket"]
        assert lb.inflight == 0


@pytest.mark.parametrize("wrong", ["none", "other", "protocol"])
def test_a_101_that_does_not_answer_is_an_error(wrong: str) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect()
        server = lb.accept()
        said = switching_for(server.got())
        if wrong == "none":
            said = said.replace(b"Sec-WebSocket-Accept", b"X-Accept")
        elif wrong == "other":
            said = said.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: A")
        else:
            said = said.replace(b"Upgrade: websocket", b"Upgrade: irc")
        server.send(said)
        client.carry()
        assert client.answer(number).status == 502 and lb.ends == ["bad_upgrade"]
        assert server.saw_reset


@pytest.mark.parametrize(
    ("path", "protocol", "status", "end"),
    [
        ("/chat", "webtransport", 501, "connect_protocol"),
        ("/chat", "connect-udp", 501, "connect_protocol"),
        ("/plain", "websocket", 501, "connect_protocol"),
        ("/here", "websocket", 501, "connect_protocol"),
        ("/gone", "websocket", 301, "ok"),
    ],
)
def test_what_opens_no_tunnel(path: str, protocol: str, status: int, end: str) -> None:
    """No 2xx in any case: it would be taken for a tunnel."""
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect(path=path, protocol=protocol)
        answer = client.answer(number)
        assert (answer.status, answer.is_whole, answer.reset) == (status, True, NO_ERROR)
        assert lb.ends == [end] and not lb.loop.dials


@pytest.mark.parametrize("phase", ["asked", "tunnel"])
def test_a_client_that_resets_is_gone_at_its_server(phase: str) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number = client.connect()
        server = lb.accept()
        head = server.got()
        if phase == "tunnel":
            server.send(switching_for(head))
            client.carry()
        client.cancel(number)
        assert server.saw_reset and lb.ends == ["client_abort"] and client.peer.is_open
        where = "waiting" if phase == "asked" else "tunnel"
        assert lb.of_pool("client_aborts_total", where) == 1


@pytest.mark.parametrize("end", ["reset", "fin"])
def test_a_client_whose_connection_ends_is_gone(end: str) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        _, server = opened(lb, client)
        getattr(client.peer, end)()
        assert server.saw_reset and lb.ends == ["client_abort"]


def test_a_server_that_resets_is_a_cancelled_stream() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        server.reset()
        client.carry()
        assert client.answer(number).reset == CANCEL and lb.ends == ["reset"] and client.peer.is_open


def test_trailers_are_no_part_of_a_tunnel() -> None:
    """RFC 9113 section 8.5. It counts as a reset that the client has provoked."""
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        for _ in range(3):
            number, server = opened(lb, client)
            client.trailers(number, b"a: b\r\n")
            assert client.answer(number).reset == PROTOCOL_ERROR and server.saw_reset
        assert lb.ends == ["malformed_stream"] * 3


@pytest.mark.parametrize(("half", "after"), [(False, 5.0), (True, 2.0)])
def test_silence_is_bounded(half: bool, after: float) -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        if half:
            server.fin()
            client.carry()
        lb.advance(after - 0.5)
        assert lb.ends == []
        lb.advance(1.0)
        client.carry()
        assert lb.ends == ["tunnel_timeout"] and client.answer(number).reset == CANCEL
        assert client.peer.is_open


def test_a_server_that_does_not_read_holds_back_its_stream_and_no_other() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        server.stop_reading()
        sent = 0
        for _ in range(200):
            taken = client.data(number, bytes(16_384))
            if not taken:
                break
            sent += taken
        assert 256 * 1024 <= sent <= 1024 * 1024
        assert client.answer(client.begin(path="/here")).status == 200
        server.read_again()
        client.carry()
        assert client.data(number, bytes(16_384)) == 16_384
        client.cancel(number)


def test_a_client_that_does_not_read_holds_back_its_server() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb, OwnSettings(stream_window=65_535), gives_back=False)
        number, server = opened(lb, client)
        server.send(bytes(65_535), bytes(100_000))
        assert server.transport.is_paused
        client.carry()
        client.take(number, 65_535)
        client.take(number, 65_535)
        assert not server.transport.is_paused
        client.take(number, 65_535)
        assert len(client.answer(number).body) == 165_535
        client.cancel(number)


def test_a_client_that_takes_nothing_is_cut() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb, OwnSettings(stream_window=65_535), gives_back=False)
        number, server = opened(lb, client)
        server.send(bytes(100_000))
        client.carry()
        lb.advance(6.0)
        client.carry()
        assert lb.ends == ["client_write_timeout"] and client.answer(number).reset == CANCEL and server.saw_reset


def test_a_stop_lets_it_go_on_and_the_end_of_grace_cuts_it() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        connection_of(lb).begin_drain(lb.clock())
        client.carry()
        assert client.goaways
        lb.advance(1.5)
        client.data(number, b"still")
        assert server.got() == b"still" and lb.ends == []
        for item in list(lb.services.swept):
            item.shut_down()
        client.carry()
        assert lb.ends == ["shutdown"] and client.answer(number).reset == CANCEL and server.saw_reset
        assert lb.services.n_cut == 1


def test_a_defect_ends_this_tunnel_only() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        number, server = opened(lb, client)
        [stream] = streams_of(lb)
        stream.broke(RuntimeError("a defect"))
        del stream
        client.carry()
        assert lb.ends == ["internal_error"] and client.answer(number).reset in (CANCEL, INTERNAL_ERROR)
        assert server.saw_reset and client.answer(client.begin(path="/here")).status == 200
        lb.services.row[PROCESS.column("internal_errors_total")] = 0


def test_nothing_waits_for_the_collector() -> None:
    with FakeLb(ON) as lb:
        client = Connecting(lb)
        gc.collect()
        gc.disable()
        try:
            for end in ("orderly", "reset", "refused"):
                number = client.connect()
                server: Peer = lb.accept()
                head = server.got()
                if end == "refused":
                    server.send(ok(status="403 Forbidden"))
                else:
                    server.send(switching_for(head))
                    client.carry()
                    if end == "orderly":
                        client.end_it(number)
                        server.fin()
                    else:
                        client.cancel(number)
                client.carry()
            del server
            lb.advance(1.0)
            assert [item for item in gc.get_objects() if type(item) is ConnectStream] == []
        finally:
            gc.enable()
