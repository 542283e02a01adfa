"""Servers from an SRV record (RFC 2782): its targets, with port and weight, at each of their addresses.

What an answer means:

    records, each with addresses     believed, whatever it replaces
    one record with the target `.`   there is no server, on purpose: believed
    no such name, or no such record  the last answer stays for `hold`, then there is no server
    SERVFAIL, time-out, no resolver  the last answer stays
    no address for a target          that target keeps its last addresses by the same rules; the others are believed

The lowest priority is the pool, higher ones are backups. A weight of 0 is 1 here: RFC 2782 means a small share by it,
and in lbproxy it would mean none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lbproxy.address import Address
from lbproxy.control.discovery.source import MIN_GAP_S, Answer, Found, Pause, Polled, Source, Trouble, pause

AT_ONCE = 8  # look-ups of targets
MAX_TARGETS = 256
SHOWN = 3  # targets without addresses that are told


@dataclass(frozen=True, slots=True)
class Record:
    """One SRV record. target: without the dot at its end; "" for `.`, which says that there is no server."""

    priority: int
    weight: int
    port: int
    target: str


class NoSuchName(OSError):
    """The resolver says that there is no such name, or no such record of it."""


class SrvResolver(Protocol):
    """Raises NoSuchName, and OSError for what is no answer."""

    async def srv(self, name: str) -> Sequence[Record]: ...

    async def addresses(self, target: str) -> Sequence[str]: ...


class _Held:
    """A good answer, and since when the name is said not to exist: None while it does."""

    __slots__ = ("gone_at", "value")

    def __init__(self, value: Sequence[str]) -> None:
        self.value = value
        self.gone_at: float | None = None

    def is_over(self, now: float, hold_s: float) -> bool:
        """The resolver says again that there is no such name: has it said so for long enough?"""
        if self.gone_at is None:
            self.gone_at = now
        return now - self.gone_at >= hold_s


class SrvSource(Polled):
    """srv: the name. The rest is as in `dns` of the config."""

    kind = values_from = "dns"
    rank = 3

    def __init__(
        self,
        srv: str,
        interval_s: float,
        hold_s: float,
        resolver: SrvResolver,
        clock: Callable[[], float],
        pause: Pause = pause,
    ) -> None:
        super().__init__(f"srv:{srv}", f"DNS (SRV {srv})", pause)
        self._srv = srv
        self.wait_s = max(interval_s, MIN_GAP_S)
        self._hold_s = hold_s
        self._resolver = resolver
        self._clock = clock
        self._gone_at: float | None = None
        self._has_answered = False
        self._targets: dict[str, _Held] = {}

    def succeed(self, before: Source) -> None:
        if isinstance(before, SrvSource) and before._srv == self._srv:
            self._has_answered, self._gone_at, self._targets = before._has_answered, before._gone_at, before._targets

    async def look(self) -> Answer:
        try:
            records = await self._resolver.srv(self._srv)
        except NoSuchName as error:
            return self._no_such_name(str(error))
        except OSError as failure:
            return Trouble(failure.strerror or str(failure))
        self._gone_at, self._has_answered = None, True
        records = [record for record in records if record.port]
        targets = {record.target for record in records if record.target}
        if len(targets) > MAX_TARGETS:
            return Trouble(f"the answer has {len(targets)} targets, and {MAX_TARGETS} are the most")
        self._targets = {target: held for target, held in self._targets.items() if target in targets}
        turns, troubles = asyncio.Semaphore(AT_ONCE), list[str]()
        ordered = sorted(targets)
        found = await asyncio.gather(*(self._addresses(target, turns, troubles) for target in ordered))
        servers = _servers(records, dict(zip(ordered, found, strict=True)))
        self.lacking = "; ".join(sorted(troubles)[:SHOWN])
        return Trouble(self.lacking) if troubles and not servers else servers

    def _no_such_name(self, why: str) -> Answer:
        if not self._has_answered:
            return Trouble(why)
        now = self._clock()
        if self._gone_at is None:
            self._gone_at = now
        if now - self._gone_at < self._hold_s:
            return Trouble(why)
        self.lacking = f"{why}, for longer than dns.hold"
        return ()

    async def _addresses(self, target: str, turns: asyncio.Semaphore, troubles: list[str]) -> Sequence[str]:
        """Those of a target, or the last good ones if need be."""
        held = self._targets.get(target)
        try:
            async with turns:
                addresses = await self._resolver.addresses(target)
        except NoSuchName as error:
            why, is_over = str(error), held is not None and held.is_over(self._clock(), self._hold_s)
        except OSError as failure:
            why, is_over = failure.strerror or str(failure), False
        else:
            self._targets[target] = _Held(addresses)
            return addresses
        troubles.append(f"its target {target}: {why}")
        return () if held is None or is_over else held.value

    def failed(self, why: str) -> str:
        return f"looking up SRV {self._srv} failed: {why}"

    def recovered(self, n_servers: int) -> str:
        return f"SRV {self._srv} resolves again, to {n_servers} servers"

    def gone(self) -> str:
        return f"SRV {self._srv} no longer has it"


def _servers(records: Sequence[Record], addresses: dict[str, Sequence[str]]) -> list[Found]:
    """The servers of an answer, in an order that does not change with that of the records."""
    first = min((record.priority for record in records), default=0)
    return [
        Found(
            Address(ip, record.port),
            f"{record.target}:{record.port}/{ip}",
            max(1, record.weight),
            None,
            record.priority > first,
            record.target,
        )
        for record in sorted(records, key=lambda item: (item.priority, item.target, item.port))
        for ip in addresses.get(record.target, ())
    ]
