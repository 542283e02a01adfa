"""Several certificates: what is asked on a connection that was made for another host (RFC 9110 section 15.5.20)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.daemon import LbProxy
from tests.support.origin import Origin


@pytest.fixture(scope="module")
def stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, Origin]]:
    first = authority.issue("first", "one.example", "www.one.example", "localhost")
    second = authority.issue("second", "*.two.example")
    certs: list[Any] = [first.tls, second.tls]
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [
                {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": {"certs": certs}},
                {"name": "single", "bind": "127.0.0.1:0", "pool": "p", "tls": first.tls},
            ],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
            "trusted_proxies": ["127.0.0.9"],
        }
        with LbProxy(config, tmp_path_factory.mktemp("misdirected")) as lb:
            yield lb, origin


def head(host: str, target: str = "/x") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def client(lb: LbProxy, authority: Authority, name: str, listener: str = "in") -> TlsClient:
    return TlsClient(lb.port(listener), authority.trusting(check_hostname=False), name=name)


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        ("one.example", "one.example", 200),
        ("one.example", "ONE.example:443", 200),
        ("one.example", "www.one.example", 200),
        ("a.two.example", "b.two.example", 200),
        ("one.example", "elsewhere.example", 200),
        ("one.example", "a.two.example", 421),
        ("a.two.example", "one.example", 421),
    ],
)
def test_a_host_of_another_certificate(
    stage: tuple[LbProxy, Origin], authority: Authority, name: str, host: str, status: int
) -> None:
    lb, origin = stage
    before, seen = lb.metric("rejected_total", reason="misdirected"), len(origin.requests)
    with client(lb, authority, name) as secure:
        assert secure.ask(head(host)).status == status
        if status == 421:
            assert secure.wait_end() == "fin"
        else:
            assert secure.ask(head(host)).status == status
    assert lb.metric("rejected_total", reason="misdirected") - before == (status == 421)
    assert len(origin.requests) - seen == (0 if status == 421 else 2)


def test_a_later_request_on_the_connection(stage: tuple[LbProxy, Origin], authority: Authority) -> None:
    lb, _ = stage
    with client(lb, authority, "one.example") as secure:
        for _ in range(2):
            assert secure.ask(head("one.example")).status == 200
        answer = secure.ask(head("a.two.example", "/late"))
        assert answer.status == 421 and b"one.example" in answer.body
    entry = lb.entry("/late")
    assert (entry["status"], entry["end"], entry["method"]) == (421, "misdirected", "GET")


def test_one_certificate_is_for_whoever_comes(stage: tuple[LbProxy, Origin], authority: Authority) -> None:
    lb, _ = stage
    with client(lb, authority, "one.example", "single") as secure:
        assert secure.ask(head("a.two.example")).status == 200


def test_a_trusted_proxy_may_keep_one_connection_for_all(stage: tuple[LbProxy, Origin], authority: Authority) -> None:
    """One in front of lbproxy often asks for a name of the origin, and passes on the Host of its client."""
    import socket

    lb, _ = stage
    context = authority.trusting(check_hostname=False)
    with (
        socket.create_connection(("127.0.0.1", lb.port("in")), 60, ("127.0.0.9", 0)) as sock,
        context.wrap_socket(sock, server_hostname="one.example") as tls,
    ):
        tls.sendall(head("a.two.example"))
        assert tls.recv(64).split()[1] == b"200"
