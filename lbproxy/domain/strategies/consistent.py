"""Consistent hashing: requests with the same key go to the same server, which has what they need in memory already.

The keys are dealt into 65,536 slots, and each slot has its servers in an order of its own (weighted rendezvous
hashing): every pair of slot and server has a score that depends on nothing else, and the highest wins. So only the
slots of a lost server move, they spread over all others, and they return when it does; more weight only draws slots to
a server. Servers count by their names: the same names give the same choice in every process, after every restart and in
any order.

Why slots. A score for each server is what rendezvous hashing costs, and with keys that never come again (users,
sessions) nothing could be remembered. The first choice of a slot is worked out once and remembered until membership or
weights change, in bounded memory. Compiled, a pick takes 0.6 us with 10 and 100 servers and 4 us with 1,000, where what
is in flight has to be added up; working out a slot takes another 5 ns for each server (24 ns where weights differ),
once. Who comes after the first is worked out when a slot needs it, for RANKED servers, and remembered likewise: a first
choice that is full costs no look at all others. A table of Maglev would cost as much and move twice the keys; the
points of a ring would have to be sorted anew at each change. Shares are even to within sqrt(servers / 65536): 1 % with
10 servers, 4 % with 100, 12 % with 1,000.

Bounded load (Mirrokni, Thorup, Zadimoghaddam 2018): a server that has more than `bounded_load` times its share of what
is in flight already, the request at hand included, gets no more; that goes to the next in the slot's order. So nobody
has more than `bounded_load` times its share, and one. Without it one key that everybody wants overloads its server
while others idle. The bound holds at each pick, also where chance passes it: keys that are dealt out fairly give a
server with a share of s requests s +- sqrt(s) of them. With few in flight at each server that is much, and
docs/strategies.md says what it costs caches, and which bound lets chance through.

Who stands aside. Servers of other zones, while those of the own one suffice, and backups, while others do, get nothing,
whatever their keys. Such a key belongs to the first in its order that does not stand aside: that is no overload, and
not counted as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import inf, log
from typing import ClassVar, Final
from zlib import crc32

from lbproxy.compiling import i64, mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.hashing import client_key
from lbproxy.domain.strategies.least_connections import LeastConnections

SLOTS: Final = 1 << 16
_SEED: Final = 0x6C627831  # of everything that is hashed here; another one would deal all keys anew
_PERSON: Final = b"lbproxy hash"

DEFAULT_BOUND: Final = 1.25
RANKED: Final = 6  # servers of a slot, the first included, whose order is remembered
MOST_RANKED: Final = 1 << 14  # slots of which it is, about 2 MB


def mixed(number: i64) -> i64:
    """A permutation of the numbers of 32 bits in which every bit depends on every other: two rounds of xor-shift and
    multiply (constants by C. Wellons' search for low bias). Products stay below 2**63, so that it is the same compiled.
    """
    number ^= number >> 16
    number = (number * 0x21F0AAAD) & 0xFFFFFFFF
    number ^= number >> 15
    number = (number * 0x735A2D97) & 0xFFFFFFFF
    return number ^ (number >> 15)


def slot_of(key: bytes) -> int:
    """Where a key belongs: 0 to SLOTS - 1."""
    return mixed(crc32(key, _SEED)) >> 16


class _Seeds:
    """What a server's scores are made of: 64 bits of its name, in two halves."""

    __slots__ = ("high", "low", "server", "weight")

    def __init__(self, server: Server) -> None:
        name = server.name
        self.server = server
        digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8, person=_PERSON).digest()
        self.low: i64 = int.from_bytes(digest[:4], "big")
        self.high: i64 = int.from_bytes(digest[4:], "big")
        self.weight = server.weight


@mypyc_attr(allow_interpreted_subclasses=True)
class ConsistentHash:
    """See the module. Requests without a key go by least connections.

    n_owner, n_near, n_spilled, n_keyless: picks since they were taken: the first choice of the key; the first of the
    own zone, as the first choice stands in another; another, as that was full, over its bound or not usable; no key.
    """

    __slots__ = (
        "_by_load",
        "_dealt",
        "_eligible",
        "_eligible_set",
        "_eligible_weight",
        "_is_even",
        "_owners",
        "_ranks",
        "_seeds",
        "_stand_ins",
        "bounded_load",
        "hash_on",
        "n_keyless",
        "n_near",
        "n_owner",
        "n_spilled",
    )

    OPTIONS: ClassVar[tuple[str, ...]] = ("key", "bounded_load")

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self.hash_on: str = str(options.get("key", "client_ip"))
        self.bounded_load = _bound(options.get("bounded_load", DEFAULT_BOUND))
        self._by_load = LeastConnections({}, rng)
        self._seeds: dict[Server, _Seeds] = {}
        self._dealt: list[_Seeds] = []  # to whom slots are given
        self._is_even = True
        self._owners: list[Server | None] = [None] * SLOTS
        self._ranks: dict[int, tuple[Server, ...]] = {}
        self._eligible: Sequence[Server] = ()
        self._eligible_set: frozenset[Server] | None = None
        self._eligible_weight = -1
        self._stand_ins: dict[int, Server] = {}
        self.n_owner = self.n_near = self.n_spilled = self.n_keyless = 0

    def rebuild(self, servers: Sequence[Server]) -> None:
        """What was worked out stays where nothing has changed: a ramp of slow start changes no weight."""
        self._by_load.rebuild(servers)
        before = self._seeds
        if len(before) == len(servers) and all(
            server in before and before[server].weight == server.weight for server in servers
        ):
            return
        self._seeds = {server: _Seeds(server) for server in servers}
        seeds = list(self._seeds.values())
        self._dealt = [item for item in seeds if item.weight] or seeds
        self._is_even = len({item.weight for item in self._dealt}) <= 1
        self._owners = [None] * SLOTS
        self._ranks = {}
        self._eligible, self._eligible_set, self._eligible_weight = (), None, -1
        self._stand_ins = {}

    def twin(self, rng: Rng) -> ConsistentHash:
        """A copy, whose picks leave this one as it is. What both work out is the same, and they share it."""
        made = ConsistentHash({"key": self.hash_on}, rng)
        made.bounded_load = self.bounded_load
        made._by_load = self._by_load.twin(rng)
        made._seeds, made._dealt, made._owners = self._seeds, self._dealt, self._owners
        made._is_even = self._is_even
        made._ranks = self._ranks
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        """The first in the order of the key's slot that has not more than its bound already."""
        key = ctx.key
        if not key:
            if self.hash_on != "client_ip":
                self.n_keyless += 1
                return self._by_load.pick(eligible, ctx, now)
            key = client_key(ctx.client_ip)
        slot = slot_of(key)
        owner = self.owner(slot)
        is_near = False
        if not self._has(eligible, owner):
            if owner.far or owner.backup:
                is_near = owner.far
                owner = self._stand_in(eligible, slot, owner)
            if not self._has(eligible, owner):
                return self._next(eligible, slot, self._per_weight(eligible))
        inflight = owner.inflight
        if inflight:
            per_weight = self._per_weight(eligible)
            if inflight >= owner.free_limit or not self._is_within(owner, per_weight):
                return self._next(eligible, slot, per_weight)
        if is_near:
            self.n_near += 1
        else:
            self.n_owner += 1
        return owner

    def take_counts(self) -> tuple[int, int, int, int]:
        """n_owner, n_near, n_spilled and n_keyless since the last call."""
        taken = self.n_owner, self.n_near, self.n_spilled, self.n_keyless
        self.n_owner = self.n_near = self.n_spilled = self.n_keyless = 0
        return taken

    def owner(self, slot: int) -> Server:
        """Whose slot it is while all of its servers may take requests."""
        owner = self._owners[slot]
        if owner is None:
            owner = self._best(self._dealt, slot)
            if owner is None:
                raise LookupError("there was no rebuild()")
            self._owners[slot] = owner
        return owner

    def _has(self, eligible: Sequence[Server], server: Server) -> bool:
        """In a large pool a set is a tenth of what a look through a tuple costs, and mostly it is the same tuple."""
        if eligible is not self._eligible or not isinstance(eligible, tuple):
            self._eligible, self._eligible_set = eligible, None
            self._eligible_weight = -1
            self._stand_ins = {}
            return server in eligible
        if self._eligible_set is None:
            self._eligible_set = frozenset(eligible)
        return server in self._eligible_set

    def _per_weight(self, eligible: Sequence[Server]) -> float:
        """How much of what is in flight, the request at hand included, is the share of a weight of 1."""
        if self.bounded_load == inf:
            return inf
        is_known = eligible is self._eligible
        weights = self._eligible_weight if is_known else -1
        if weights < 0:
            weights = sum([other.weight for other in eligible])
            if is_known:
                self._eligible_weight = weights
        total = 1
        for other in eligible:
            total += other.inflight
        return total / weights if weights else inf

    def _is_within(self, server: Server, per_weight: float) -> bool:
        """May it have one more? 1e-9: what is a whole number up to rounding is one."""
        return per_weight == inf or server.inflight <= per_weight * server.weight * self.bounded_load + 1e-9

    def _stand_in(self, eligible: Sequence[Server], slot: int, owner: Server) -> Server:
        """Whose slot it is, as `owner` stands in another zone or is a backup, and not among `eligible`: the first that
        does not stand aside, whether it is up or not. owner: where it does not stand aside either, but is down."""
        found = self._stand_ins.get(slot)
        if found is None:
            has_far = any(other.far for other in eligible)
            has_backup = any(other.backup for other in eligible)
            for server in self.ranked(slot):
                if (has_far or not server.far) and (has_backup or not server.backup):
                    found = server
                    break
            else:
                beside = [
                    seeds
                    for seeds in self._dealt
                    if (has_far or not seeds.server.far) and (has_backup or not seeds.server.backup)
                ]
                found = self._best(beside, slot) or owner
            if len(self._stand_ins) >= MOST_RANKED:
                self._stand_ins = {}
            self._stand_ins[slot] = found
        return found

    def _next(self, eligible: Sequence[Server], slot: int, per_weight: float) -> Server:
        """The best of those that have a slot and are within their bounds. Without limits some server always is, as the
        bounds add up to more than there is; else the best of those with a slot. Where nobody has one it is the best of
        all, which the pool finds full, and no pick: that comes when there is a slot."""
        for server in self.ranked(slot):
            if (
                server.weight
                and server.inflight < server.free_limit
                and self._has(eligible, server)
                and self._is_within(server, per_weight)
            ):
                self.n_spilled += 1
                return server
        free = [server for server in eligible if server.weight and server.inflight < server.free_limit]
        within = [server for server in free if self._is_within(server, per_weight)]
        if free:
            self.n_spilled += 1
        known = self._seeds
        best = self._best([known[server] for server in within or free or eligible if server in known], slot)
        if best is None:
            raise LookupError("none of the eligible servers was in the last rebuild()")
        return best

    def ranked(self, slot: int) -> tuple[Server, ...]:
        """The first RANKED in the order of a slot, while all of its servers may take requests."""
        found = self._ranks.get(slot)
        if found is None:
            if len(self._ranks) >= MOST_RANKED:
                self._ranks = {}
            found = self._worked_out(slot)
            self._ranks[slot] = found
        return found

    def _worked_out(self, slot: int) -> tuple[Server, ...]:
        """By insertion: past the first few hardly anybody is better than the last of them."""
        start: i64 = mixed(slot + 1)
        scores: list[float] = []
        servers: list[Server] = []
        least = -1.0
        for seeds in self._dealt:
            number = mixed(mixed(start ^ seeds.low) ^ seeds.high)
            # As in `_best`; numbers of 32 bits are floats without loss.
            score = float(int(number)) if self._is_even else -seeds.weight / log((int(number) + 0.5) / 4294967296.0)
            if score < least:
                continue
            at = len(scores)
            while at and (
                scores[at - 1] < score or (scores[at - 1] == score and seeds.server.name < servers[at - 1].name)
            ):
                at -= 1
            scores.insert(at, score)
            servers.insert(at, seeds.server)
            if len(scores) > RANKED:
                scores.pop()
                servers.pop()
            if len(scores) == RANKED:
                least = scores[-1]
        return tuple(servers)

    def _best(self, among: list[_Seeds], slot: int) -> Server | None:
        """Who has the highest score. Equal scores are ordered by name, never by position in the config."""
        start: i64 = mixed(slot + 1)
        is_even = self._is_even
        best: Server | None = None
        most: i64 = -1
        most_score = -1.0
        for seeds in among:
            number = mixed(mixed(start ^ seeds.low) ^ seeds.high)
            if is_even:  # a score rises with its number, so where weights are equal the numbers are compared
                if number < most or (number == most and best is not None and best.name < seeds.server.name):
                    continue
                most = number
            else:
                score = -seeds.weight / log((int(number) + 0.5) / 4294967296.0)
                if score < most_score or (score == most_score and best is not None and best.name < seeds.server.name):
                    continue
                most_score = score
            best = seeds.server
        return best


def _bound(value: object) -> float:
    if value is False or value == "off":
        return inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1.0 <= value <= 100.0:
        raise ValueError(f"bounded_load is a number from 1 to 100, such as 1.25, or off; got {value!r}")
    return float(value)
