"""The configuration of the servers and of both proxies. Pure: numbers and paths in, text out.

Both do the same work: least connections over three servers, a log line per request to /dev/null, X-Forwarded-For, a TCP
check every two seconds, no limit on requests per connection. Servers of small answers are one HAProxy that takes the
whole body before it answers: one that answers sooner makes its client stop, which is something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.h2.cases import GRPC_PATH, Server

PREDICTION = '{"prediction": 0.7312}'


def render_servers(ports: Sequence[int], server: Server, stats: Path) -> str:
    """A frontend for each port, so that its requests are counted; `stats` is the socket that tells."""
    proto = " proto h2" if server == "h2" else ""
    frontends = "\n".join(
        f"""\
frontend o{number}
    bind 127.0.0.1:{port}{proto}
    option http-buffer-request
    http-request return status 200 content-type application/grpc hdr grpc-status 0 if {{ path {GRPC_PATH} }}
    http-request return status 200 content-type application/json string '{PREDICTION}'"""
        for number, port in enumerate(ports)
    )
    return f"""\
global
    nbthread 1
    maxconn 4096
    stats socket {stats} level user
defaults
    mode http
    timeout client 75s
    timeout http-keep-alive 75s
    timeout http-request 10s
{frontends}
"""


def render_haproxy(port: int, servers: Sequence[int], server: Server, pem: Path | None) -> str:
    """As a proxy. Its log goes to its standard output, which is /dev/null."""
    proto = " proto h2" if server == "h2" else ""
    lines = "\n".join(f"    server s{port} 127.0.0.1:{port} check inter 2s{proto}" for port in servers)
    alpn = f" ssl crt {pem} ssl-min-ver TLSv1.2 alpn h2,http/1.1" if pem else " proto h2"
    return f"""\
global
    nbthread 1
    maxconn 4096
    log stdout format raw local0 info
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout http-keep-alive 75s
    timeout connect 3s
    timeout client 75s
    timeout server 60s
frontend bench
    bind 127.0.0.1:{port}{alpn}
    default_backend servers
backend servers
    balance leastconn
{lines}
"""


def render_lbproxy(port: int, admin_port: int, servers: Sequence[int], server: Server, pem: Path | None) -> str:
    addresses = ", ".join(f"'127.0.0.1:{one}'" for one in servers)
    return f"""\
admin:
  bind: 127.0.0.1:{admin_port}
access_log: {{path: /dev/null, format: json}}
listeners:
  - name: bench
    bind: 127.0.0.1:{port}
    pool: servers
{f"    tls: {{cert: '{pem}', key: '{pem}'}}" if pem else ""}
pools:
  servers:
    strategy: least_connections
    servers: [{addresses}]
    protocol: {server}
    health_check: {{type: tcp, interval: 2s}}
"""


def parse_counts(text: str) -> dict[str, int]:
    """Requests so far of each frontend, from `show stat`."""
    lines = text.lstrip("# ").splitlines()
    names = lines[0].split(",")
    at = names.index("req_tot")
    rows = [line.split(",") for line in lines[1:] if line]
    return {row[0]: int(row[at]) for row in rows if row[1] == "FRONTEND"}
