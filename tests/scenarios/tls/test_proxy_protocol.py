"""PROXY headers and TLS together: the header comes first, in the clear, on either side."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsStream, server_wrap
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import wait_until
from tests.support.wire import Request, Response, read_response

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"


def shows_client(request: Request) -> bytes:
    body = f"{request.get('x-forwarded-for')} {request.get('x-forwarded-proto')}".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def ask(port: int, context: ssl.SSLContext, request: bytes) -> Response:
    """The header, a handshake, one request."""
    with Client(port) as client:
        client.send(HEADER)
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost", suppress_ragged_eofs=False)
        stream = TlsStream(client.sock)
        client.sock.sendall(request)
        return read_response(stream)


@pytest.mark.parametrize("verify", ["off", "required"])
def test_from_clients(authority: Authority, tmp_path: Path, verify: str) -> None:
    files, mine = authority.issue("proxied", "localhost"), authority.issue("mine", "mine.org")
    tls = {**files.tls, "client_verify": verify}
    if verify != "off":
        tls["client_ca"] = authority.ca
    with Origin(answer=shows_client) as origin:
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": tls, "proxy_protocol": "accept"}
        settings: dict[str, object] = {
            "trusted_proxies": ["127.0.0.0/8"],
            "listeners": [listener],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(settings, tmp_path) as lb:
            answer = ask(lb.port("in"), authority.trusting(mine), get("/x"))
            assert answer.body == b"192.0.2.7 https"
            assert lb.entry("/x")["client"] == "192.0.2.7"


def takes_header(seen: list[bytes], authority: Authority) -> Origin:
    shake = server_wrap(authority.issue("behind", "127.0.0.1"))

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        header = b""
        while not header.endswith(b"\r\n"):
            byte = sock.recv(1)
            if not byte:
                raise ConnectionResetError
            header += byte
        seen.append(header)
        return shake(sock)

    return Origin(wrap=wrap)


def test_to_servers(authority: Authority, tmp_path: Path) -> None:
    seen: list[bytes] = []
    with takes_header(seen, authority) as origin:
        pool = {
            "servers": [origin.address],
            "tls": {"ca": authority.ca},
            "proxy_protocol": "v1",
            "keep_alive": "off",
            "health_check": {"type": "http", "interval": "100ms", "rise": 1},
        }
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": pool},
        }
        with LbProxy(settings, tmp_path) as lb:
            with Client(lb.port("in")) as client:
                port = client.sock.getsockname()[1]
                assert client.ask(get("/x")).status == 200
            assert b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, lb.port("in")) in seen
            wait_until(lambda: lb.metric("health_checks_total", result="pass"), "a check to pass")
            assert b"PROXY UNKNOWN\r\n" in seen
