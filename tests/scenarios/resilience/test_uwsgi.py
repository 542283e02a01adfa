"""Real uWSGI with `--http-socket`: it closes each connection after one answer, 5 ms later, and does not say so.

Sent on such a connection at once, every second POST of a client was 502, for ever. Debian's nginx and haproxy have no
kept connections to servers unless told so, and then lose the same requests.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.recording_app import FILE, uwsgi_command
from tests.support.rig import post
from tests.support.servers import needed
from tests.support.waiting import wait_until

POSTS = int(os.environ.get("LBPROXY_UWSGI_POSTS", "1000"))


def test_no_post_is_lost_after_the_first_ten(tmp_path: Path) -> None:
    needed("uwsgi")
    with socket.socket() as sock, (tmp_path / "uwsgi.log").open("wb") as log:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        sock.set_inheritable(True)
        seen = tmp_path / "seen.jsonl"
        server = subprocess.Popen(
            uwsgi_command(sock.fileno(), "tests.support.recording_app:slow_to_end"),
            env={**os.environ, FILE: str(seen)},
            pass_fds=[sock.fileno()],
            stdout=log,
            stderr=log,
        )
        port = sock.getsockname()[1]
    try:
        config: dict[str, object] = {
            "listeners": [{"name": "app", "bind": "127.0.0.1:0", "pool": "app"}],
            "pools": {"app": {"servers": [f"127.0.0.1:{port}"], "health_check": "off", "retry": {"unacked": "off"}}},
        }
        with LbProxy(config, tmp_path / "lb") as lb, Client(lb.port("app")) as client:
            lost = [n for n in range(POSTS) if client.ask(post(f"/{n}")).status != 200]
            assert all(number < 10 for number in lost), lost
            wait_until(lambda: seen.read_bytes().count(b"\n") == POSTS - len(lost), "each to be executed once")
    finally:
        server.terminate()
        server.wait(10)
