"""Upgrade to protocols other than WebSocket (RFC 9110 section 7.8): what is offered, what may be chosen, the tunnel."""

from __future__ import annotations

import pytest

from tests.support.client import each_byte, receive
from tests.support.origin import Peer, steps
from tests.support.rig import Rig, get, post
from tests.support.wire import Request

OFFER = ("Connection: Upgrade", "Upgrade: IRC/6.9, websocket, h2c, chat/2, chat/3")


def switching(protocol: str) -> bytes:
    return f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()


@pytest.mark.parametrize("chosen", ["IRC/6.9", "irc/6.9", "chat/2"])
def test_a_made_up_protocol_gets_a_tunnel(rig: Rig, chosen: str) -> None:
    seen: list[Request] = []
    heard: list[bytes] = []

    def talks(c: Peer) -> None:
        seen.append(c.read_request())
        c.send(switching(chosen) + b"NOTICE early\r\n")
        heard.append(c.stream.take(18))
        c.send(b"PONG\x00\xff\r\n\r\n")
        heard.append(c.stream.read_to_end())
        c.send(b"bye")

    rig.a.script(talks)
    with rig.client("upgrade") as client:
        client.send(get("/chat", *OFFER) + b"NICK early\r\n")
        answer = client.response()
        assert (answer.status, answer.get("connection")) == (101, "Upgrade")
        assert (answer.get("upgrade") or "").lower() == chosen.lower()
        assert client.take(14) == b"NOTICE early\r\n"
        client.send(*each_byte(b"PING\r\n"))
        assert client.take(10) == b"PONG\x00\xff\r\n\r\n"
        client.send(get("/not-a-request"))
        client.finish_writing()
        assert client.read_to_end() == b"bye"
        assert client.end == "fin"
    assert seen[0].get("upgrade") == "IRC/6.9, chat/2"
    assert seen[0].get("connection") == "Upgrade"
    assert heard == [b"NICK early\r\nPING\r\n", get("/not-a-request")]
    entry = rig.log("/chat")
    assert (entry["status"], entry["end"]) == (101, "ok")
    assert len(rig.a.peers) == 1 and len(rig.a.requests) == 1


@pytest.mark.parametrize("chosen", ["websocket", "h2c", "chat/3", "chat", "irc", "irc/6.9, h2c", "new", ""])
def test_a_101_to_what_was_not_offered_is_502(rig: Rig, chosen: str) -> None:
    rig.a.script(steps(switching(chosen) + b"raw bytes"))
    with rig.client("upgrade") as client:
        assert client.ask(get("/wrong", *OFFER)).status == 502
        assert client.ask(get("/after")).body == b"GET /after 0\n"
        assert b"raw bytes" not in client.stream.record
    assert rig.log("/wrong")["end"] == "bad_upgrade"
    assert rig.a.peers[0].closed.wait(60) and rig.a.peers[0].end == "rst"


def test_a_declined_upgrade_is_an_ordinary_request(rig: Rig) -> None:
    with rig.client("upgrade") as client:
        client.send(get("/declined", *OFFER) + get("/behind"))
        assert client.response().body == b"GET /declined 0\n"
        assert client.response().body == b"GET /behind 0\n"
    assert rig.a.requests[0].get("upgrade") == "IRC/6.9, chat/2"
    assert rig.a.requests[1].get("upgrade") is None


@pytest.mark.parametrize(
    ("listener", "fields"),
    [
        ("upgrade", ("Connection: Upgrade", "Upgrade: websocket, h2c, chat/3")),
        ("upgrade", ("Upgrade: irc/6.9",)),
        ("upgrade", ("Connection: Upgrade", "Upgrade: irc /6.9, i\xe9c, irc/, /6.9")),
        ("no-upgrade", ("Connection: Upgrade", "Upgrade: websocket")),
        ("solo", ("Connection: Upgrade", "Upgrade: irc/6.9")),
    ],
)
def test_what_is_not_allowed_is_taken_out(rig: Rig, listener: str, fields: tuple[str, ...]) -> None:
    rig.a.script(steps(switching("irc/6.9")))
    with rig.client(listener) as client:
        assert client.ask(get("/taken-out", *fields)).status == 502
    assert not rig.a.requests[0].all("upgrade") and not rig.a.requests[0].all("connection")


@pytest.mark.parametrize(
    "framing", ["Content-Length: {}\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n"]
)
def test_an_upgrade_with_a_body_is_a_plain_request(rig: Rig, framing: str) -> None:
    body = get("/smuggled").decode()
    head = "POST /body HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: irc/6.9\r\n"
    with rig.client("upgrade") as client:
        client.send((head + framing.format(len(body), body)).encode() + post("/behind"))
        exchange = receive(client, 2)
    assert exchange.statuses == [200, 200]
    assert rig.requests == [("POST", "/body"), ("POST", "/behind")]
    assert rig.a.requests[0].body == body.encode()
    assert not rig.a.requests[0].all("upgrade")


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_of_one_side_is_a_reset_for_the_other(rig: Rig, who: str) -> None:
    def talks(c: Peer) -> None:
        c.read_request()
        c.send(switching("chat/2"))
        c.stream.take(2)
        if who == "server":
            c.reset()
        else:
            c.send(b"ok")
            c.read_to_end()

    rig.a.script(talks)
    with rig.client("upgrade") as client:
        assert client.ask(get("/reset", *OFFER)).status == 101
        client.send(b"hi")
        if who == "client":
            assert client.take(2) == b"ok"
            client.reset()
            assert rig.a.peers[0].closed.wait(60) and rig.a.peers[0].end == "rst"
        else:
            client.read_to_end()
            assert client.end == "rst"
