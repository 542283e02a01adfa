"""Which of the servers that may take a request gets it: a strategy, and what the pool does around one.

A plug-in's defect must not fail traffic: where a strategy raises, or returns a server that it was not offered, the
fallback picks, and `failed` hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbproxy.domain.keys import key_of
from lbproxy.domain.server import Server
from lbproxy.domain.speed import Speeds
from lbproxy.domain.strategies.base import PickContext, Strategy
from lbproxy.domain.strategies.consistent import ConsistentHash
from lbproxy.domain.strategies.hashing import IpHash, client_key
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.request_key import RequestKey, read_key


class Picker:
    """The strategy of one pool. heeds_penalties, is_hashing: what the strategy says of itself (strategies/base.py).

    key: what it hashes on, None for nothing or the client's address. reads_bodies: it is in
    the body, for who reads that to find.
    """

    __slots__ = (
        "_failed",
        "_fallback",
        "_is_sure",
        "_least",
        "_speeds",
        "_wants_key",
        "heeds_penalties",
        "is_hashing",
        "key",
        "reads_bodies",
        "strategy",
    )

    strategy: Strategy
    heeds_penalties: bool
    is_hashing: bool
    key: RequestKey | None
    reads_bodies: bool
    _is_sure: bool
    _least: LeastConnections | None
    _speeds: Speeds | None
    _wants_key: bool

    def __init__(self, strategy: Strategy, fallback: Strategy, failed: Callable[[Exception], None]) -> None:
        self._fallback = fallback
        self._failed = failed
        self.use(strategy)

    def use(self, strategy: Strategy) -> None:
        """Have this one pick from now on; `rebuild` must follow where there are servers."""
        hash_on = getattr(strategy, "hash_on", "")
        self.strategy = strategy
        self.heeds_penalties = bool(getattr(strategy, "heeds_penalties", False))
        self.is_hashing = bool(hash_on)
        # Who derives from IpHash may read the key; it itself does without, as it remembers what an address comes to.
        self._wants_key = bool(hash_on) and type(strategy) is not IpHash
        self.key = read_key(hash_on) if hash_on and hash_on != "client_ip" else None
        self.reads_bodies = self.key is not None and self.key.pointer is not None
        # To look through a pool of 1,000 for what can't be missing would cost more than its pick.
        self._is_sure = type(strategy) is ConsistentHash
        # Most pools have this one; known by its class it is called directly.
        self._least = strategy if type(strategy) is LeastConnections else None
        self._speeds = Speeds() if getattr(strategy, "fills_fast_first", False) else None

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Membership or a weight changed: all servers of the pool."""
        self._fallback.rebuild(servers)
        try:
            self.strategy.rebuild(servers)
        except Exception as error:  # a plug-in's defect
            self._failed(error)

    def pick(self, eligible: tuple[Server, ...], ctx: PickContext, now: float) -> Server:
        """One of `eligible`, which is not empty."""
        if self._wants_key:
            self.fill_key(ctx)
        least = self._least
        try:
            if least is not None:
                return least.pick(eligible, ctx, now)
            server = self.strategy.pick(eligible, ctx, now)
        except Exception as error:  # a plug-in's defect
            self._failed(error)
            return self._fallback.pick(eligible, ctx, now)
        if not self._is_sure and server not in eligible:
            self._failed(LookupError(f"the strategy returned {server!r}, which is not eligible"))
            return self._fallback.pick(eligible, ctx, now)
        return server

    def fill_key(self, ctx: PickContext) -> None:
        """Give a request that has none yet its key, as far as its head and its client say it."""
        if not self._wants_key or ctx.key:
            return
        if self.key is None:
            ctx.key = client_key(ctx.client_ip)
        elif ctx.request is not None:
            ctx.key = key_of(self.key, ctx.request)

    def foresee(self, twin: Strategy, eligible: tuple[Server, ...], ctx: PickContext, now: float) -> Server:
        """`pick` by a copy of the strategy, which it changes in place of the strategy. Raises what a plug-in raises."""
        if self._wants_key:
            self.fill_key(ctx)
        server = twin.pick(eligible, ctx, now)
        if server not in eligible:
            raise LookupError(f"it returned {server!r}, which is not eligible")
        return server

    # --- slower servers last ----------------------------------------------------------------------------------------

    def prefer(self, servers: Sequence[Server]) -> tuple[Server, ...]:
        """Those of them that are not measurably slower than the others; all if there is no other."""
        return tuple(servers) if self._speeds is None else self._speeds.prefer(servers)

    def is_slower(self, server: Server) -> bool:
        """Is it measurably slower than the others, so that its slots are used last?"""
        return self._speeds is not None and server in self._speeds.slower

    def step(self, servers: Sequence[Server], now: float) -> bool:
        """Time passed. True if it is other servers that are slower now."""
        return self._speeds is not None and self._speeds.step(servers, now)
