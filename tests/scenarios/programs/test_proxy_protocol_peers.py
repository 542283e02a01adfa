"""HAProxy and NGINX at the other end of the PROXY protocol: as the balancer in front, and as the server behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.programs import Program, started
from tests.support.rig import get
from tests.support.servers import needed

Running = contextlib.AbstractContextManager[tuple[Program, int]]

HAPROXY = """
defaults
  timeout connect 60s
  timeout client 60s
  timeout server 60s
"""
NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr;
events {}
"""


def haproxy(folder: Path, text: str) -> Running:
    def command(port: int) -> list[str]:
        path = folder / "haproxy.cfg"
        path.write_text(HAPROXY + text.replace("PORT", str(port)))
        return [needed("haproxy"), "-db", "-f", str(path)]

    return started(command, folder, "haproxy")


def nginx(folder: Path, text: str) -> Running:
    def command(port: int) -> list[str]:
        path = folder / "nginx.conf"
        path.write_text(NGINX.replace("FOLDER", str(folder)) + text.replace("PORT", str(port)))
        return [needed("nginx"), "-p", str(folder), "-c", str(path)]

    return started(command, folder, "nginx")


def in_front(folder: Path, kind: str, lb_port: int) -> Running:
    """A balancer that sends headers to lbproxy."""
    if kind == "nginx v1":
        relay = f"listen 127.0.0.1:PORT; proxy_pass 127.0.0.1:{lb_port}; proxy_protocol on;"
        return nginx(folder, f"stream {{ server {{ {relay} }} }}")
    options = {
        "haproxy v1": "send-proxy",
        "haproxy v2": "send-proxy-v2",
        "haproxy v2 with checksum": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    }[kind]
    return haproxy(
        folder,
        f"listen in\n  mode tcp\n  bind 127.0.0.1:PORT\n  server lb 127.0.0.1:{lb_port} check inter 200 {options}\n",
    )


@pytest.mark.parametrize("kind", ["haproxy v1", "haproxy v2", "haproxy v2 with checksum", "nginx v1"])
def test_a_balancer_in_front_names_the_client(tmp_path: Path, kind: str) -> None:
    with Origin() as origin:
        config: dict[str, object] = {
            "trusted_proxies": ["127.0.0.1"],
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "proxy_protocol": "accept"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb, in_front(tmp_path, kind, lb.port("in")) as (_, port):
            for number in range(3):
                with Client(port) as client:
                    assert client.ask(get(f"/{number}")).status == 200
            seen = {request.get("x-forwarded-port") for request in origin.requests}
            # The port that the client connected to, which lbproxy knows from the header only.
            assert seen == {str(port)}
            assert lb.metric("rejected_total", reason="bad_proxy_header") == 0  # its checks are no faults


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_a_server_behind_learns_the_client(tmp_path: Path, kind: str, mode: str, version: str) -> None:
    if kind == "haproxy":
        answer = 'http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port]"'
        server = haproxy(tmp_path, f"listen in\n  mode http\n  bind 127.0.0.1:PORT accept-proxy\n  {answer}\n")
    else:
        answer = 'return 200 "$proxy_protocol_addr:$proxy_protocol_port";'
        server = nginx(
            tmp_path,
            f"http {{ access_log off; server {{ listen 127.0.0.1:PORT proxy_protocol; location / {{ {answer} }} }} }}",
        )
    with server as (_, port):
        pool = {
            "servers": [f"127.0.0.1:{port}"],
            "proxy_protocol": version,
            "keep_alive": "off",
            "health_check": {"type": "http", "path": "/health", "interval": "250ms"},
        }
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": mode, "pool": "p"}],
            "pools": {"p": pool},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            lb.wait_metric("health_checks_total", 1, result="pass")
            for _ in range(3):
                with Client(lb.port("in")) as client:
                    address, source_port = client.sock.getsockname()
                    answered = client.ask(get("/who"))
                    assert (answered.status, bytes(answered.body).decode()) == (200, f"{address}:{source_port}")
            assert lb.metric("health_checks_total", result="fail") == 0
