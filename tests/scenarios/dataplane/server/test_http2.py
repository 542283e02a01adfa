"""Servers of HTTP/2 that are not our own (nghttpd, Hypercorn), with and without TLS, and some that do not speak it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, CertFiles, server_wrap
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.programs import Program, started
from tests.support.rig import get
from tests.support.servers import in_threads, needed
from tests.support.waiting import wait_until

BIG = 3_000_000
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    headers = [(b"x-version", scope["http_version"].encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"%d octets" % len(body)})
"""


def nghttpd(
    folder: Path, name: str, *options: str, files: CertFiles | None = None
) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    """It serves the files of `folder`/www, and says back what it is sent."""
    program = needed("nghttpd")
    tls = ["--no-tls"] if files is None else []
    pair = [] if files is None else [files.key, files.cert]

    def command(port: int) -> list[str]:
        return [program, *tls, *options, "-d", str(folder / "www"), "-a", "127.0.0.1", str(port), *pair]

    return started(command, folder, name)


def hypercorn(folder: Path) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    (folder / "small_app.py").write_text(APP)

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", f"{folder}/small_app.py:app"]

    return started(command, folder, "hypercorn")


class Site:
    """A daemon with a listener for each pool."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        authority = Authority(folder / "ca")
        (folder / "www").mkdir()
        (folder / "www" / "small").write_bytes(b"hello\n")
        self.big = os.urandom(BIG)
        (folder / "www" / "big").write_bytes(self.big)
        files = authority.issue("h2", "127.0.0.1")
        _, plain = stack.enter_context(nghttpd(folder, "plain"))
        _, echo = stack.enter_context(nghttpd(folder, "echo", "--echo-upload"))
        _, few = stack.enter_context(nghttpd(folder, "few", "-m", "2"))
        _, secure = stack.enter_context(nghttpd(folder, "secure", files=files))
        _, app = stack.enter_context(hypercorn(folder))
        self.old = stack.enter_context(Origin(wrap=server_wrap(files)))
        self.bare = stack.enter_context(Origin())
        tls = {"ca": authority.ca}
        pools: dict[str, dict[str, object]] = {
            "plain": {"servers": [f"127.0.0.1:{plain}"]},
            "echo": {"servers": [f"127.0.0.1:{echo}"]},
            "few": {"servers": [f"127.0.0.1:{few}"]},
            "app": {"servers": [f"127.0.0.1:{app}"], "health_check": "/"},
            "secure": {"servers": [f"127.0.0.1:{secure}"], "tls": tls, "health_check": "/small"},
            "auto": {"servers": [f"127.0.0.1:{secure}"], "tls": tls, "protocol": "auto"},
            "auto_old": {"servers": [self.old.address], "tls": tls, "protocol": "auto"},
            "not_offered": {"servers": [self.old.address], "tls": tls},
            "not_spoken": {"servers": [self.bare.address]},
        }
        calm: dict[str, object] = {"protocol": "h2", "health_check": "off", "circuit_breaker": "off"}
        config: dict[str, object] = {
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools],
            "pools": {name: {**calm, **pool} for name, pool in pools.items()},
        }
        self.lb = stack.enter_context(LbProxy(config, folder))

    def client(self, pool: str) -> Client:
        return Client(self.lb.port(pool))

    def connects(self, pool: str) -> float:
        return self.lb.metric("upstream_connects_total", pool=pool, result="ok")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("http2"), stack)


@pytest.mark.parametrize("pool", ["plain", "secure", "auto"])
def test_answers_of_any_size_come_whole(site: Site, pool: str) -> None:
    with site.client(pool) as client:
        assert client.ask(get("/small")).body == b"hello\n"
        answer = client.ask(get("/big"))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(site.big).digest()
        assert client.ask(get("/none")).status == 404


def test_many_requests_share_one_connection(site: Site) -> None:
    with site.client("plain") as client:
        client.ask(get("/small"))  # the server has spoken by then
        before = site.connects("plain")

        def ask(number: int) -> None:
            with site.client("plain") as one:
                assert b"".join(one.ask(get("/small")).body for _ in range(10)) == b"hello\n" * 10

        in_threads(16, ask)
        assert site.connects("plain") == before


def test_a_server_with_few_streams_gets_more_connections_and_no_stream_too_many(site: Site) -> None:
    def ask(number: int) -> None:
        with site.client("few") as one:
            for _ in range(2):
                assert len(one.ask(get("/big")).body) == BIG

    in_threads(8, ask)
    assert site.lb.metric("upstream_errors_total", pool="few") == 0


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_goes_up_and_comes_back(site: Site, is_chunked: bool) -> None:
    size = 700_000
    body = os.urandom(size)
    with site.client("echo") as client:
        if is_chunked:
            framed = b"".join(
                b"%x\r\n%b\r\n" % (len(body[at : at + 50_000]), body[at : at + 50_000]) for at in range(0, size, 50_000)
            )
            client.send(b"POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n")
        else:
            client.send(b"POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + body)
        assert client.response().body == body


def test_an_application_server_sees_http2(site: Site) -> None:
    with site.client("app") as client:
        answer = client.ask(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde")
        assert (answer.body, answer.get("x-version")) == (b"5 octets", "2")
    wait_until(lambda: site.lb.server_status("app")[0]["state"] == "up", "the check over HTTP/2 to pass")


def test_a_client_that_leaves_ends_its_stream_and_no_other(site: Site) -> None:
    with site.client("plain") as other:
        other.ask(get("/small"))
        before = site.connects("plain")
        leaver = socket.create_connection(("127.0.0.1", site.lb.port("plain")))
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        leaver.sendall(get("/big"))
        wait_until(lambda: site.lb.metric("server_inflight", pool="plain") == 1, "its answer to be under way")
        leaver.close()
        wait_until(lambda: site.lb.metric("server_inflight", pool="plain") == 0, "its request to end")
        assert other.ask(get("/big")).body == site.big
        assert site.connects("plain") == before


def test_a_client_that_does_not_read_holds_up_nobody(site: Site) -> None:
    with site.client("plain") as other, contextlib.ExitStack() as stack:
        other.ask(get("/small"))
        for _ in range(8):  # more than the connection's window is for
            lazy = stack.enter_context(socket.socket())
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", site.lb.port("plain")))
            lazy.sendall(get("/big") * 8)  # of one answer the kernel may take all
        wait_until(lambda: site.lb.metric("server_inflight", pool="plain") == 8, "their answers to be under way")
        for _ in range(3):
            assert other.ask(get("/big")).body == site.big


def test_auto_speaks_http1_where_the_server_does(site: Site) -> None:
    before = len(site.old.requests)
    with site.client("auto_old") as client:
        assert [client.ask(get(f"/{number}")).status for number in range(3)] == [200] * 3
    assert len(site.old.requests) == before + 3 and site.connects("auto_old") == 1


def test_servers_that_do_not_speak_it_are_said_so(site: Site) -> None:
    with site.client("not_offered") as client:
        answer = client.ask(get("/"))
        assert answer.status == 502 and b"does not offer HTTP/2" in answer.body
    with site.client("not_spoken") as client:
        answer = client.ask(get("/"))
        assert answer.status == 502 and b"before it has said anything in HTTP/2" in answer.body
