"""The members of one pool, as several sources have them: who joins, who stays, who goes.

A server is its address. However many sources have it, it is one server, and stays while one of them does; the one with
the lowest rank says what its weight, its limit and its host are. Its name is that with which it joined.

Life of a server: in the first answer of its source -> joins `unknown` and takes traffic, as at start-up; in a later
one -> joins `down` until its first pass; in no answer any more -> `drain`, and leaves when nothing is in flight; back
before that -> what the operator wanted of it before, as a rule ready. All that is known of it lives on meanwhile.

Where one answer replaces every usable server by others that no check has seen yet, the old ones stay for up to SPARE_S:
in between nobody could take a request. One that an operator added through the API is his: no source takes it over but
the config file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lbproxy.control.discovery.source import Found, Source
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health

log = logging.getLogger("lbproxy.control.discovery")

JOINING = "joining"
SPARE_S = 5.0


class Membership(Protocol):
    """Who makes and drops what belongs to a server (counters, idle connections, checks) along with the pool's entry."""

    def add(self, pool: Pool, server: Server) -> None: ...

    def remove(self, pool: Pool, server: Server) -> None: ...


class Keeper(Membership, Protocol):
    """Also knows what operators set, which stands over what a source says."""

    def give(self, pool: Pool, server: Server, key: str, value: int) -> None:
        """A source says that `weight` or `max_inflight` (0: no limit) is this."""
        ...


@dataclass(slots=True, eq=False)
class Share:
    """What one source has in the pool: `found`, by address, is in force.

    joins_up: what it brings takes traffic before the first check. spare_until: see SPARE_S; 0.0: not now.
    """

    source: Source
    joins_up: bool = True
    found: dict[str, Found] = field(default_factory=dict)
    has_answered: bool = False
    spare_until: float = 0.0


@dataclass(slots=True, eq=False)
class Member:
    """A server that sources have.

    holders: which, the lowest rank first. last: the first of them, or who had it last. wanted: of a server that leaves,
    what the operator wanted of it; None: it stays.
    """

    server: Server
    last: Source
    holders: list[Share] = field(default_factory=list)
    wanted: Admin | None = None


class _There:
    """Who is in a pool, by what a newcomer is compared with; made once for many of them."""

    __slots__ = ("by_key", "names")

    def __init__(self, pool: Pool) -> None:
        self.by_key: dict[str, Server] = {}
        self.names: set[str] = set()
        for server in pool.servers:
            self.joined(server)

    def joined(self, server: Server) -> None:
        self.by_key.setdefault(server.key, server)
        self.names.add(server.name)


class Roster:
    """is_checked: the pool has health checks. limit: max_inflight of servers without their own, 0 for none.

    known: where its members are entered, with those of other pools.
    """

    def __init__(
        self,
        pool: Pool,
        keeper: Keeper,
        clock: Callable[[], float],
        known: dict[Server, Member],
        *,
        is_checked: bool,
        limit: int = 0,
    ) -> None:
        self.pool = pool
        self._known = known
        self.is_checked = is_checked
        self.limit = limit
        self._keeper = keeper
        self._clock = clock
        self._members: dict[str, Member] = {}

    @property
    def has_leaving(self) -> bool:
        return any(member.wanted is not None for member in self._members.values())

    # --- what changes -----------------------------------------------------------------------------------------------

    def apply(self, share: Share, wanted: Mapping[str, Found]) -> bool:
        """Bring the members in line with an answer. False: the old ones stay a while; apply it again soon."""
        there = _There(self.pool)
        for key, found in wanted.items():
            before = share.found.get(key)
            share.found[key] = found
            if before is None:
                self._take(share, key, there)
            elif before != found:
                self._settle(key)
        share.has_answered, share.joins_up = True, False
        gone = [key for key in share.found if key not in wanted]
        if gone and self._must_spare(share, gone):
            return False
        share.spare_until = 0.0
        for key in gone:
            self._let_go(share, key)
        self.remove_drained()
        return True

    def forget(self) -> None:
        """Its members are no source's any more."""
        for member in self._members.values():
            del self._known[member.server]
        self._members.clear()

    def settle_all(self) -> None:
        """What the pool gives to servers without their own changed."""
        for key in self._members:
            self._settle(key)

    def _must_spare(self, share: Share, gone: Iterable[str]) -> bool:
        """Would nobody be left but servers that have not passed their first check?"""
        going = {key for key in gone if key in self._members and self._members[key].holders == [share]}
        rest = [server for server in self.pool.servers if server.key not in going and server.admin is Admin.READY]
        if any(server.is_usable for server in rest):
            return False
        if not any(server.health is Health.DOWN and not server.was_up for server in rest):
            return False  # nobody is awaited
        if not any(server.is_usable for server in self.pool.servers):
            return False  # nothing is won
        now = self._clock()
        if share.spare_until == 0.0:
            share.spare_until = now + SPARE_S
            told = "pool %s: %s lost every usable server; they stay until a new one passes a check, for %g s at most"
            log.info(told, self.pool.name, share.source.title, SPARE_S)
        return now < share.spare_until

    def _take(self, share: Share, key: str, there: _There) -> None:
        """A source has an address that it did not have before."""
        pool, member = self.pool, self._members.get(key)
        if member is None:
            server = there.by_key.get(key)
            if server is not None:
                return  # the config file names it, or an operator added it: it is what they say
            server = self._join(share, share.found[key], there)
            member = self._members[key] = self._known[server] = Member(server, share.source)
        member.holders.append(share)
        member.holders.sort(key=lambda holder: holder.source.rank)
        if member.wanted is not None:
            wanted, member.wanted = member.wanted, None
            pool.set_admin(member.server, wanted, f"{share.source.title} has it again", self._clock())
        self._settle(key)

    def _join(self, share: Share, found: Found, there: _There) -> Server:
        # Names are labels of counters: two servers cannot share one. Who comes later gets the address too.
        server = Server(
            found.name if found.name not in there.names else f"{found.name}/{found.address}",
            found.address,
            weight=found.weight,
            max_inflight=found.max_inflight or self.limit,
            backup=found.backup,
            host=found.host,
        )
        server.zone, server.far = found.zone, found.far
        if self.is_checked and not share.joins_up:
            server.health, server.down_reason, server.why = Health.DOWN, JOINING, "joined; no check has passed yet"
            server.changed_at = self._clock()
        log.info("pool %s: server %s joins", self.pool.name, server.name)
        self._keeper.add(self.pool, server)
        there.joined(server)
        return server

    def _settle(self, key: str) -> None:
        """Make a server what its first holder says."""
        member = self._members.get(key)
        if member is None or not member.holders:
            return
        share, server = member.holders[0], member.server
        found, member.last = share.found[key], share.source
        server.host = found.host or found.address.host
        server.zone = found.zone
        if server.far != found.far:
            self.pool.set_far(server, found.far, self._clock())
        limit = found.max_inflight if found.max_inflight is not None else self.limit
        self._keeper.give(self.pool, server, "weight", found.weight)
        self._keeper.give(self.pool, server, "max_inflight", limit)
        if server.backup != found.backup:
            log.info(
                "pool %s: server %s is %s now", self.pool.name, server.name, "a backup" if found.backup else "no backup"
            )
            self.pool.set_backup(server, found.backup, self._clock())

    def _let_go(self, share: Share, key: str) -> None:
        """A source lost an address: the server leaves, unless another source has it."""
        del share.found[key]
        member = self._members.get(key)
        if member is None or share not in member.holders:
            return
        member.holders.remove(share)
        pool, server, source = self.pool, member.server, share.source
        if member.holders:
            self._settle(key)
            log.info("pool %s: server %s stays: %s, %s", pool.name, server.name, source.gone(), member.last.stays())
            return
        member.last, member.wanted = source, server.admin
        log.info("pool %s: server %s leaves: %s", pool.name, server.name, source.gone())
        if server.admin is Admin.READY:
            pool.set_admin(server, Admin.DRAIN, source.gone(), self._clock())

    def remove_drained(self) -> None:
        """Let servers go that have nothing in flight any more."""
        for key, member in list(self._members.items()):
            if member.wanted is not None and self.pool.is_drained(member.server, self._clock()):
                del self._members[key], self._known[member.server]
                self._keeper.remove(self.pool, member.server)

    def left(self, server: Server, shares: Iterable[Share]) -> None:
        """Somebody else removed a server. A source that has its address, but not this server, has its turn now."""
        if self._known.pop(server, None) is not None:
            del self._members[server.key]
            return
        for share in shares:
            if server.key in share.found and server not in self.pool.servers:
                self._take(share, server.key, _There(self.pool))
