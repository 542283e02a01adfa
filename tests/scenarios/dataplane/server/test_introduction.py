"""PROXY headers that lbproxy sends: first on every connection, with the client's real addresses, and in checks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproxy.protocol.proxy_protocol import OWN_ADDRESSES, ProxyHeader, build, parse
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, black_hole_port, refusing_port
from tests.support.rig import get, post
from tests.support.waiting import wait_until

VERSIONS = ["v1", "v2"]


class Introduced:
    """A server that takes a header from every connection before it serves; checks are those without an address."""

    def __init__(self, serve: Callable[[Peer], None], path: str = "") -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self.headers: list[ProxyHeader] = []
        self.checks: list[bytes] = []
        self.first_segments: list[bytes] = []
        self.origin = Origin(default=self._take_header, path=path or None)

    def __enter__(self) -> Introduced:
        return self

    def __exit__(self, *_: object) -> None:
        self.origin.close()

    def _take_header(self, c: Peer) -> None:
        stream = c.stream
        while (found := parse(bytes(stream.buffer))) is None:
            if not stream.fill():
                return
            with self._lock:
                self.first_segments.append(bytes(stream.record))
        header, size = found
        raw = stream.take(size)
        with self._lock:
            if header == OWN_ADDRESSES:
                self.checks.append(raw)
            else:
                self.headers.append(header)
        self._serve(c)


def echoes(c: Peer) -> None:
    """Every byte back, with those that came together with the header."""
    while c.stream.buffer or c.stream.fill():
        c.send(c.stream.take(len(c.stream.buffer)))


def settings(address: str, version: str, mode: str = "tcp", *more: str, **pool: object) -> dict[str, object]:
    members = {"servers": [address, *more], "health_check": "off", "proxy_protocol": version, **pool}
    if mode == "http":
        members["keep_alive"] = "off"
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": mode, "pool": "p"}],
        "pools": {"p": members},
    }


def ends(client: Client) -> ProxyHeader:
    """What a header has to say of this client."""
    return ProxyHeader(client.sock.getsockname(), client.sock.getpeername())


@pytest.mark.parametrize("version", VERSIONS)
def test_tcp_mode_says_who_connected_to_where(tmp_path: Path, version: str) -> None:
    with Introduced(echoes) as server, LbProxy(settings(server.origin.address, version), tmp_path) as lb:
        expected = []
        for number in range(5):
            with Client(lb.port("in")) as client:
                expected.append(ends(client))
                client.send(b"number %d" % number)
                assert client.take(8) == b"number %d" % number
                client.finish_writing()
                assert client.wait_end() == "fin"
        assert server.headers == expected
        # The header is whole in the first segment, whatever follows.
        assert all(parse(data) is not None for data in server.first_segments)
        wait_until(lambda: len(lb.access_log()) == 5, "five lines")
        assert {entry["bytes_in"] for entry in lb.access_log()} == {8}  # the header is not the client's


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_speaks_first_knows_the_client(tmp_path: Path, version: str) -> None:
    def greets(c: Peer) -> None:
        c.send(b"hello\n")
        c.read_to_end()

    with (
        Introduced(greets) as server,
        LbProxy(settings(server.origin.address, version), tmp_path) as lb,
        Client(lb.port("in")) as client,
    ):
        assert client.take(6) == b"hello\n"
        assert server.headers == [ends(client)]


@pytest.mark.parametrize("version", VERSIONS)
def test_http_mode_opens_a_connection_for_every_request(tmp_path: Path, version: str) -> None:
    with (
        Introduced(Peer.serve) as server,
        LbProxy(settings(server.origin.address, version, "http"), tmp_path) as lb,
        Client(lb.port("in")) as one,
        Client(lb.port("in")) as two,
    ):
        for _ in range(3):
            for client in (one, two):
                assert client.ask(get("/who")).status == 200
                assert client.ask(post("/who", b"x" * 100_000)).status == 200
        counts = Counter(header.source for header in server.headers)
        assert counts == {ends(one).source: 6, ends(two).source: 6}
        assert {header.destination for header in server.headers} == {ends(one).destination}
        assert len(server.origin.peers) == 12
        assert not server.origin.violations


def test_in_http_mode_a_claim_does_not_change_the_addresses(tmp_path: Path) -> None:
    """X-Forwarded-For is about a request; it goes up as a field."""
    with Introduced(Peer.serve) as server:
        config = {**settings(server.origin.address, "v2", "http"), "trusted_proxies": ["127.0.0.1"]}
        with LbProxy(config, tmp_path) as lb, Client(lb.port("in")) as client:
            assert client.ask(get("/claim", "X-Forwarded-For: 198.51.100.4")).status == 200
            assert server.headers == [ends(client)]
            assert server.origin.requests[0].get("x-forwarded-for") == "198.51.100.4, 127.0.0.1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_what_a_header_said_is_passed_on(tmp_path: Path, mode: str, version: str) -> None:
    source, destination = ("2001:db8::9", 1234), ("2001:db8::1", 443)
    with Introduced(Peer.serve) as server:
        config = settings(server.origin.address, version, mode)
        listener = {"name": "in", "bind": "127.0.0.1:0", "mode": mode, "pool": "p", "proxy_protocol": "accept"}
        config |= {"trusted_proxies": ["127.0.0.1"], "listeners": [listener]}
        with LbProxy(config, tmp_path) as lb, Client(lb.port("in")) as client:
            client.send(build("v2", source, destination) + get("/chain"))
            assert client.response().status == 200
        assert server.headers == [ProxyHeader(source, destination)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_on_a_unix_socket_has_no_address(tmp_path: Path, version: str) -> None:
    with Introduced(echoes) as server:
        config = settings(server.origin.address, version)
        config["listeners"] = [{"name": "in", "bind": f"unix:{tmp_path}/in.sock", "mode": "tcp", "pool": "p"}]
        with LbProxy(config, tmp_path) as lb:
            with Client(f"{tmp_path}/in.sock") as client:
                client.send(b"hi")
                assert client.take(2) == b"hi"
            assert server.checks == [build(version, None, None)]
            wait_until(lambda: len(lb.access_log()) == 1, "its line")
            assert lb.access_log()[0]["client"] == "unix"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_to_a_server_on_a_unix_socket(tmp_path: Path, mode: str, version: str) -> None:
    with (
        Introduced(Peer.serve, f"{tmp_path}/server.sock") as server,
        LbProxy(settings(f"unix:{tmp_path}/server.sock", version, mode), tmp_path) as lb,
        Client(lb.port("in")) as client,
    ):
        assert client.ask(get("/unix")).status == 200
        assert server.headers == [ends(client)]


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_refused_dial_goes_to_the_next_server_with_the_header(tmp_path: Path, mode: str) -> None:
    with refusing_port() as dead, Introduced(Peer.serve) as server:
        config = settings(f"127.0.0.1:{dead}", "v2", mode, server.origin.address, strategy="round_robin")
        with LbProxy(config, tmp_path) as lb:
            for _ in range(4):
                with Client(lb.port("in")) as client:
                    assert client.ask(get("/next")).status == 200
                    assert server.headers.pop() == ends(client)
            assert lb.metric("upstream_connects_total", result="refused") >= 1
            assert lb.metric("upstream_connects_total", result="ok") == 4


def test_a_dial_that_hangs_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    with black_hole_port() as port:
        config = settings(f"127.0.0.1:{port}", "v2", timeouts={"connect": "300ms"}, retry="off")
        with LbProxy(config, tmp_path) as lb:
            for _ in range(3):
                with Client(lb.port("in")) as client:
                    assert client.wait_end() == "rst"
            assert lb.metric("upstream_connects_total", result="timeout") == 3
            lb.check_idle()  # descriptors too


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_checks_introduce_themselves_as_nobody(tmp_path: Path, kind: str, version: str) -> None:
    with Introduced(Peer.serve) as server:
        check: dict[str, object] = {"interval": "250ms", "timeout": "60s", "type": kind}
        check |= {"path": "/health"} if kind == "http" else {"send": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"}
        check |= {} if kind == "http" else {"expect": {"text": "HTTP/1.1 200"}}
        with LbProxy(settings(server.origin.address, version, health_check=check), tmp_path) as lb:
            lb.wait_metric("health_checks_total", 2, result="pass")
            assert lb.metric("health_checks_total", result="fail") == 0
        assert set(server.checks) == {build(version, None, None, is_check=True)}
        assert server.headers == []


def test_a_check_on_a_port_of_its_own_sends_no_header(tmp_path: Path) -> None:
    """What answers there is something else."""
    with Introduced(echoes) as server, Origin() as health:
        check = {"interval": "250ms", "type": "http", "path": "/health", "port": int(health.address.rpartition(":")[2])}
        with LbProxy(settings(server.origin.address, "v2", health_check=check), tmp_path) as lb:
            lb.wait_metric("health_checks_total", 2, result="pass")
        assert {request.target for request in health.requests} == {"/health"}
        assert server.origin.peers == []
