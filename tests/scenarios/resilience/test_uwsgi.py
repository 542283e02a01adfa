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

POSTS = int(os.environ.get("LBPROXY_UWSGI_POSTS", "300"))
MOST_UNTIL_KNOWN = 100


def test_no_post_is_lost_once_it_is_known(tmp_path: Path) -> None:
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
            n_until, n_lost = 0, 0
            while lb.server_status()[0]["requests_per_connection"] != 1:
                n_until += 1
                assert n_until < MOST_UNTIL_KNOWN, lb.server_status()
                n_lost += client.ask(post(f"/until-{n_until}")).status != 200
            assert n_lost < 10
            assert [n for n in range(POSTS) if client.ask(post(f"/{n}")).status != 200] == []
            wait_until(lambda: seen.read_bytes().count(b"\n") == n_until - n_lost + POSTS, "each to be executed once")
    finally:
        server.terminate()
        server.wait(60)
