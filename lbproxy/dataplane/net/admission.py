"""Who may connect: how many at once from one address, and whose TLS handshake is next.

Both are decided when a connection is accepted, before TLS, so that nobody holds what others need by being slow. With a
PROXY header that is when the header has come: until then only `trusted_proxies` can wait, for a few seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

PREFIX_BITS: Final = 64  # of an IPv6 address: what one customer has at least (RFC 6177); each of them can use all of it


def counted_as(ip: str) -> str:
    """What the connections of an address are counted under: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip.partition("%")[0])
    except ValueError:
        return ip
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else f"{address.packed[: PREFIX_BITS // 8].hex(':', 2)}::/{PREFIX_BITS}"


class AddressCounts:
    """Connections at once, by address. limit: inf for off, and may change: so they are counted all the same.

    What has no address (unix sockets) is not counted.
    """

    __slots__ = ("counts", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.counts: dict[str, int] = {}

    def enter(self, ip: str) -> bool:
        """One more, over the limit too; False if it is over. Each call is followed by one of `leave`."""
        if not ip:
            return True
        key = counted_as(ip)
        count = self.counts.get(key, 0) + 1
        self.counts[key] = count
        return count <= self.limit

    def leave(self, ip: str) -> None:
        if not self.counts or not ip:
            return
        key = counted_as(ip)
        count = self.counts.get(key, 0)
        if count > 1:
            self.counts[key] = count - 1
        elif count:
            del self.counts[key]


class Turns:
    """At most `limit` at once; whoever comes then waits for its turn, first come first served."""

    __slots__ = ("_waiting", "limit", "n_active")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_active = 0
        self._waiting: dict[object, Callable[[], None]] = {}

    def enter(self, who: object, turn_came: Callable[[], None]) -> bool:
        """True: it has its turn now. Else `turn_came` is called, once, unless it leaves before."""
        if self.n_active < self.limit and not self._waiting:
            self.n_active += 1
            return True
        self._waiting[who] = turn_came
        return False

    def leave(self, who: object) -> None:
        """It had its turn, or waits no longer. Once for each `enter`."""
        if self._waiting.pop(who, None) is not None:
            return
        self.n_active -= 1
        while self._waiting and self.n_active < self.limit:
            first = next(iter(self._waiting))
            turn_came = self._waiting.pop(first)
            self.n_active += 1
            turn_came()

    def is_waiting(self, who: object) -> bool:
        return who in self._waiting
