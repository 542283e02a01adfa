"""What a client may do wrong, one scenario each.

Over HTTP a client that ends its direction has left, unless the listener says `half_close: answer`. One that leaves
while its request is queued is in test_client_gone.py and in resilience/test_queue.py.
"""

from __future__ import annotations

import random
import ssl
import threading
import time

import pytest

from tests.support.client import Client, receive
from tests.support.in_flight import unacknowledged
from tests.support.origin import Peer, silent, stalls_after
from tests.support.rig import BODY_LIMIT, CLIENT_S, Rig, get, post
from tests.support.waiting import wait_until

MIB = 1024 * 1024


def leave(client: Client, how: str) -> None:
    """End the client's side."""
    if how == "rst":
        client.reset()
    else:
        client.finish_writing()


def assert_given_up(rig: Rig) -> None:
    """The one connection to the server is closed by the daemon; test_client_gone.py measures that it takes 50 ms."""
    peer = rig.a.peers[-1]
    assert peer.closed.wait(60), "the server still works for a client that has left"
    assert peer.end == "rst"
    assert not rig.lb.metric("upstream_connections"), "the connection was kept"


# --- silence ---


def test_says_nothing(rig: Rig) -> None:
    stderr = len(rig.lb.stderr)
    started = time.monotonic()
    with rig.client("brief") as client:
        assert client.wait_end() == "fin"
    assert time.monotonic() - started >= CLIENT_S
    assert "WARN" not in rig.lb.stderr[stderr:]
    assert rig.a.peers == []


def test_says_half_a_head(rig: Rig) -> None:
    with rig.client("brief") as client:
        client.send(b"GET /row-53 HTTP/1.1\r\nHost:")
        exchange = receive(client, None)
    assert (exchange.statuses, exchange.end) == ([408], "fin")
    assert rig.grown("rejected_total", listener="brief", reason="header_timeout") == 1


def test_each_byte_does_not_reset_the_deadline(rig: Rig) -> None:
    """Slowloris: the deadline of a head is absolute."""
    with rig.client("brief") as client:
        for byte in b"GET /row-53-drip HTTP/1.1\r\nX: " + b"y" * 600:
            if not client.is_silent(CLIENT_S / 10):
                break
            client.send(bytes([byte]))
        else:
            raise AssertionError("each byte extended the deadline")
        assert receive(client, 1).statuses == [408]


def test_idle_after_an_answer(rig: Rig) -> None:
    with rig.client("brief") as client:
        assert client.ask(get("/row-53-idle")).status == 200
        assert client.wait_end() == "fin"


# --- leaving ---


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_leaves_while_waiting(rig: Rig, how: str) -> None:
    rig.a.script(silent)
    with rig.client() as client:
        client.send(get("/row-54"))
        wait_until(lambda: rig.a.requests, "the request to reach the server")
        leave(client, how)
        assert_given_up(rig)
    entry = rig.log("/row-54")
    assert (entry["status"], entry["end"]) == (499, "client_abort")
    assert rig.grown("client_aborts_total", pool="solo", phase="waiting") == 1
    assert rig.grown("upstream_errors_total") == 0, "the server was blamed for a client that left"
    assert rig.grown("requests_total", pool="solo", code="499") == 1


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_post_whose_client_leaves(rig: Rig, how: str) -> None:
    rig.script(silent)
    with rig.client("pair") as client:
        client.send(post("/row-54-post"))
        wait_until(lambda: rig.requests, "the request to reach a server")
        leave(client, how)
        wait_until(lambda: rig.a.open_connections + rig.b.open_connections == 0, "the request to be given up")
    assert rig.log("/row-54-post")["status"] == 499
    assert len(rig.requests) == 1, "a request of a client that left was sent again"


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("head", [b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_leaves_in_the_middle_of_the_answer(rig: Rig, how: str, head: bytes) -> None:
    rig.a.script(stalls_after(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\nhello\r\n"))
    with rig.client() as client:
        client.send(get("/row-56"))
        client.wait_for(b"hello")
        leave(client, how)
        assert_given_up(rig)
    assert rig.log("/row-56")["end"] == "client_abort"
    assert rig.grown("client_aborts_total", pool="solo", phase="streaming") == 1
    assert rig.grown("upstream_errors_total") == 0


def test_half_close_is_answered_where_the_listener_says_so(rig: Rig) -> None:
    gone = threading.Event()

    def waits(c: Peer) -> None:
        request = c.read_request()
        c.wait(gone)
        c.send(c.origin.answer(request))
        c.serve()

    rig.a.script(waits)
    with rig.client("half") as client:
        client.send(get("/row-57"))
        wait_until(lambda: rig.a.requests, "the request to reach the server")
        client.finish_writing()
        gone.set()
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"GET /row-57 0\n")
        assert client.wait_end() == "fin"
    assert rig.log("/row-57")["end"] == "ok"


def test_request_and_fin_together_are_answered_where_the_listener_says_so(rig: Rig) -> None:
    with rig.client("half") as client:
        client.send(post("/row-57-both"))
        client.finish_writing()
        assert client.response().body == b"POST /row-57-both 5\n"
        assert client.wait_end() == "fin"


def test_tcp_mode_relays_a_half_close(rig: Rig) -> None:
    def counts(c: Peer) -> None:
        data = c.stream.read_to_end()
        assert c.end == "fin"
        c.send(b"%d bytes" % len(data))

    rig.a.script(counts)
    with rig.client("tcp") as client:
        client.send(b"hello", b" world")
        client.finish_writing()
        assert client.read_to_end() == b"11 bytes"
        assert client.end == "fin"


@pytest.mark.parametrize("listener", ["solo", "half"])
@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize(
    "body",
    ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
    ids=["length", "chunked"],
)
def test_leaves_inside_the_body(rig: Rig, listener: str, how: str, body: str) -> None:
    with rig.client(listener) as client:
        client.send(f"POST /row-58 HTTP/1.1\r\nHost: a\r\n{body}".encode())
        wait_until(lambda: rig.a.partials, "the head to reach the server")
        leave(client, how)
        assert_given_up(rig)
    assert rig.requests == [], "a request that the client broke off was completed"
    entry = rig.log("/row-58")
    assert entry["end"] == "client_abort"
    assert rig.grown("client_aborts_total", phase="request_body") == 1
    assert rig.grown("upstream_errors_total") == 0


def test_leaves_before_the_head_is_complete(rig: Rig) -> None:
    with rig.client() as client:
        client.send(b"GET /never HTTP/1.1\r\nHo")
        client.finish_writing()
        exchange = receive(client, None)
        assert exchange.statuses in ([], [400])
    assert rig.a.peers == []


# --- pipelining ---


def test_ten_pipelined_requests_one_slow(rig: Rig) -> None:
    release = threading.Event()
    active: list[int] = []
    most: list[int] = []

    def serves(c: Peer) -> None:
        while True:
            request = c.read_request()
            active.append(c.number)
            most.append(len(active))
            if request.target == "/4":
                c.wait(release)
            active.pop()
            c.send(c.origin.answer(request))

    rig.a.script(*[serves] * 10)
    with rig.client() as client:
        client.send(b"".join(get(f"/{number}") for number in range(10)))
        wait_until(lambda: ("GET", "/4") in rig.requests, "the slow request to reach the server")
        assert [client.response().body for _ in range(4)] == [b"GET /%d 0\n" % number for number in range(4)]
        assert client.is_silent(0.05)
        assert [target for _, target in rig.requests] == [f"/{number}" for number in range(5)]
        release.set()
        assert [client.response().body for _ in range(6)] == [b"GET /%d 0\n" % number for number in range(4, 10)]
    assert max(most) == 1


@pytest.mark.parametrize("segments", [2, 3, 20])
def test_segments_that_arrive_while_a_request_is_active_stay_in_order(rig: Rig, segments: int) -> None:
    """Cut at many places; the first request is held until every segment has been sent."""
    data = b"".join(get(f"/order-{number}") for number in range(6))
    answers = [b"GET /order-%d 0\n" % number for number in range(6)]
    for start in range(1, len(data) // segments, 7):
        cuts = [start + turn * (len(data) - start) // (segments - 1) for turn in range(segments - 1)]
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        with rig.client() as client:
            client.send(*pieces)
            assert [client.response().body for _ in answers] == answers, f"cut at {cuts}"


@pytest.mark.parametrize("cut", range(40, 200, 8))
def test_the_rest_arrives_while_the_first_request_is_active(rig: Rig, cut: int) -> None:
    release = threading.Event()

    def holds(c: Peer) -> None:
        request = c.read_request()
        c.wait(release)
        c.send(c.origin.answer(request))
        c.serve()

    rig.a.script(holds)
    data = b"".join(get(f"/held-{number}") for number in range(6))
    with rig.client() as client:
        client.send(data[:cut])
        wait_until(lambda: rig.a.requests, "the first request to reach the server")
        client.send(data[cut:])
        release.set()
        assert [client.response().body for _ in range(6)] == [b"GET /held-%d 0\n" % number for number in range(6)]


@pytest.mark.parametrize("size", [70_000, 300_000, 3_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_large_body_behind_a_request_that_takes_a_while(rig: Rig, size: int, framing: str) -> None:
    """More than is read ahead, so reading pauses until the request before is answered, and must go on then."""
    release = threading.Event()
    received: list[bytes] = []

    def holds(c: Peer) -> None:
        request = c.read_request()
        c.wait(release)
        c.send(c.origin.answer(request))
        received.append(c.read_request().body)
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    rig.a.script(holds)
    body = random.Random(size).randbytes(size)
    if framing == "length":
        post = b"POST /large HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
    else:
        post = b"POST /large HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        post += b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    with rig.client() as client:
        client.send(get("/slow"))
        wait_until(lambda: rig.a.requests, "the first request to reach the server")
        sender = threading.Thread(target=client.send, args=(post,))
        sender.start()
        wait_until(
            lambda: unacknowledged(client.sock) or not sender.is_alive(), "the body to fill the buffers, or to be sent"
        )
        for _ in range(2):
            rig.lb.admin_get("/healthz")  # the loop has come round since, so it has read what it will
        release.set()
        assert [client.response().status for _ in range(2)] == [200, 200]
        sender.join()
    assert received == [body]


def test_a_pipelining_client_that_leaves(rig: Rig) -> None:
    """The abort is seen although surplus requests are buffered; none of them reaches the server."""
    rig.a.script(silent)
    with rig.client() as client:
        client.send(b"".join(get(f"/left-{number}") for number in range(10)))
        wait_until(lambda: rig.a.requests, "the first request to reach the server")
        leave(client, "rst")
        assert_given_up(rig)
    assert rig.log("/left-0")["end"] == "client_abort"
    assert rig.requests == [("GET", "/left-0")]


def test_a_flooding_client_that_leaves(rig: Rig) -> None:
    """The same with more read ahead than the daemon takes, so that it does not read when the end comes."""
    rig.a.script(silent)
    with rig.client() as client:
        client.sock.settimeout(0.5)
        try:
            for _ in range(2000):
                client.sock.sendall(get("/flood", "X: " + "y" * 1000))
        except TimeoutError:
            pass
        wait_until(lambda: rig.a.requests, "the first request to reach the server")
        leave(client, "rst")
        assert_given_up(rig)
    assert rig.requests == [("GET", "/flood")]


# --- another protocol ---


def test_tls_to_a_plain_port(rig: Rig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with rig.client() as client:
        client.send(outgoing.read())
        exchange = receive(client, None)
    assert exchange.statuses in ([400], [501], [])
    assert exchange.end == "fin"
    assert rig.a.peers == []
    assert rig.grown("rejected_total", listener="solo") == 1


def test_http_2_preface(rig: Rig) -> None:
    with rig.client() as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        exchange = receive(client, None)
    assert exchange.statuses == [], "GOAWAY is no answer of HTTP/1"
    assert rig.a.peers == []


# --- too much, too slow ---


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MIB + b"\r\n\r\n", 431, "header_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431, "header_too_large"),
    ],
    ids=["200 kB target", "1 MB field", "20000 fields"],
)
def test_huge_head(rig: Rig, request_bytes: bytes, status: int, reason: str) -> None:
    before = 0
    for _ in range(11):
        with rig.client() as client:
            client.send(request_bytes)
            exchange = receive(client, None)
        assert (exchange.statuses, exchange.end) == ([status], "fin")
        before = before or rig.lb.rss_bytes()
    assert rig.lb.rss_bytes() - before < 4 * MIB
    assert rig.a.peers == []
    assert rig.grown("rejected_total", listener="solo", reason=reason) == 11


def test_announced_body_over_the_limit(rig: Rig) -> None:
    with rig.client("limited") as client:
        client.send(f"POST /row-67 HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_LIMIT + 1}\r\n\r\n".encode())
        exchange = receive(client, None)
    assert (exchange.statuses, exchange.end) == ([413], "fin")
    assert rig.a.peers == []
    assert rig.log("/row-67")["end"] == "body_too_large"
    assert rig.grown("rejected_total", listener="limited", reason="body_too_large") == 1


def test_chunked_body_over_the_limit(rig: Rig) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with rig.client("limited") as client:
        client.send(b"POST /row-67-chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        wait_until(lambda: rig.a.partials, "the head to reach the server")
        client.send(chunk * 32)
        exchange = receive(client, None)
        assert (exchange.statuses, exchange.end) == ([413], "fin")
        assert rig.a.peers[0].closed.wait(60)
    assert rig.requests == []
    assert len(rig.a.partials[0].body) <= BODY_LIMIT


def test_a_body_of_exactly_the_limit_passes(rig: Rig) -> None:
    with rig.client("limited") as client:
        assert (
            client.ask(post("/row-67-exact", b"x" * BODY_LIMIT)).body == f"POST /row-67-exact {BODY_LIMIT}\n".encode()
        )


@pytest.mark.parametrize(
    "body", ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
)
def test_slow_body(rig: Rig, body: str) -> None:
    with rig.client("slow-body") as client:
        client.send(f"POST /slow HTTP/1.1\r\nHost: a\r\n{body}".encode())
        exchange = receive(client, None)
        assert (exchange.statuses, exchange.end) == ([408], "fin")
    assert rig.log("/slow")["end"] == "body_timeout"
    assert rig.requests == []
    assert rig.grown("rejected_total", listener="slow-body", reason="body_timeout") == 1


def test_expects_100_and_never_sends_the_body(rig: Rig) -> None:
    def continues(c: Peer) -> None:
        c.read_head()
        c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.read_to_end()

    rig.a.script(continues)
    with rig.client("slow-body") as client:
        client.send(b"POST /row-68 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        exchange = receive(client, None)
    assert (exchange.statuses, exchange.end) == ([408], "fin")
    assert [one.status for one in exchange.responses[0].interim] == [100]
    assert rig.log("/row-68")["end"] == "body_timeout"
    assert rig.requests == []


def test_a_client_that_does_not_read_does_not_stop_others(rig: Rig) -> None:
    """Back-pressure on one connection; another one is served meanwhile."""
    size = 8 * MIB

    def big(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        c.serve()

    rig.a.script(big)
    before = rig.lb.rss_bytes()
    with Client(rig.lb.port("solo"), receive_buffer=4096) as slow:
        slow.send(get("/big"))
        slow.wait_for(b"xxxx")
        with rig.client() as other:
            assert other.ask(get("/other")).status == 200
        assert rig.lb.rss_bytes() - before < 4 * MIB, "the daemon took in what the client does not read"
        assert len(slow.response().body) == size
