"""Hashing: the same client goes to the same server for as long as that server is there.

Weighted rendezvous hashing (highest random weight): every pair of client and server has a score which depends on
nothing else, and the highest score wins. So only the clients of a lost server move, they spread over all others, and
they return when it does. Scores come from keyed BLAKE2b over `server.key`: equal in every process, after every restart
and in any order of servers. (CRC-32 would be faster but is linear: scores of one client would differ between servers
by a constant pattern and the shares would be uneven. Python's `hash()` differs from process to process.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address
from math import log
from typing import ClassVar, Final

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext

MEMO_KEYS: Final = 4096  # per generation; two generations of 8 servers take about 2 MB


@lru_cache(maxsize=4096)  # clients come again, and reading an IPv6 address takes a while
def client_key(client_ip: str) -> bytes:
    """What counts as one client: an IPv4 address, or the /64 network of an IPv6 address (a host owns all of it).

    An IPv4 address in IPv6 clothes (::ffff:192.0.2.1) is the IPv4 address. Anything else stands for itself.
    """
    if ":" not in client_ip:
        return client_ip.encode(errors="surrogateescape")
    try:
        address = IPv6Address(client_ip.partition("%")[0])
    except ValueError:
        return client_ip.encode(errors="surrogateescape")
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped).encode()
    return address.packed[:8]


def score(hash64: int, weight: int) -> float:
    """The score of a server of `weight` >= 0 for a client, from a uniform 64-bit number; 0 for weight 0.

    The chance to have the highest score is in proportion to the weight. 52 bits are used because more would round to
    u = 1.0, whose logarithm is 0.
    """
    uniform = ((hash64 >> 12) + 0.5) / 2.0**52
    return -weight / log(uniform)


@mypyc_attr(allow_interpreted_subclasses=True)
class IpHash:
    """Rendezvous hashing on `ctx.key`, or on the client's address where that is empty.

    Clients that come over a unix socket have no address and are all one client.
    """

    __slots__ = ("_memo", "_older_memo", "_seeds")

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = "client_ip"

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._seeds: list[tuple[Server, int, bytes]] = []
        self._memo: dict[bytes | str, tuple[Server, ...]] = {}
        self._older_memo: dict[bytes | str, tuple[Server, ...]] = {}

    def rebuild(self, servers: Sequence[Server]) -> None:
        self._seeds = [(server, server.weight, blake2b(server.key.encode()).digest()) for server in servers]
        self._memo = {}
        self._older_memo = {}

    def twin(self, rng: Rng) -> IpHash:
        """A copy, whose picks leave this one as it is."""
        made = IpHash({}, rng)
        made._seeds = self._seeds  # a list that is replaced, never changed
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        """The highest-ranked of `eligible`: without a full or lost server, the next-ranked."""
        ranked = self._ranked(ctx)
        for server in ranked:
            if server in eligible:
                return server
        raise LookupError("none of the eligible servers was in the last rebuild()")

    def _ranked(self, ctx: PickContext) -> tuple[Server, ...]:
        key: bytes | str = ctx.key or ctx.client_ip
        ranked = self._memo.get(key)
        if ranked is None:
            ranked = self._older_memo.get(key) or self._compute(key)
            self._remember(key, ranked)
        return ranked

    def _remember(self, key: bytes | str, ranked: tuple[Server, ...]) -> None:
        """Bounded without bookkeeping per use: a key survives if it is used once per generation."""
        if len(self._memo) >= MEMO_KEYS:
            self._older_memo = self._memo
            self._memo = {}
        self._memo[key] = ranked

    def _compute(self, key: bytes | str) -> tuple[Server, ...]:
        data = client_key(key) if isinstance(key, str) else key
        scored = [
            (score(int.from_bytes(blake2b(data, digest_size=8, key=seed).digest(), "big"), weight), server)
            for server, weight, seed in self._seeds
        ]
        # Equal scores (chance 2**-52, or weights 0) are ordered by name, never by position in the config.
        scored.sort(key=lambda pair: (-pair[0], pair[1].key))
        return tuple(server for _, server in scored)
