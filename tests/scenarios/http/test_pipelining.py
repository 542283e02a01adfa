"""Pipelined requests in any mixture and any segments: each answer belongs to its request, in order, whole."""

from __future__ import annotations

import itertools
import random
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.client import Client, receive
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.wire import Request

MIB = 1 << 20
SEEDS = range(12)
REQUESTS = 60


@dataclass(frozen=True)
class Asked:
    """One request and what its answer must be."""

    data: bytes
    method: str
    answer: bytes


def content(target: str, body: bytes) -> bytes:
    """The answer's body: names the request, and its size follows from the target."""
    text = f"{target} {len(body)} {zlib.crc32(body)}\n".encode()
    return text * (1 + zlib.crc32(target.encode()) % 7) * (200 if "big" in target else 1)


def answer(request: Request) -> bytes:
    """By length, chunked in odd sizes, or with interim answers before it; the target says which."""
    body = content(request.target, request.body)
    if "slow" in request.target:
        time.sleep(0.003)
    if request.method == "HEAD":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    if "empty" in request.target:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if "hint" in request.target else b""
    if "chunked" not in request.target:
        return interim + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    step = 1 + len(body) // 9
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    head = interim + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def random_request(rng: random.Random, number: int) -> Asked:
    style = rng.choice(("", "", "chunked", "big", "chunked-big", "slow", "empty", "hint", "hint-chunked"))
    target = f"/{style}/{number}"
    method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"))
    lines = [f"{method} {target} HTTP/1.1", rng.choice(("Host: a", "host:a", f"Host: h{number}.example"))]
    lines += rng.sample(["Accept: */*", "X-T: 1", f"traceparent: {number}", "Connection: keep-alive", "Cookie: a=b"], 2)
    body = b""
    if method in ("POST", "PUT"):
        # Bodies that look like requests, so that one byte too many or too few shows.
        body = rng.choice(
            (b"", b"hello", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" * rng.randint(1, 4), rng.randbytes(30_000))
        )
    coded = body
    if body and rng.random() < 0.5:
        lines.append("Transfer-Encoding: chunked")
        at = rng.randrange(len(body))
        parts = [part for part in (body[:at], body[at:]) if part]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    elif method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    data = ("\r\n".join(lines) + "\r\n\r\n").encode() + coded
    has_no_body = method == "HEAD" or style == "empty"
    return Asked(data, method, b"" if has_no_body else content(target, body))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, Origin]]:
    with Origin(answer=answer) as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "main", "bind": "127.0.0.1:0", "pool": "main"}],
            "pools": {"main": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("pipelining")) as lb:
            yield lb, origin
            assert not origin.violations


def segments(rng: random.Random, data: bytes) -> list[bytes]:
    """All at once, or cut anywhere, now and then byte by byte for a while."""
    cuts = {rng.randrange(1, len(data)) for _ in range(rng.choice((0, 3, 30, 150)))}
    if rng.random() < 0.3:
        start = rng.randrange(len(data))
        cuts |= set(range(max(1, start), min(len(data), start + 200)))
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("seed", SEEDS)
def test_any_mixture_in_any_segments(stage: tuple[LbProxy, Origin], seed: int) -> None:
    lb, origin = stage
    rng = random.Random(seed)
    asked = [random_request(rng, number) for number in range(REQUESTS)]
    seen = len(origin.requests)
    with Client(lb.port("main"), timeout_s=60) as client:
        pieces = segments(rng, b"".join(one.data for one in asked))
        sender = threading.Thread(target=client.send, args=pieces)
        sender.start()
        for number, one in enumerate(asked):
            reply = client.response(is_head=one.method == "HEAD")
            assert (reply.status in (200, 204), reply.body == one.answer) == (True, True), (
                f"seed {seed}: request {number} {one.data[:80]!r} got {reply.status} {reply.body[:80]!r}"
            )
        sender.join()
        assert client.is_silent(0.02), "more answers than requests"
    arrived = origin.requests[seen:]
    assert [request.target for request in arrived] == [one.data.split(b" ")[1].decode() for one in asked]


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_request_ends_the_row_after_its_predecessors(stage: tuple[LbProxy, Origin], seed: int) -> None:
    """What is before it is answered, it gets a 4xx, and what is behind it never reaches the server."""
    lb, origin = stage
    rng = random.Random(f"bad {seed}")
    asked = [random_request(rng, number) for number in range(rng.randint(1, 20))]
    bad = rng.choice(
        (b"GET / HTTP/1.1\r\n\r\n", b"\x00\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,2\r\n\r\n")
    )
    seen = len(origin.requests)
    data = b"".join(one.data for one in asked) + bad + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with Client(lb.port("main"), timeout_s=60) as client:
        client.send(*segments(rng, data))
        exchange = receive(client, None, [one.method for one in asked])
    assert [reply.body for reply in exchange.responses[:-1]] == [one.answer for one in asked]
    assert (exchange.statuses[-1], exchange.end, exchange.error) == (400, "fin", "")
    assert len(origin.requests) - seen == len(asked)


def test_a_client_that_sends_and_never_reads_is_held_back(stage: tuple[LbProxy, Origin]) -> None:
    lb, origin = stage
    rss, seen = lb.rss_bytes(), len(origin.requests)
    request = b"GET /big/0 HTTP/1.1\r\nHost: a\r\n\r\n"
    with Client(lb.port("main"), receive_buffer=4096) as client:
        client.sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 60 * MIB:
                sent += client.sock.send(request * 1000)
        except TimeoutError:
            pass
        assert sent < 60 * MIB, "lbproxy read without end"
        assert lb.rss_bytes() - rss < 4 * MIB
        assert len(origin.requests) - seen < sent // len(request), "requests went up that nobody reads the answers of"
        client.reset()
    lb.check_idle()
