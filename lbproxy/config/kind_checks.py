"""Where the kind of a pool is not enough, or not for this pool: warnings."""

from __future__ import annotations

from typing import Final

from lbproxy.config.model import Config
from lbproxy.config.problems import Path
from lbproxy.config.source import Document

# What only the command line of the server says, and what to write.
_NOT_KNOWN: Final = {
    "gunicorn-sync": (
        "one request at once is assumed, which is one worker behind the port",
        "say `max_inflight: 1`, or how many workers there are",
    ),
    "gunicorn-gthread": (
        "how many requests a server takes at once is not known",
        "say `max_inflight`: its `--threads` times its `--workers`",
    ),
}


def check_kinds(config: Config, document: Document) -> None:
    """Add the warnings."""
    of_tcp = [listener for listener in config.listeners if listener.mode == "tcp"]
    in_tcp = {listener.pool for listener in of_tcp} | {route.pool for listener in of_tcp for route in listener.routes}
    for name, pool in config.pools.items():
        if pool.kind is None:
            continue
        path: Path = ("pools", name, "kind")
        if name in in_tcp:
            message = "is about HTTP, and a TCP listener uses this pool: its checks and limits may not fit connections"
            document.warn(path, message, "leave it out, and write what is meant")
        says_limit = ("pools", name, "max_inflight") in document.values or all(
            server.max_inflight is not None for server in pool.servers
        )
        if pool.kind in _NOT_KNOWN and not says_limit:
            message, suggestion = _NOT_KNOWN[pool.kind]
            document.warn(path, message, suggestion)
