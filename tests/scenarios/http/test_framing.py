"""Where one message ends and the next begins: upgrades, downgrades, trailers, smuggling, forged fields."""

from __future__ import annotations

import threading

import pytest

from tests.support.client import each_byte, receive
from tests.support.origin import Peer, steps
from tests.support.rig import Rig, get
from tests.support.waiting import wait_until

OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


# --- upgrades ---


def test_frames_sent_with_the_upgrade_arrive_once_and_in_order(rig: Rig) -> None:
    heard: list[bytes] = []

    def switches(c: Peer) -> None:
        request = c.read_request()
        assert request.get("upgrade") == "websocket"
        c.send(SWITCHING + b"early-down ")
        heard.append(c.stream.take(len(b"early-up late-up")))
        c.send(b"late-down")
        heard.append(c.stream.read_to_end())
        c.send(b" bye")

    rig.a.script(switches)
    with rig.client() as client:
        client.send(get("/row-28", *UPGRADE) + b"early-up ")
        answer = client.response()
        assert (answer.status, answer.get("upgrade")) == (101, "websocket")
        client.send(*each_byte(b"late-up"))
        assert client.take(len(b"early-down late-down")) == b"early-down late-down"
        client.finish_writing()
        assert client.read_to_end() == b" bye"
        assert client.end == "fin"
    assert heard == [b"early-up late-up", b""]
    entry = rig.log("/row-28")
    assert (entry["status"], entry["end"]) == (101, "ok")


def test_nothing_is_passed_raw_before_the_101(rig: Rig) -> None:
    asked = threading.Event()

    def waits(c: Peer) -> None:
        c.read_request()
        c.wait(asked)
        assert c.received.endswith(b"\r\n\r\n"), "bytes behind the upgrade went up before it was granted"
        c.send(SWITCHING)
        c.send(c.stream.take(5))

    rig.a.script(waits)
    with rig.client() as client:
        client.send(get("/row-28-wait", *UPGRADE) + b"hello")
        wait_until(lambda: rig.a.requests, "the request to reach the server")
        asked.set()
        assert client.response().status == 101
        assert client.read_to_end() == b"hello"


def test_refused_upgrade_leaves_http(rig: Rig) -> None:
    rig.a.script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"))
    with rig.client() as client:
        client.send(get("/row-29", *UPGRADE) + get("/behind"))
        assert client.response().body == b"no"
        assert client.response().body == b"GET /behind 0\n"
    assert rig.requests == [("GET", "/row-29"), ("GET", "/behind")]


def test_bytes_behind_a_refused_upgrade_are_not_passed_raw(rig: Rig) -> None:
    rig.a.script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"))
    with rig.client() as client:
        client.send(get("/row-29-raw", *UPGRADE) + b"\x81\x85\x00\x00\x00\x00hello\r\n\r\n")
        exchange = receive(client, None)
    assert exchange.statuses[0] == 200
    assert exchange.statuses[1:] in ([400], [501], [])
    assert b"hello" not in b"".join(peer.received for peer in rig.a.peers)


# --- downgrade and trailers ---


def test_chunked_answer_to_an_http_1_0_client(rig: Rig) -> None:
    rig.a.script(steps(OK_CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"))
    with rig.client() as client:
        answer = client.ask(get("/row-51", version="1.0"))
        assert (answer.body, answer.framing) == (b"hello world", "close")
        assert not answer.all("transfer-encoding")
        assert client.end == "fin"


TRAILERS = (
    b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nSet-Cookie: evil=1\r\nHost: x\r\nAuthorization: x\r\n\r\n"
)


@pytest.mark.parametrize("wanted", [False, True])
def test_response_trailers(rig: Rig, wanted: bool) -> None:
    """Dropped, or passed on to a client that asked for them; never names that mean something before the body."""
    rig.a.script(steps(OK_CHUNKED + TRAILERS))
    with rig.client() as client:
        answer = client.ask(get("/row-52", *(["Connection: TE", "TE: trailers"] if wanted else [])))
        assert (answer.status, answer.body) == (200, b"hello")
        assert {name for name, _ in answer.trailers} <= ({"x-sum"} if wanted else set())
        assert not answer.all("set-cookie") and not answer.all("x-sum")


def test_request_trailers(rig: Rig) -> None:
    with rig.client() as client:
        answer = client.ask(
            b"POST /row-52-up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: x\r\n\r\n"
        )
        assert answer.status == 200
    (request,) = rig.a.requests
    assert request.body == b"hello"
    assert {name for name, _ in request.trailers} <= {"x-sum"}
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    assert not request.all("x-sum") and not request.all("authorization")


# --- two lengths and a request hidden behind them ---

CHUNKED = "Transfer-Encoding: chunked\r\n"
CONFLICTS = {
    "length then chunked": f"Content-Length: 5\r\n{CHUNKED}",
    "chunked then length": f"{CHUNKED}Content-Length: 5\r\n",
    "zero length and chunked": f"Content-Length: 0\r\n{CHUNKED}",
    "two lengths": "Content-Length: 0\r\nContent-Length: 5\r\n",
    "length list": "Content-Length: 0, 5\r\n",
    "chunked twice": CHUNKED * 2,
    "chunked and identity": f"{CHUNKED}Transfer-Encoding: identity\r\n",
    "identity and chunked": f"Transfer-Encoding: identity\r\n{CHUNKED}",
    "masked by a space": "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
    "masked by a tab": "Content-Length: 5\r\nTransfer-Encoding:\tchunked\x0b\r\n",
    "masked by a fold": "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n",
    "masked by CR": f"Content-Length: 5\r\nX: y\r{CHUNKED}",
    "masked by LF": f"Content-Length: 5\r\nX: y\n{CHUNKED}",
    "masked by NUL": "Content-Length: 5\r\nTransfer-Encoding: chunked\x00\r\n",
    "length with a sign": "Content-Length: +5\r\n",
    "length in hex": "Content-Length: 0x5\r\n",
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_conflicting_lengths(rig: Rig, name: str) -> None:
    with rig.client() as client:
        client.send(f"POST /row-69 HTTP/1.1\r\nHost: a\r\n{CONFLICTS[name]}\r\n0\r\n\r\n".encode("latin-1") + SMUGGLED)
        exchange = receive(client, None)
    assert exchange.end == "fin"
    assert exchange.statuses in ([400], [501])
    assert rig.a.peers == [], "a byte of it went upstream"


# --- forged fields ---

FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil",
    "X-Forwarded-Port": "666",
    "X-Request-ID": "forged",
    "Forwarded": "for=6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "X-Client-Cert-Subject": "CN=evil",
}


@pytest.mark.parametrize("nominated", [False, True])
def test_forged_forwarding_fields(rig: Rig, nominated: bool) -> None:
    lines = [f"{name}: {value}" for name, value in FORGED.items()]
    lines += [f"{name.replace('-', '_')}: {value}" for name, value in FORGED.items() if "-" in name]
    if nominated:
        lines.append("Connection: " + ", ".join(FORGED))
    with rig.client() as client:
        answer = client.ask(get("/row-71", *lines))
        assert answer.status == 200
    (request,) = rig.a.requests
    assert not [name for name, _ in request.fields if "_" in name]
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "a"
    assert request.get("x-forwarded-port") == "80"  # as the client sees it: Host has none
    for name in ("forwarded", "x-real-ip", "x-client-cert-subject"):
        assert request.get(name) is None
    request_id = request.get("x-request-id") or ""
    assert len(request_id) == 32 and set(request_id) <= set("0123456789abcdef")
    assert answer.get("x-request-id") == request_id
    assert rig.log("/row-71")["request_id"] == request_id


def test_an_error_names_its_request(rig: Rig) -> None:
    rig.a.script(steps(b"garbage\r\n\r\n"))
    with rig.client() as client:
        answer = client.ask(get("/problem"))
    assert answer.get("content-type") == "application/problem+json"
    assert "lbproxy" in (answer.get("proxy-status") or "")
    assert str(rig.log("/problem")["request_id"]).encode() in answer.body
    assert b'"status":502' in answer.body.replace(b" ", b"")


def test_an_error_answer_to_head_has_no_body(rig: Rig) -> None:
    rig.a.script(steps(b"garbage\r\n\r\n"))
    with rig.client() as client:
        answer = client.ask(b"HEAD /problem-head HTTP/1.1\r\nHost: a\r\n\r\n", is_head=True)
        assert (answer.status, answer.body) == (502, b"")
        if answer.is_kept_alive:
            assert client.ask(get("/after")).body == b"GET /after 0\n"
