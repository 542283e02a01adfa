"""HAProxy and NGINX as HTTP proxies in front of a scripted server: the yardstick for what is strict and what is odd."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.support.programs import Program, started
from tests.support.servers import needed

Running = contextlib.AbstractContextManager[tuple[Program, int]]

_HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend in
  bind 127.0.0.1:PORT
  default_backend out
backend out
  retries 0
  http-reuse never
  server s SERVER
"""
_NGINX = """
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
  server {
    listen 127.0.0.1:PORT;
    location / { proxy_pass http://SERVER; proxy_http_version 1.1; proxy_next_upstream off; }
  }
}
"""


def _write(path: Path, text: str, folder: Path, port: int, server: str) -> str:
    path.write_text(text.replace("FOLDER", str(folder)).replace("PORT", str(port)).replace("SERVER", server))
    return str(path)


def haproxy(folder: Path, server: str) -> Running:
    """`server` is HOST:PORT."""

    def command(port: int) -> list[str]:
        return [needed("haproxy"), "-db", "-f", _write(folder / "peer.cfg", _HAPROXY, folder, port, server)]

    return started(command, folder, "haproxy")


def nginx(folder: Path, server: str) -> Running:
    """`server` is HOST:PORT."""

    def command(port: int) -> list[str]:
        return [needed("nginx"), "-p", str(folder), "-c", _write(folder / "peer.conf", _NGINX, folder, port, server)]

    return started(command, folder, "nginx")
