"""What `sticky` of a pool needs, and where it cannot work."""

from __future__ import annotations

from typing import Final

from lbproxy.config.model import Config, Pool
from lbproxy.config.problems import Path
from lbproxy.config.source import Document

LEAST_SECRET: Final = 16
"""Characters. Whoever guesses the secret can choose a server, and nothing else; but nobody should."""

_HOW: Final = "write `secret: ${STICKY_SECRET}`, and make one with: openssl rand -hex 32"


def check_sticky(pool: Pool, path: Path, document: Document) -> None:
    """Complain of what cannot be."""
    sticky, place = pool.sticky, (*path, "sticky")
    if sticky is None:
        return
    if sticky.secret is None:
        document.object_to((*place, "secret"), "is required", _HOW)
    elif len(sticky.secret) < LEAST_SECRET:
        document.object_to(
            (*place, "secret"), f"has {len(sticky.secret)} characters, and {LEAST_SECRET} are the least", _HOW
        )
    if sticky.same_site == "none" and sticky.secure == "off":
        document.object_to(
            (*place, "secure"), "must be on with `same_site: none`: browsers drop such a cookie", "write `secure: on`"
        )
    if sticky.cookie.startswith(("__Secure-", "__Host-")) and sticky.secure == "off":
        document.object_to(
            (*place, "secure"), f"must be on for a cookie named {sticky.cookie}: browsers drop it", "write `secure: on`"
        )
    if sticky.cookie.startswith("__Host-") and sticky.path != "/":
        document.object_to((*place, "path"), f"must be / for a cookie named {sticky.cookie}", "remove it")


def check_cookies(config: Config, document: Document) -> None:
    """A cookie belongs to one pool, and TCP has none."""
    first: dict[tuple[str, str], str] = {}
    for name, pool in config.pools.items():
        if pool.sticky is None:
            continue
        if pool.sticky.wait and config.workers != 1:
            document.object_to(
                ("pools", name, "sticky", "wait"),
                "can't be had with several workers: they have no common line for one server",
                "leave it out, and a request whose server has no slot goes elsewhere at once; or set `workers: 1`",
                at_key=True,
            )
        other = first.setdefault((pool.sticky.cookie, pool.sticky.path), name)
        if other != name:
            document.warn(
                ("pools", name, "sticky", "cookie"),
                f"is the cookie of pool {other} too: on one host each pool would replace that of the other",
                "name another",
            )
    for listener in config.listeners:
        if listener.mode == "tcp" and listener.pool is not None:
            found = config.pools.get(listener.pool)
            if found is not None and found.sticky is not None:
                document.warn(
                    ("pools", listener.pool, "sticky"), "has no effect on TCP connections, which have no cookies"
                )
