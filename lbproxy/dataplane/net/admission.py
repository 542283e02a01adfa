"""Who may connect: how many at once from one address, and whose TLS handshake is next.

Both are decided when a connection is accepted, before TLS, so that nobody holds what others need by being slow. With a
PROXY header that is when the header has come: until then only `trusted_proxies` can wait, for a few seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from math import inf
from typing import Final

from lbproxy.domain.shared.addresses import Addresses

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

    What has no address (unix sockets) is not counted. shared: where other workers have connections, too; it is asked as
    long as there is a limit. name: of the listener, whose connections are told from those of others by it.
    """

    __slots__ = ("_limit", "_name", "_shared", "counts")

    def __init__(self, limit: float, name: str = "", shared: Addresses | None = None) -> None:
        self._limit = limit
        self._name = name
        self._shared = shared
        self.counts: dict[str, int] = {}

    @property
    def limit(self) -> float:
        """inf: off."""
        return self._limit

    @limit.setter
    def limit(self, limit: float) -> None:
        was_on, self._limit = self._limit < inf, limit
        if self._shared is not None and was_on != (limit < inf):
            for key, count in self.counts.items():
                self._shared.change(self._mark(key), -count if was_on else count)

    def enter(self, ip: str) -> bool:
        """One more, over the limit too; False if it is over. Each call is followed by one of `leave`."""
        if not ip:
            return True
        key, count = ip, self.counts.get(ip, 0) + 1
        if count == 1:  # else it is what it is counted under, which is nobody else's address
            key = counted_as(ip)
            count = self.counts.get(key, 0) + 1
        self.counts[key] = count
        if self._shared is not None and self._limit < inf:
            count = self._shared.change(self._mark(key), 1)
        return count <= self._limit

    def leave(self, ip: str) -> None:
        if not self.counts or not ip:
            return
        key, count = ip, self.counts.get(ip, 0)
        if not count:
            key = counted_as(ip)
            count = self.counts.get(key, 0)
        if not count:
            return
        if count > 1:
            self.counts[key] = count - 1
        else:
            del self.counts[key]
        if self._shared is not None and self._limit < inf:
            self._shared.change(self._mark(key), -1)

    def _mark(self, key: str) -> int:
        """Not to be guessed by strangers: Python's hashes have a secret, which processes that were forked share."""
        return hash((self._name, key)) or 1


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
