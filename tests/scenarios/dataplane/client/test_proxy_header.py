"""PROXY headers from those who may send them, and from those who may not, through real sockets."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.protocol.proxy_protocol import SIGNATURE, build
from tests.support.client import Client, each_byte
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.waiting import wait_until

FRONT = ("203.0.113.1", 443)
TRUSTED = ["127.0.0.1/32", "192.0.2.0/24"]
STRANGER = "127.0.0.2"  # a loopback address that is not trusted
HEADERS = {
    "v1": build("v1", ("203.0.113.9", 1234), FRONT),
    "v1 IPv6": b"PROXY TCP6 2001:DB8::9 2001:db8::1 1234 443\r\n",
    "v2": build("v2", ("203.0.113.9", 1234), FRONT),
    "v2 IPv6": build("v2", ("2001:db8::9", 1234), ("2001:db8::1", 443)),
    "v2 with extensions": SIGNATURE
    + b"\x21\x11\x00\x18\xcb\x00\x71\x09\xcb\x00\x71\x01\x04\xd2\x01\xbb\x02\x00\x01a\x04\x00\x05.....",
}
BAD = {
    "missing": get("/bad"),
    "a line without an end": b"PROXY TCP4 " + b"1" * 200,
    "LF": HEADERS["v1"].replace(b"\r\n", b"\n") + get("/bad"),
    "a bad address": b"PROXY TCP4 203.0.113.999 203.0.113.1 1 2\r\n" + get("/bad"),
    "version 3": SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12) + get("/bad"),
    "a length that does not fit": SIGNATURE + b"\x21\x11\x00\x08" + bytes(8) + get("/bad"),
    "an extension that does not fit": SIGNATURE + b"\x21\x11\x00\x10" + bytes(12) + b"\x04\x00\x09." + get("/bad"),
    "too long": SIGNATURE + b"\x21\x11\xff\xff" + get("/bad"),
}


def echoes(c: Peer) -> None:
    while data := c.sock.recv(65536):
        c.sock.sendall(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, Origin, Origin]]:
    """One daemon with a listener of each kind; an HTTP server and an echo."""
    folder = tmp_path_factory.mktemp("proxy")
    with Origin() as web, Origin(default=echoes) as raw:
        listeners: list[dict[str, object]] = [
            {"name": "web", "pool": "web"},
            {"name": "raw", "pool": "raw", "mode": "tcp"},
            {"name": "few", "pool": "web", "limits": {"connections_per_ip": 1}},
            {"name": "unix", "pool": "web", "bind": f"unix:{folder}/front.sock"},
            {"name": "plain", "pool": "web", "proxy_protocol": "off"},
        ]
        config = {
            "trusted_proxies": TRUSTED,
            "listeners": [{"bind": "127.0.0.1:0", "proxy_protocol": "accept", **item} for item in listeners],
            "pools": {
                "web": {"servers": [web.address], "health_check": "off"},
                "raw": {"servers": [raw.address], "health_check": "off"},
            },
        }
        with LbProxy(config, folder) as lb:
            yield lb, web, raw


def n_rejected(lb: LbProxy) -> float:
    return lb.metric("rejected_total", reason="bad_proxy_header")


@pytest.mark.parametrize("cut", ["one segment", "two segments", "byte by byte", "header and request"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_names_the_client(site: tuple[LbProxy, Origin, Origin], name: str, cut: str) -> None:
    lb, web, _ = site
    header = HEADERS[name]
    target = f"/{name}-{cut}".replace(" ", "-")
    request = get(target)
    pieces = {
        "one segment": [header + request],
        "two segments": [header[:9], header[9:] + request],
        "byte by byte": each_byte(header + request),
        "header and request": [header, request],
    }[cut]
    address = "2001:db8::9" if "IPv6" in name else "203.0.113.9"
    with Client(lb.port("web")) as client:
        client.send(*pieces)
        assert client.response().status == 200
        assert client.ask(get(target)).status == 200  # the connection goes on without another header
    assert {entry["client"] for entry in lb.entries(target, 2)} == {address}
    seen = [request for request in web.requests if request.target == target]
    assert [request.get("x-forwarded-for") for request in seen] == [address] * 2
    assert [request.get("x-forwarded-port") for request in seen] == ["443"] * 2


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("listener", ["web", "raw"])
def test_what_is_no_header_is_reset_without_an_answer(
    site: tuple[LbProxy, Origin, Origin], listener: str, name: str
) -> None:
    lb, web, raw = site
    before, n_peers = n_rejected(lb), len(web.peers) + len(raw.peers)
    with Client(lb.port(listener)) as client:
        client.send(BAD[name])
        assert client.wait_end() == "rst"
    assert n_rejected(lb) == before + 1
    assert len(web.peers) + len(raw.peers) == n_peers
    wait_until(lambda: "was reset: " in lb.stderr, "the log to say why")


@pytest.mark.parametrize("listener", ["web", "raw"])
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_a_peer_that_is_not_trusted_is_reset(site: tuple[LbProxy, Origin, Origin], name: str, listener: str) -> None:
    lb, web, _ = site
    before = n_rejected(lb)
    with socket.socket() as sock:
        sock.settimeout(60)
        sock.bind((STRANGER, 0))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sock.connect(("127.0.0.1", lb.port(listener)))  # the reset may be as fast as this
            sock.sendall(HEADERS[name] + get("/stranger"))
            sock.recv(1)
            raise AssertionError("neither reset nor refused")
    assert n_rejected(lb) == before + 1
    assert all(request.target != "/stranger" for request in web.requests)


def test_a_listener_without_the_option_takes_no_header(site: tuple[LbProxy, Origin, Origin]) -> None:
    """Neither kind guesses."""
    lb, _, _ = site
    with Client(lb.port("plain")) as client:
        client.send(HEADERS["v1"] + get("/guess"))
        assert client.response().status == 400


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", build("v2", None, None, is_check=True)], ids=["UNKNOWN", "LOCAL"]
)
def test_the_balancer_s_own_connections_keep_their_address(site: tuple[LbProxy, Origin, Origin], header: bytes) -> None:
    lb, web, _ = site
    target = f"/own-{len(header)}"
    with Client(lb.port("web")) as client:
        client.send(header + get(target, "X-Forwarded-For: 198.51.100.4"))
        assert client.response().status == 200
    # The balancer itself is trusted, so what it says of a client is believed.
    assert lb.entry(target)["client"] == "198.51.100.4"
    assert web.requests[-1].get("x-forwarded-for") == "198.51.100.4, 127.0.0.1"


def test_x_forwarded_for_is_believed_from_the_address_in_the_header_only(
    site: tuple[LbProxy, Origin, Origin],
) -> None:
    """A client behind a TCP balancer cannot forge its address; an HTTP proxy behind one can say for whom it asks."""
    lb, web, _ = site
    for source, client_ip, chain in (
        ("203.0.113.9", "203.0.113.9", "203.0.113.9"),
        ("192.0.2.80", "198.51.100.4", "198.51.100.4, 192.0.2.80"),
    ):
        target = f"/forged-{source}"
        with Client(lb.port("web")) as client:
            client.send(build("v2", (source, 1), FRONT) + get(target, "X-Forwarded-For: 198.51.100.4"))
            assert client.response().status == 200
        assert lb.entry(target)["client"] == client_ip
        assert web.requests[-1].get("x-forwarded-for") == chain


def test_the_limit_per_address_counts_clients_not_the_balancer(site: tuple[LbProxy, Origin, Origin]) -> None:
    lb, _, _ = site
    with Client(lb.port("few")) as first, Client(lb.port("few")) as second, Client(lb.port("few")) as third:
        first.send(build("v1", ("203.0.113.1", 1), FRONT) + get("/few"))
        assert first.response().status == 200
        second.send(build("v2", ("203.0.113.2", 1), FRONT) + get("/few"))
        assert second.response().status == 200
        third.send(build("v2", ("203.0.113.1", 2), FRONT) + get("/few"))
        assert third.response().status == 429


def test_through_a_unix_socket(site: tuple[LbProxy, Origin, Origin]) -> None:
    """Whoever may open the file is trusted."""
    lb, _, _ = site
    path = lb.addresses["unix"].removeprefix("unix:")
    with Client(path) as client:
        client.send(*each_byte(HEADERS["v2"]), get("/through-unix"))
        assert client.response().status == 200
    assert lb.entry("/through-unix")["client"] == "203.0.113.9"
    with Client(path) as client:
        client.send(get("/through-unix"))
        assert client.wait_end() in ("fin", "rst")


@pytest.mark.parametrize("name", HEADERS)
def test_tcp_mode_passes_on_exactly_what_follows(site: tuple[LbProxy, Origin, Origin], name: str) -> None:
    lb, _, _ = site
    data = bytes(range(256)) * 400
    count = len(lb.access_log())
    with Client(lb.port("raw")) as client:
        client.send(HEADERS[name] + data[:1000], data[1000:])
        client.finish_writing()
        assert client.read_to_end() == data
    # A line of the test before may come late.
    found = wait_until(lambda: [x for x in lb.access_log()[count:] if x["bytes_in"] == len(data)], "its log line")
    (entry,) = found
    assert (entry["client"], entry["end"]) == ("2001:db8::9" if "IPv6" in name else "203.0.113.9", "ok")
    assert (entry["bytes_in"], entry["bytes_out"]) == (len(data), len(data))


def test_an_end_behind_the_header_is_passed_on(site: tuple[LbProxy, Origin, Origin]) -> None:
    lb, _, _ = site
    with Client(lb.port("raw")) as client:
        client.send(HEADERS["v1"])
        client.finish_writing()
        assert client.wait_end() == "fin"


def test_a_balancer_that_only_connects_is_no_fault(site: tuple[LbProxy, Origin, Origin]) -> None:
    lb, _, _ = site
    before, total = n_rejected(lb), lb.metric("client_connections_total")
    for number in range(10):
        client = Client(lb.port("web"))
        client.reset() if number % 2 else client.close()
    lb.wait_metric("client_connections_total", total + 10)
    lb.check_idle()
    assert n_rejected(lb) == before


def test_ip_hash_takes_the_client_s_address(tmp_path: Path) -> None:
    with Origin() as a, Origin() as b:
        config = {
            "trusted_proxies": TRUSTED,
            "listeners": [{"name": "web", "bind": "127.0.0.1:0", "pool": "p", "proxy_protocol": "accept"}],
            "pools": {"p": {"servers": [a.address, b.address], "strategy": "ip_hash", "health_check": "off"}},
        }
        with LbProxy(config, tmp_path) as lb:
            for number in range(20):
                for turn in range(2):
                    with Client(lb.port("web")) as client:
                        client.send(build("v2", (f"203.0.113.{number}", turn), FRONT) + get(f"/{number}"))
                        assert client.response().status == 200
        homes = [{request.target for request in origin.requests} for origin in (a, b)]
        assert not homes[0] & homes[1]
        assert min(map(len, homes)) > 0 and sum(map(len, homes)) == 20


def one(tmp_path: Path, origin: Origin, nofile: int = 0, **more: object) -> LbProxy:
    config = {
        "trusted_proxies": TRUSTED,
        "listeners": [{"name": "web", "bind": "127.0.0.1:0", "pool": "p", "proxy_protocol": "accept"}],
        "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        **more,
    }
    return LbProxy(config, tmp_path, nofile=nofile)


def test_who_waits_for_a_header_counts_as_a_connection(tmp_path: Path) -> None:
    with Origin() as origin, one(tmp_path, origin, limits={"connections": 2}) as lb:
        first, second = Client(lb.port("web")), Client(lb.port("web"))
        first.send(b"PROXY ")
        wait_until(lambda: lb.metric("client_connections") == 2, "both to be counted")
        with Client(lb.port("web")) as third:
            third.send(HEADERS["v1"] + get("/third"))
            assert third.is_silent(0.3)
            assert origin.requests == []
            second.close()
            assert third.response().status == 200
        first.close()


@pytest.mark.slow
def test_who_sends_no_header_is_gone_after_five_seconds_and_costs_nothing(tmp_path: Path) -> None:
    """Partial headers that stay unread would wake the loop again and again."""
    with Origin() as origin, one(tmp_path, origin) as lb:
        started = time.monotonic()
        clients = [Client(lb.port("web")) for _ in range(30)]
        for number, client in enumerate(clients):
            client.send((HEADERS["v1"] if number % 2 else HEADERS["v2"])[: number % 25])
        wait_until(lambda: lb.metric("client_connections") == 30, "all to be accepted")
        before = lb.cpu_s()
        for client in clients:
            assert client.wait_end() == "rst"
            client.close()
        assert time.monotonic() - started > 4.0
        assert lb.cpu_s() - before < 1.0  # a loop that spins takes all of the time
        assert n_rejected(lb) == 30


def test_a_stop_does_not_wait_for_headers_that_never_come(tmp_path: Path) -> None:
    with Origin() as origin:
        lb = one(tmp_path, origin).start()
        try:
            with Client(lb.port("web")) as silent, Client(lb.port("web")) as partial:
                partial.send(HEADERS["v2"][:20])
                wait_until(lambda: lb.metric("client_connections") == 2, "both to be accepted")
                lb.signal(signal.SIGTERM)
                assert silent.wait_end() == "fin"
                assert partial.wait_end() == "fin"
            assert lb.process is not None and lb.process.wait(60) == 0
        finally:
            lb.kill()
        assert "nothing was cut" in lb.stderr


def test_out_of_descriptors(tmp_path: Path) -> None:
    """With headers: whoever does not fit waits, and nobody is lost."""
    with Origin() as origin, one(tmp_path, origin, nofile=64) as lb:
        clients = [Client(lb.port("web")) for _ in range(60)]
        for number, client in enumerate(clients):
            client.send(HEADERS["v2"] + get(f"/{number}", "Connection: close"))
        for client in clients:
            assert client.response().status == 200
            client.close()
        assert n_rejected(lb) == 0
