"""Sticky by user: requests that carry the same user id go to the same server, as long as it has room.

    pools:
      predict:
        strategy: {python: sticky_by_user.py:StickyByUser, header: x-user-id, spread: 2}

Useful where a server keeps something per user, such as a warm cache or a loaded adapter. A user belongs to `spread`
servers and the one with less in flight of them is taken, so that one busy user does not fill one server. Requests
without the header go to the server with the fewest requests in flight.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


def load_of(server: Server) -> float:
    return server.inflight / (server.weight or 1)


class StickyByUser:
    """Rendezvous hashing on a header: the servers with the highest hash of (user, server) are the user's own."""

    hash_on = ""  # it reads the request itself

    def __init__(self, options: Mapping[str, object], rng: random.Random) -> None:
        unknown = sorted(set(options) - {"header", "spread"})
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}; it takes header and spread")
        self._header = str(options.get("header", "x-user-id")).lower()
        spread = options.get("spread", 1)
        if not isinstance(spread, int) or spread < 1:
            raise ValueError(f"spread is a number of servers, 1 or more, not {spread!r}")
        self._spread = spread
        self._rng = rng

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Nothing to prepare: a hash of a user and a server depends on no other server."""

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        user = ctx.request.headers.get(self._header, "") if ctx.request is not None else ""
        if not user:
            return min(eligible, key=lambda server: (load_of(server), self._rng.random()))

        def hash_of(server: Server) -> bytes:
            return blake2b(f"{server.key} {user}".encode(errors="surrogateescape"), digest_size=8).digest()

        own = sorted(eligible, key=hash_of, reverse=True)[: self._spread]
        return min(own, key=load_of)  # the first of equals: the user's first choice
