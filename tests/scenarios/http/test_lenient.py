"""Servers and clients that are not quite HTTP: what is read, by which pools, and what HAProxy and NGINX make of it.

Each leniency stands in ANSWERS or REQUESTS with what the peers do; a test runs them, so that the table is not hearsay.
What comes out towards the other side is always strict, and a message that is hidden behind the odd one is nobody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import peers
from tests.support.client import Client, each_byte
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, steps
from tests.support.rig import get
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Ended, WireError

SHORT_S = 1.0  # for how long a peer is asked that will not answer
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: 5\r\n\r\nhello"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@dataclass(frozen=True)
class Odd:
    """An answer, or a request; the status that a client gets from each, 0 where it gets none.

    nginx 1.22 waits for more where it does not take a status line. keeps: may the connection be used again?
    """

    data: bytes
    haproxy: int
    nginx: int
    strict: int
    lenient: int
    keeps: bool = True


ANSWERS = {
    # Chunk sizes. White space behind one ends nothing; inside of it nginx stops reading and takes `0 5` for the end of
    # the body, so that what follows would be the next answer.
    "spaces behind a size": Odd(CHUNKED + b"5  \r\nhello\r\n0 \r\n\r\n", 200, 200, 200, 200),
    "tab behind a size": Odd(CHUNKED + b"5\t\r\nhello\r\n0\t\r\n\r\n", 200, 200, 200, 200),
    "space inside a size": Odd(CHUNKED + b"0 5\r\nhello\r\n0\r\n\r\n", 502, 200, 502, 502),
    "space before a size": Odd(CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", 502, 0, 502, 502),
    "empty extension": Odd(CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n", 200, 200, 502, 200),
    "odd extension": Odd(CHUNKED + b"5;a b=@\r\nhello\r\n0\r\n\r\n", 200, 200, 502, 200),
    # A bare LF in the coding has let readers lose each other (`2;\n`); nginx refuses it since 1.29.4.
    "bare LF in chunks": Odd(CHUNKED + b"5\nhello\n0\n\n", 200, 200, 502, 502),
    # The status line.
    "status 600": Odd(b"HTTP/1.1 600 Odd\r\n" + LENGTH, 600, 600, 600, 600),
    "status 999": Odd(b"HTTP/1.1 999 Odd\r\n" + LENGTH, 999, 999, 999, 999),
    "status of four digits": Odd(b"HTTP/1.1 2000 Odd\r\n" + LENGTH, 2000, 0, 502, 502),
    "no reason": Odd(b"HTTP/1.1 200 \r\n" + LENGTH, 200, 200, 200, 200),
    "no space behind the code": Odd(b"HTTP/1.1 200\r\n" + LENGTH, 200, 200, 200, 200),
    "two spaces": Odd(b"HTTP/1.1  200 OK\r\n" + LENGTH, 200, 200, 502, 200),
    "tab behind the code": Odd(b"HTTP/1.1 200\tOK\r\n" + LENGTH, 200, 0, 502, 200),
    "later minor version": Odd(b"HTTP/1.2 200 OK\r\n" + LENGTH, 200, 200, 200, 200),
    "an empty line first": Odd(b"\r\n" + OK + LENGTH, 200, 0, 502, 502),
    # Framing. Equal lengths have one reading (RFC 9110 section 8.6 names it); different ones are an attack.
    "two equal lengths": Odd(OK + b"Content-Length: 5\r\n" + LENGTH, 200, 200, 200, 200),
    "list of equal lengths": Odd(OK + b"Content-Length: 5, 5\r\n\r\nhello", 200, 0, 200, 200),
    "two lengths": Odd(OK + b"Content-Length: 6\r\n" + LENGTH, 502, 200, 502, 502),
    "length as 5 and 05": Odd(OK + b"Content-Length: 05\r\n" + LENGTH, 200, 200, 502, 502),
    "length and chunked": Odd(
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200, 200, 502, 200, keeps=False,
    ),
    "chunked twice": Odd(
        OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n5\r\nhello\r\n0\r\n\r\n", 502, 200, 502, 502
    ),
    "chunked and white space": Odd(
        OK + b"Transfer-Encoding:  chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, 200, 200, 200
    ),
    "chunked in a list": Odd(
        OK + b"Transfer-Encoding: , chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 502, 200, 502, 502
    ),
    # RFC 9112 section 6.1: read it and close. haproxy passes it on as HTTP/1.0, which its client cannot read.
    "chunked from HTTP/1.0": Odd(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200, 200, 200, 200, keeps=False,
    ),
    # Lines. In a head whose lines end in CR LF a lone LF is what a value with a line break in it looks like.
    "bare LF lines": Odd(b"HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello", 200, 200, 502, 200),
    "one bare LF": Odd(OK + b"X: y\nSet-Cookie: evil=1\r\n" + LENGTH, 200, 200, 502, 502),
    "blank line is a bare LF": Odd(OK + b"Content-Length: 5\r\n\nhello", 200, 200, 502, 502),
    "bare CR": Odd(OK + b"X: y\rSet-Cookie: evil=1\r\n" + LENGTH, 502, 502, 502, 502),
    "folded value": Odd(OK + b"X: y\r\n z\r\n" + LENGTH, 200, 502, 502, 200),
    "folded length": Odd(OK + b"Content-Length:\r\n 5\r\n\r\nhello", 200, 502, 502, 502),
    "folded first line": Odd(OK + b" X: y\r\n" + LENGTH, 502, 502, 502, 502),
    "space before the colon": Odd(OK + b"X : y\r\n" + LENGTH, 502, 502, 502, 200),
    "no colon": Odd(OK + b"bad\r\n" + LENGTH, 502, 200, 502, 502),
    "no name": Odd(OK + b": y\r\n" + LENGTH, 502, 502, 502, 502),
    "name that is no token": Odd(OK + b"X(Y): z\r\n" + LENGTH, 502, 200, 502, 502),
    "control character": Odd(OK + b"X: a\x1bz\r\n" + LENGTH, 200, 200, 502, 200),
    "NUL": Odd(OK + b"X: a\x00z\r\n" + LENGTH, 200, 502, 502, 502),
}  # fmt: skip

POST = b"POST /q HTTP/1.1\r\nHost: a\r\n"
GO = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REQUESTS = {
    "spaces behind a size": Odd(GO + b"5  \r\nhello\r\n0 \r\n\r\n", 200, 200, 200, 200),
    "tab behind a size": Odd(GO + b"5\t\r\nhello\r\n0\t\r\n\r\n", 200, 200, 200, 200),
    "space behind an extension": Odd(GO + b"5 ; a = b \r\nhello\r\n0\r\n\r\n", 200, 200, 200, 200),
    "space inside a size": Odd(GO + b"0 5\r\nhello\r\n0\r\n\r\n", 400, 200, 400, 400),
    "space before a size": Odd(GO + b" 5\r\nhello\r\n0\r\n\r\n", 400, 400, 400, 400),
    # A lenient pool is lenient to its servers, never to clients.
    "empty extension": Odd(GO + b"5;\r\nhello\r\n0\r\n\r\n", 200, 200, 400, 400),
    "white space around chunked": Odd(
        POST + b"Transfer-Encoding:  chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, 501, 200, 200
    ),
    "VT before chunked": Odd(
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, 501, 400, 400
    ),
    # haproxy passes the comma on, and the server here refuses it: 502. Whoever reads it as no coding would take the
    # body for the next request.
    "comma behind chunked": Odd(
        POST + b"Transfer-Encoding: chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 502, 501, 400, 400
    ),
    "white space around a length": Odd(POST + b"Content-Length: \t 5 \t\r\n\r\nhello", 200, 400, 200, 200),
    "two equal lengths": Odd(POST + b"Content-Length: 5\r\n" + LENGTH, 200, 400, 400, 400),
    "bare LF lines": Odd(b"POST /q HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello", 200, 200, 400, 400),
    "white space around an expectation": Odd(POST + b"Expect: \t100-continue \r\n" + LENGTH, 200, 200, 200, 200),
    "white space around a host": Odd(
        b"POST /q HTTP/1.1\r\nHost: \t a \t\r\n" + LENGTH, 200, 400, 200, 200
    ),
}  # fmt: skip


@dataclass
class Stage:
    """One server behind lbproxy (a strict pool and a lenient one), HAProxy and NGINX."""

    origin: Origin
    lb: LbProxy
    ports: dict[str, int]

    def reset(self) -> None:
        """No connection is left from before."""
        self.origin.reset()
        wait_until(lambda: not self.lb.metric("upstream_connections"), "kept connections to be closed")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("lenient")
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin())
        pool: dict[str, object] = {"servers": [origin.address], "health_check": "off", "circuit_breaker": "off"}
        listeners: list[dict[str, object]] = [
            {"name": name, "bind": "127.0.0.1:0", "pool": name} for name in ("strict", "lenient")
        ]
        pools: dict[str, object] = {"strict": pool, "lenient": {**pool, "lenient": True}}
        lb = stack.enter_context(LbProxy({"listeners": listeners, "pools": pools}, folder))
        ports = {name: lb.port(name) for name in pools}
        _, ports["haproxy"] = stack.enter_context(peers.haproxy(folder, origin.address))
        _, ports["nginx"] = stack.enter_context(peers.nginx(folder, origin.address))
        yield Stage(origin, lb, ports)


def status_from(port: int, request: bytes, wanted: int) -> int:
    """What a client is told, however loosely it is written; 0 if nothing comes. wanted: which it should be."""
    with Client(port, timeout_s=PATIENCE_S if wanted else SHORT_S) as client:
        client.send(request)
        with contextlib.suppress(TimeoutError, Ended, OSError):
            while b"\r\n" not in client.stream.record and client.stream.fill():
                pass
        line = bytes(client.stream.record).partition(b"\r\n")[0].replace(b"100 Continue", b"0 -")
        return int(line.split()[1]) if line[:5] == b"HTTP/" else 0


@pytest.mark.parametrize("peer", ["haproxy", "nginx"])
@pytest.mark.parametrize("name", ANSWERS)
def test_what_peers_make_of_an_answer(stage: Stage, name: str, peer: str) -> None:
    odd = ANSWERS[name]
    stage.reset()
    stage.origin.script(steps(odd.data))
    wanted = odd.haproxy if peer == "haproxy" else odd.nginx
    assert status_from(stage.ports[peer], get("/peer"), wanted) == wanted


@pytest.mark.parametrize("peer", ["haproxy", "nginx"])
@pytest.mark.parametrize("name", [name for name in REQUESTS if "expectation" not in name])
def test_what_peers_make_of_a_request(stage: Stage, name: str, peer: str) -> None:
    odd = REQUESTS[name]
    wanted = odd.haproxy if peer == "haproxy" else odd.nginx
    stage.reset()
    assert status_from(stage.ports[peer], odd.data, wanted) == wanted


@pytest.mark.parametrize("kind", ["strict", "lenient"])
@pytest.mark.parametrize("cut", ["whole", "bytes"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_is_read_strictly_or_refused(stage: Stage, name: str, kind: str, cut: str) -> None:
    """The client reads strictly: a message that is not well formed fails here, and so does one too many."""
    odd = ANSWERS[name]
    wanted = odd.strict if kind == "strict" else odd.lenient
    stage.reset()
    data = odd.data
    stage.origin.script(steps(*(each_byte(data) if cut == "bytes" else [data])))
    with Client(stage.ports[kind]) as client:
        try:
            answer = client.ask(get(f"/{kind}"))
        except (Ended, WireError) as error:
            # A body that goes wrong when its head has left: the client must see that it is not whole.
            assert wanted == 502 and cut == "bytes" and client.end == "rst", error
            return
        assert answer.status == wanted
        if wanted == 502:
            assert answer.get("content-type") == "application/problem+json" and b"evil" not in answer.body
            return
        assert answer.body == b"hello" and not answer.all("set-cookie")
        assert len(answer.all("content-length")) + len(answer.all("transfer-encoding")) == 1
        assert client.ask(get("/next")).body == b"GET /next 0\n"
    # Others may be closed as well: servers that are reset between tests look like those that close after each answer.
    if not odd.keeps:
        assert len(stage.origin.peers[0].requests) == 1


@pytest.mark.parametrize("kind", ["strict", "lenient"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_hidden_behind_an_odd_one_is_nobody_s(stage: Stage, name: str, kind: str) -> None:
    stage.reset()
    stage.origin.script(steps(ANSWERS[name].data + EVIL))
    with Client(stage.ports[kind]) as client:
        client.send(get("/odd") + get("/next"))
        with contextlib.suppress(Ended, WireError):
            for _ in range(2):
                client.response()
        assert b"evil" not in bytes(client.stream.record).replace(b"evil=1", b"")
    assert len(stage.origin.peers[0].requests) == 1, "was used again"


@pytest.mark.parametrize("kind", ["strict", "lenient"])
@pytest.mark.parametrize("cut", ["whole", "bytes"])
@pytest.mark.parametrize("name", REQUESTS)
def test_an_odd_request_is_read_strictly_or_refused(stage: Stage, name: str, kind: str, cut: str) -> None:
    """With a request hidden behind it: it is the client's next one, or nobody's, and never part of a body."""
    odd = REQUESTS[name]
    wanted = odd.strict if kind == "strict" else odd.lenient
    stage.reset()
    data = odd.data + get("/behind")
    with Client(stage.ports[kind]) as client:
        client.send(*(each_byte(data) if cut == "bytes" else [data]))
        assert client.response().status == wanted
        if wanted == 200:
            assert client.response().body == b"GET /behind 0\n"
        else:
            client.read_to_end()
    assert not stage.origin.violations
    seen = [(request.target, request.body) for request in stage.origin.requests]
    assert seen == ([("/q", b"hello"), ("/behind", b"")] if wanted == 200 else [])


def test_a_generator_of_short_lines_may_be_any_length(stage: Stage) -> None:
    """`requests.post(data=generator)` sends a chunk an item; haproxy and nginx take any number of them.

    A megabyte of one-byte chunks is odd but legal, and no more work than as many bytes of small requests.
    """
    stage.reset()
    for size, count in ((20, 20_000), (1, 200_000)):
        one = b"%x\r\n%b\r\n" % (size, b"x" * size)
        with Client(stage.ports["strict"], timeout_s=60) as client, Client(stage.ports["strict"]) as other:
            client.send(GO)
            for _ in range(10):
                client.send(one * (count // 10))
                assert other.ask(get("/other")).status == 200
            client.send(b"0\r\n\r\n")
            assert client.response().body == b"POST /q %d\n" % (size * count)


def test_extensions_are_an_attack_all_the_same(stage: Stage) -> None:
    stage.reset()
    with Client(stage.ports["strict"]) as client:
        client.send(GO + b"1;a=bcdefgh\r\nx\r\n" * 4_000)
        assert client.response().status == 400
    wait_until(lambda: stage.lb.access_log()[-1]["end"] == "chunk_overhead", "the log line of the refused one")


def test_interim_answers_at_once_are_a_flood(stage: Stage) -> None:
    stage.reset()
    stage.origin.script(steps(b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK + LENGTH))
    with Client(stage.ports["strict"]) as client:
        client.send(get("/flood"))
        answer = client.response()
        assert (answer.status, len(answer.interim)) == (502, 16)
