"""WebSockets to servers that choose HTTP/2 in the handshake and open none there (RFC 8441): NGINX, and one that has no
HTTP/1.1 either."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lbproxy.protocol.h2 import frames
from tests.support.certificates import Authority, CertFiles
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.nginx_server import nginx
from tests.support.programs import Program
from tests.support.rig import get
from tests.support.websocket_server import hypercorn

NGINX = """
  map $http_upgrade $connection_upgrade { default upgrade; "" close; }
  server {
    listen 127.0.0.1:PORT ssl http2;
    ssl_certificate CERT;
    ssl_certificate_key KEY;
    add_header X-Spoken $server_protocol always;
    location / {
      proxy_pass http://127.0.0.1:ORIGIN;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }
  }
"""
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"  # a fatal alert (RFC 7301 section 3.2)
BIG = os.urandom(500_000)


def secure_nginx(folder: Path, files: CertFiles, origin: int) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    text = NGINX.replace("CERT", files.cert).replace("KEY", files.key)
    return nginx(folder, text.replace("ORIGIN", str(origin)))


@contextlib.contextmanager
def only_http2(files: CertFiles) -> Iterator[int]:
    """A server that speaks HTTP/2 without extended CONNECT, on its first connection, and wants no other protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                first = stack.enter_context(context.wrap_socket(listening.accept()[0], server_side=True))
                first.sendall(frames.settings([]))
                while True:
                    with listening.accept()[0] as other:
                        other.recv(65536)
                        other.sendall(NO_APPLICATION_PROTOCOL)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    folder = tmp_path_factory.mktemp("auto")
    authority = Authority(folder / "ca")
    files = authority.issue("server", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        _, origin = stack.enter_context(hypercorn(folder))
        _, port = stack.enter_context(secure_nginx(folder, files, origin))
        pool = {"protocol": "auto", "tls": {"ca": authority.ca}, "health_check": "off"}
        config: dict[str, object] = {
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in ("nginx", "only")],
            "pools": {
                "nginx": {**pool, "servers": [f"127.0.0.1:{port}"]},
                "only": {**pool, "servers": [f"127.0.0.1:{stack.enter_context(only_http2(files))}"]},
            },
        }
        yield stack.enter_context(LbProxy(config, folder / "lb"))


def test_it_gets_a_connection_of_http_1_and_requests_go_on_in_http_2(lb: LbProxy) -> None:
    url = f"ws://127.0.0.1:{lb.port('nginx')}"
    with connect(f"{url}/one", proxy=None, max_size=None, ping_interval=None) as one:  # before anything is known
        assert one.recv() == "1.1"
        with Client(lb.port("nginx")) as client:
            answer = client.ask(get("/beside"))
            assert (answer.status, answer.get("x-spoken")) == (200, "HTTP/2.0")
        with connect(f"{url}/other", proxy=None, max_size=None, ping_interval=None) as other:
            assert other.recv() == "1.1"
            other.send(BIG)
            assert other.recv() == BIG
        one.send("still")
        assert one.recv() == "still"
    # HTTP/2, and one for each WebSocket.
    assert lb.metric("upstream_connects_total", pool="nginx", result="ok") == 3
    with pytest.raises(InvalidStatus) as raised:
        connect(f"{url}/refused", proxy=None)
    assert raised.value.response.status_code == 403


def test_a_server_that_speaks_nothing_else_is_not_to_blame(lb: LbProxy) -> None:
    for path in ("/first", "/second"):
        with pytest.raises(InvalidStatus) as raised:
            connect(f"ws://127.0.0.1:{lb.port('only')}{path}", proxy=None)
        assert raised.value.response.status_code == 502
        assert lb.entry(path)["end"] == "no_websocket"
    assert lb.server_status("only")[0]["state"] == "up"
