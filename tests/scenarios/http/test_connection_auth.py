"""NTLM through the real daemon: the handshake works, and no other client is served as that user.

HAProxy marks such connections private too, and nginx needs its `ntlm` directive (not in the free edition) for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import wait_until
from tests.support.wire import Response


def answer(status: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def ntlm(c: Peer) -> None:
    """Like IIS: the third step authenticates the connection, and every later request on it is that user's."""
    user = ""
    challenged = False
    while True:
        request = c.read_request()
        scheme, _, token = (request.get("authorization") or "").partition(" ")
        if user:
            c.send(answer("200 OK", user.encode()))
        elif scheme != "NTLM":
            c.send(answer("401 Unauthorized", b"", "WWW-Authenticate: Basic realm=x", "WWW-Authenticate: NTLM"))
        elif token == "1":
            challenged = True
            c.send(answer("401 Unauthorized", b"", "WWW-Authenticate: NTLM 2"))
        elif challenged:
            user = token
            c.send(answer("200 OK", user.encode()))
        else:
            c.send(answer("401 Unauthorized", b"", "WWW-Authenticate: NTLM"))


def ask(client: Client, *fields: str) -> Response:
    return client.ask("\r\n".join(["GET /me HTTP/1.1", "Host: a", *fields, "", ""]).encode())


def log_in(client: Client, user: str) -> None:
    assert ask(client).status == 401
    assert ask(client, "Authorization: NTLM 1").get("www-authenticate") == "NTLM 2"
    assert ask(client, f"Authorization: NTLM {user}").body == user.encode()


@pytest.mark.parametrize("extra", [{}, {"max_inflight": 1}], ids=["free", "slots"])
def test_each_client_is_who_it_says_and_nobody_else(tmp_path: Path, extra: dict[str, Any]) -> None:
    with Origin(default=ntlm) as one, Origin(default=ntlm) as two:
        config: dict[str, object] = {
            "listeners": [{"bind": "127.0.0.1:0", "pool": "app", "name": "app"}],
            "pools": {
                "app": {
                    "servers": [one.address, two.address],
                    "strategy": "round_robin",
                    "health_check": "off",
                    **extra,
                }
            },
        }
        with LbProxy(config, tmp_path) as lb:

            def connect() -> Client:
                return Client(lb.port("app"))

            with connect() as alice, connect() as bob, connect() as stranger:
                log_in(alice, "alice")
                log_in(bob, "bob")
                for _ in range(3):
                    assert ask(stranger).status == 401
                    assert ask(alice).body == b"alice"
                    assert ask(bob).body == b"bob"
            wait_until(
                lambda: one.open_connections + two.open_connections == 0, "the users' connections to end with theirs"
            )
            with connect() as next_one:
                assert ask(next_one).status == 401
            lb.check_idle()
