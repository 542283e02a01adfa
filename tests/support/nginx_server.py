"""NGINX as a server that a test configures, which writes below the test's folder only."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.support.programs import Program, started
from tests.support.servers import needed

_CONFIG = """
user root;
worker_processes 1;
daemon off;
pid FOLDER/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
HTTP
}
"""


def nginx(folder: Path, http: str) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    """http: what else stands in the block of that name; PORT in it is the port that the program is started for."""

    def command(port: int) -> list[str]:
        path = folder / "nginx.conf"
        path.write_text(_CONFIG.replace("FOLDER", str(folder)).replace("HTTP", http).replace("PORT", str(port)))
        return [needed("nginx"), "-p", str(folder), "-c", str(path)]

    return started(command, folder, "nginx")
