"""NGINX and HAProxy as servers of HTTP/2, in clear text: all kinds of bodies, and reloads under load.

Behind each stands an origin that writes down what reached it. Requests are POSTs, which may not be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.daemon import LbProxy
from tests.support.nginx_server import nginx
from tests.support.origin import Origin, echo
from tests.support.programs import Program, started
from tests.support.servers import needed
from tests.support.waiting import wait_until
from tests.support.wire import Request

KINDS = ("nginx", "haproxy")
MIB = 1 << 20
TIMEOUT_S = 170.0
RELOADS = int(os.environ.get("LBPROXY_SERVER_RELOADS", "3"))
# NGINX ends a connection after so many requests, with GOAWAY; HAProxy has no such number.
NGINX = """
  client_max_body_size 0;
  keepalive_requests 100;
  server {
    listen 127.0.0.1:PORT http2;
    location / { proxy_pass http://ORIGIN; proxy_http_version 1.1; }
  }
"""
HAPROXY = """
defaults
  mode http
  timeout connect 60s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:PORT proto h2
  default_backend origin
backend origin
  server o ORIGIN
"""
BIG = os.urandom(MIB)


def answer(request: Request) -> bytes:
    """A MiB for /big, else what the request was, and a digest of its body."""
    if request.target == "/big":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB + BIG
    if request.target == "/chunked":
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        return head + b"4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n"
    if request.target == "/sum":
        body = hashlib.sha256(request.body).hexdigest().encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    return echo(request)


def server(kind: str, folder: Path, origin: Origin) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    """A server of that make, which asks the origin."""
    if kind == "nginx":
        return nginx(folder, NGINX.replace("ORIGIN", origin.address))

    def command(port: int) -> list[str]:
        path = folder / "haproxy.conf"
        path.write_text(HAPROXY.replace("PORT", str(port)).replace("ORIGIN", origin.address))
        return [needed("haproxy"), "-W", "-db", "-f", str(path)]

    return started(command, folder, kind)


class Site:
    """A daemon before two servers of one make."""

    def __init__(self, kind: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.kind = kind
        self.origin = stack.enter_context(Origin(answer=answer))
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        self.programs = [stack.enter_context(server(kind, folder / name, self.origin)) for name in ("a", "b")]
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"127.0.0.1:{port}" for _, port in self.programs],
                    "protocol": "h2",
                    "strategy": "round_robin",
                    "health_check": "off",
                    "circuit_breaker": "off",
                    "timeouts": {"response_head": "150s"},
                }
            },
        }
        self.lb = stack.enter_context(LbProxy(config, folder / "lb"))

    def client(self, *, is_http2: bool = True) -> httpx.Client:
        return httpx.Client(
            http2=is_http2,
            http1=not is_http2,
            base_url=f"http://127.0.0.1:{self.lb.port('in')}",
            timeout=TIMEOUT_S,
            trust_env=False,
        )


@pytest.fixture(params=KINDS, scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        kind = str(request.param)
        made = Site(kind, tmp_path_factory.mktemp(kind), stack)
        yield made
        made.lb.check_idle()


@pytest.mark.parametrize("is_http2", [True, False], ids=["from HTTP/2", "from HTTP/1.1"])
def test_requests_and_answers_of_any_kind(site: Site, is_http2: bool) -> None:
    with site.client(is_http2=is_http2) as client:
        assert client.get("/small").text == "GET /small 0\n"
        assert client.head("/small").headers["content-length"] == "14"
        assert client.post("/post", content=b"body").text == "POST /post 4\n"
        assert client.post("/empty", content=b"").text == "POST /empty 0\n"
        assert client.get("/chunked").text == "body"
        assert client.get("/big").content == BIG
        body = os.urandom(MIB)
        assert client.post("/sum", content=body).text == hashlib.sha256(body).hexdigest()
        pieces = (body[at : at + 10_000] for at in range(0, MIB, 10_000))
        assert client.post("/sum", content=pieces).text == hashlib.sha256(body).hexdigest()


async def test_a_hundred_at_once(site: Site) -> None:
    """On one connection of the client's, as coroutines: a hundred threads would be busier than what they ask. An answer
    may come when a body is there and the frame that ends it is not; httpx gives up if it is sent a reset then."""
    paths = [f"/at-once/{number}" for number in range(100)]
    base = f"http://127.0.0.1:{site.lb.port('in')}"
    async with httpx.AsyncClient(http2=True, http1=False, base_url=base, timeout=TIMEOUT_S, trust_env=False) as client:
        answers = await asyncio.gather(*[client.post(path, content=b"body") for path in paths])
    assert [one.text for one in answers] == [f"POST {path} 4\n" for path in paths]
    seen = Counter(request.target for request in list(site.origin.requests) if "/at-once/" in request.target)
    assert seen == Counter(paths)


def n_connects(site: Site) -> float:
    """Connections to its servers so far."""
    return site.lb.metric("upstream_connects_total", result="ok")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reloads_under_load_lose_nothing_and_repeat_nothing(site: Site) -> None:
    """The old workers say GOAWAY and end; what they did not process goes elsewhere."""
    is_over = threading.Event()
    sent: list[str] = []
    failed: list[object] = []

    def asks(worker: int) -> None:
        with site.client(is_http2=worker % 2 == 0) as client:
            while not is_over.is_set():
                path = f"/once/{worker}-{len(sent)}"
                sent.append(path)
                try:
                    got = client.post(path, content=b"body")
                    if got.text != f"POST {path} 4\n":
                        failed.append((path, got.status_code, got.text))
                except httpx.HTTPError as error:
                    failed.append((path, repr(error)))

    workers = [threading.Thread(target=asks, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    try:
        for number in range(RELOADS):
            program, _ = site.programs[number % 2]
            before = len(sent)
            wait_until(lambda n=before: len(sent) > n + 60, "some requests")  # type: ignore[misc]
            connects = n_connects(site)
            program.process.send_signal(signal.SIGHUP if site.kind == "nginx" else signal.SIGUSR2)
            wait_until(lambda n=connects: n_connects(site) > n, "the old worker to let its connection go")  # type: ignore[misc]
            before = len(sent)
            wait_until(lambda n=before: len(sent) > n + 60, "some more")  # type: ignore[misc]
    finally:
        is_over.set()
        for worker in workers:
            worker.join()
    assert failed == [], site.lb.stderr[-2000:]
    seen = Counter(request.target for request in list(site.origin.requests) if "/once/" in request.target)
    assert seen == Counter(sent)
