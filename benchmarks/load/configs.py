"""The configuration of the backend and of each proxy. Pure: numbers and paths in, text out.

Every proxy does the same work: least connections over the same servers, one access log line per request (TCP mode:
per connection) written to /dev/null, X-Forwarded-For (HTTP mode), connections kept open on both sides without a limit
on requests, and a TCP health check every two seconds. nginx has no active checks without a licence, so it goes without.
Buffers are each program's defaults. Since these decide what a large response costs, HAProxy and nginx have a second
form, `tuned`, with larger ones and, in HAProxy, splicing: the cheapest of what was tried for 1 MiB (see README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.cases import FILES, PREDICTION, REAL_ANSWER, REAL_PATH, Mode

_NGINX_LARGE_BUFFERS = """\
            proxy_buffer_size 64k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 512k;"""
_HAPROXY_LARGE_BUFFERS = """\
    tune.bufsize 65536
    tune.pipesize 1048576"""
_CONNECTIONS = 4096
TEMP_PATH_MODULES = ("proxy", "fastcgi", "uwsgi", "scgi")


def render_backend(ports: Sequence[int], directory: Path, temp_modules: Sequence[str]) -> str:
    """An nginx that answers /predict, /probe (with the X-Forwarded-For that it was sent) and the files of the cases."""
    files = "\n".join(f"        location = {path} {{ alias {directory}{path}; }}" for path in FILES)
    listens = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
    return f"""\
{_nginx_main(directory)}
http {{
{_nginx_temp_paths(directory, temp_modules)}
    access_log off;
    default_type application/json;
    sendfile on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    server {{
{listens}
        location = /predict {{ return 200 '{PREDICTION.decode()}'; }}
        location {REAL_PATH} {{ return 200 '{REAL_ANSWER % "$arg_note"}'; }}
{files}
        location = /probe {{ return 200 "$http_x_forwarded_for"; }}
    }}
}}
"""


def render_nginx(
    mode: Mode,
    port: int,
    servers: Sequence[int],
    directory: Path,
    temp_modules: Sequence[str],
    module: Path | None,
    *,
    tuned: bool = False,
    pem: Path | None = None,
    clients: int = 0,
) -> str:
    """nginx as a proxy. `module` is the file of the stream module if that has to be loaded (TCP mode).

    clients: connections of clients that must fit, if there are more than usual.
    """
    tls = f"""
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:1m;"""
    upstream = "\n".join(f"        server 127.0.0.1:{server};" for server in servers)
    if mode == "tcp":
        return f"""\
{f"load_module {module};" if module else ""}
{_nginx_main(directory, clients)}
stream {{
    log_format connections '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time';
    access_log /dev/null connections;
    upstream servers {{
        least_conn;
{upstream}
    }}
    server {{
        listen 127.0.0.1:{port};
        proxy_pass servers;
        proxy_connect_timeout 3s;
        proxy_timeout 10m;
{"        proxy_buffer_size 256k;" if tuned else ""}
    }}
}}
"""
    return f"""\
{_nginx_main(directory, clients)}
http {{
{_nginx_temp_paths(directory, temp_modules)}
    access_log /dev/null combined;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    upstream servers {{
        least_conn;
{upstream}
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port}{f" ssl;{tls}" if pem else ";"}
        location / {{
            proxy_pass http://servers;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 3s;
            proxy_max_temp_file_size 0;
{_NGINX_LARGE_BUFFERS if tuned else ""}
        }}
    }}
}}
"""


def render_haproxy(
    mode: Mode,
    port: int,
    servers: Sequence[int],
    *,
    tuned: bool = False,
    pem: Path | None = None,
    clients: int = 0,
    threads: int = 1,
) -> str:
    """HAProxy. Its log goes to its standard output, which the runner connects to /dev/null.

    clients: as for nginx.
    """
    lines = "\n".join(f"    server s{server} 127.0.0.1:{server} check inter 2s" for server in servers)
    in_http = """\
    option httplog
    option forwardfor
    http-reuse always
    timeout http-keep-alive 75s
"""
    return f"""\
global
    nbthread {threads}
    maxconn {clients or _CONNECTIONS}
    log stdout format raw local0 info
{_HAPROXY_LARGE_BUFFERS if tuned else ""}
defaults
    mode {mode}
    log global
{in_http if mode == "http" else "    option tcplog"}
{"    option splice-response" if tuned else ""}

    timeout connect 3s
    timeout client 75s
    timeout server 60s
frontend bench
    bind 127.0.0.1:{port}{f" ssl crt {pem} ssl-min-ver TLSv1.2 alpn http/1.1" if pem else ""}
    default_backend servers
backend servers
    balance leastconn
{lines}
"""


# What protects requests, all of it on and all of it off: the difference is its price. 64 slots are never full here.
LBPROXY_EXTRAS = {
    "": "",
    "full": """\
    max_inflight: 64
    queue: {size: 200, timeout: 5s}
    retry: {idempotent: true, status: [500, 503], on: [connect, reset, timeout]}
    circuit_breaker: {failures: 5, status: [500, 502, 503, 504]}
    timeouts: {total: 30s}
    slow_start: 5s
""",
    "bare": """\
    retry: {attempts: 0}
    circuit_breaker: off
""",
}


def render_lbproxy(
    mode: Mode,
    port: int,
    admin_port: int,
    servers: Sequence[int],
    extras: str = "",
    *,
    pem: Path | None = None,
    workers: int = 1,
) -> str:
    """extras: a key of LBPROXY_EXTRAS."""
    addresses = ", ".join(f"'127.0.0.1:{server}'" for server in servers)
    return f"""\
workers: {workers}
admin:
  bind: 127.0.0.1:{admin_port}
access_log: {{path: /dev/null, format: json}}
listeners:
  - name: bench
    bind: 127.0.0.1:{port}
    mode: {mode}
    pool: servers
{f"    tls: {{cert: '{pem}', key: '{pem}'}}" if pem else ""}
pools:
  servers:
    strategy: least_connections
    servers: [{addresses}]
    health_check: {{type: tcp, interval: 2s}}
{LBPROXY_EXTRAS[extras]}"""


def _nginx_main(directory: Path, clients: int = 0) -> str:
    return f"""\
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections {2 * clients or _CONNECTIONS}; }}"""


def _nginx_temp_paths(directory: Path, modules: Sequence[str]) -> str:
    """The compiled-in directories belong to root. A path for a module that is not compiled in would be an error."""
    names = ["client_body", *modules]
    return "\n".join(f"    {name}_temp_path {directory}/{name};" for name in names)
