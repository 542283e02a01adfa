"""A daemon before one server of HTTP/2 that a test plays on real sockets, frame by frame."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import LbProxy
from tests.support.waiting import PATIENCE_S


@contextlib.contextmanager
def before_one_server(folder: Path) -> Iterator[tuple[LbProxy, socket.socket]]:
    """The daemon, which sends a request once only, and the socket on which it finds its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        pool = {
            "servers": [f"127.0.0.1:{listener.getsockname()[1]}"],
            "protocol": "h2",
            "health_check": "off",
            "circuit_breaker": "off",
            "retry": {"attempts": 0},
        }
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": pool},
        }
        with LbProxy(config, folder) as lb:
            yield lb, listener
