"""Live control: what operators change of the servers while traffic flows, and what is known of each such change.

A live value stands until it is given back (`"file"`) or the process ends; control/kept_state.py keeps it for the next
one. What the config file, or DNS, says is kept
beside it. Everything is checked before anything is changed. Each change is one line of the log: who, from where, which
server, the old and the new value.

A server that is removed drains first: no new request, and it is gone when its last lease is back. Until then `ready`
takes it back. One that is added is as one that discovery finds: down until its first passing check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import inf
from types import MappingProxyType
from typing import Final, Protocol

from lbproxy.address import Address
from lbproxy.config.one_server import read_server
from lbproxy.config.problems import ConfigError
from lbproxy.config.server_model import ServerSpec
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.roster import JOINING, Membership
from lbproxy.control.discovery.source import Source
from lbproxy.control.event_log import EventLog
from lbproxy.control.live_values import (
    FILE,
    KEYS,
    Change,
    Refused,
    Value,
    lets_in,
    read_after,
    read_keep_sticky,
    read_values,
    set_number,
    set_value,
    shown,
    text_of,
    value_of,
)
from lbproxy.control.status import Json
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health

log = logging.getLogger(__name__)

MAX_ADDRESSES: Final = 64  # of a name that is added: as many servers
SHOWN: Final = 10  # names that a refusal lists


class NotThere(LookupError):
    """There is no such pool or server. The text names those that may be meant."""


class Conflict(Exception):
    """Not as things are now. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class LiveValue:
    """A value that an operator set. at: monotonic seconds. given: what stands in the file. is_removal: nobody set it
    for its own sake, it belongs to the server's removal."""

    by: str
    at: float
    given: Value
    is_removal: bool = False


@dataclass(slots=True)
class Record:
    """What is known of one server. since: when it joined. added_by: who added it, "" for one of the file or of DNS."""

    since: float
    added_by: str = ""
    live: dict[str, LiveValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removal:
    """Somebody removed a server that the file names. at: monotonic seconds."""

    by: str
    at: float


class Origins(Protocol):
    """Who knows what servers come from (control/discovery/discovery.py)."""

    def source_of(self, server: Server) -> Source | None: ...

    def keeper_of(self, server: Server) -> Source | None: ...

    def is_leaving(self, server: Server) -> bool: ...


class LiveControl:
    """Changes servers of `pools`. clock: monotonic seconds. check_soon: look at a server before its next turn.

    events: hears of each change. changed: called when something that `record`, `removals` or `is_leaving` tell is
    another than before.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        membership: Membership,
        origins: Origins,
        check_soon: Callable[[Pool, Server], None],
        clock: Callable[[], float],
        events: EventLog,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._pools = pools
        self._events = events
        self._membership = membership
        self._origins = origins
        self._check_soon = check_soon
        self._clock = clock
        self._started_at = clock()
        self._records: dict[Server, Record] = {}
        self._unknown = Record(self._started_at)  # of one that was there from the start, until something is set
        self._leaving: dict[Server, Pool] = {}
        self._cuts: dict[Server, tuple[Pool, int]] = {}  # where something will be cut, and how much was seen last
        self._removals: dict[str, dict[tuple[str, str], Removal]] = {}  # by pool; by name and address
        self._changed = changed

    # --- which ------------------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """Raises NotThere."""
        pool = self._pools.get(name)
        if pool is None:
            raise NotThere(_unknown("pool", name, self._pools))
        return pool

    def server(self, pool: Pool, name: str) -> Server:
        """By its name, or by its address if that is no other's name. Raises NotThere."""
        servers = {server.key: server for server in pool.servers} | {server.name: server for server in pool.servers}
        if name in servers:
            return servers[name]
        for known in pool.names:
            if known.is_unresolved and name in known.servers:
                raise NotThere(f"{name} of pool {pool.name} has no address yet ({known.host}: {known.why})")
        raise NotThere(f"pool {pool.name}: {_unknown('server', name, [server.name for server in pool.servers])}")

    # --- change -----------------------------------------------------------------------------------------------------

    def change(self, pool: Pool, server: Server, wanted: Mapping[str, object], caller: Caller) -> dict[str, Change]:
        """Set some of KEYS; what is the same already is left out of the answer. Raises Refused, Conflict.

        `after`, with `admin: maint`: what is in flight is cut so many seconds from now. `keep_sticky`, with
        `admin: drain`: clients that stick to the server stay.
        """
        after_s, keep_sticky = read_after(wanted), read_keep_sticky(wanted)
        asked = read_values({key: value for key, value in wanted.items() if key not in ("after", "keep_sticky")})
        if "admin" in asked and self._origins.is_leaving(server):
            source = self._origins.source_of(server)
            raise Conflict(f"{server.name} leaves the pool: {source.gone() if source is not None else 'it is gone'}")
        live, now = self._record(server).live, self._clock()
        given = {key: live[key].given if key in live else value_of(server, key) for key in asked}
        values = {key: given[key] if value is None else value for key, value in asked.items()}
        if values.get("admin") is Admin.READY and self._leaving.pop(server, None) is not None:
            self._taken_back(pool, server)
        old = {key: before for key, value in values.items() if (before := value_of(server, key)) != value}
        kept = Change(server.keep_sticky, keep_sticky)
        if "admin" in values and kept.old != kept.new:
            old.setdefault("admin", value_of(server, "admin"))
        # What lets fewer requests in goes first, so that in between nobody gets a slot that is none in the end.
        for key in sorted(old, key=lambda key: lets_in(key, old[key], values[key])):
            set_value(pool, server, key, values[key], caller, now, keep_sticky=keep_sticky)
            if values[key] == given[key]:
                live.pop(key, None)
            else:
                live[key] = LiveValue(str(caller), now, given[key])
        changes = {
            key: Change(shown(key, before), shown(key, values[key]))
            for key, before in old.items()
            if before != values[key]
        }
        if "admin" in old and kept.old != kept.new:
            changes["keep_sticky"] = kept
        if after_s is not None and (change := self._cut_after(pool, server, after_s, now)) is not None:
            changes["after"] = change
        if changes:
            told = ", ".join(f"{key}: {change}" for key, change in changes.items())
            log.info("pool %s: server %s: %s, by %s", pool.name, server.name, told, caller)
            self._tell(pool, server, told, str(caller), changes)
        if old.get("admin") is Admin.MAINT:
            self._check_soon(pool, server)
        return changes

    def _cut_after(self, pool: Pool, server: Server, after_s: float, now: float) -> Change | None:
        before_s = max(0.0, round(server.cut_at - now, 3))
        if before_s == after_s:
            return None
        server.cut_at = now + after_s
        self._cuts[server] = (pool, server.inflight)
        return Change(None if before_s == inf else before_s, None if after_s == inf else after_s)

    def tell_cuts(self) -> None:
        """Say what is cut, as the data plane does it by itself. To be called now and then."""
        now = self._clock()
        for server, (pool, n_left) in list(self._cuts.items()):
            if now < server.cut_at < inf:
                self._cuts[server] = (pool, server.inflight)
                continue
            del self._cuts[server]
            if server.cut_at < inf and n_left:
                told = f"the time for what was in flight is over: {n_left} left, to be cut"
                log.warning("pool %s: server %s: %s", pool.name, server.name, told)
                self._tell(pool, server, told)

    # --- members ----------------------------------------------------------------------------------------------------

    def add(
        self, pool: Pool, value: object, caller: Caller, addresses: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> list[Server]:
        """Servers join: one, or as many as the range has ports. Raises Refused, Conflict.

        addresses: of the host names in it (`hosts_in`); each makes a server.
        """
        specs: list[tuple[ServerSpec, str]] = []
        for spec in _read_specs(value):
            host = spec.address.host
            if spec.address.is_literal:
                specs.append((spec, host))
                continue
            found = addresses.get(host, ())
            if not 0 < len(found) <= MAX_ADDRESSES:
                raise Refused([f"address: {host} has {len(found)} addresses, and 1 to {MAX_ADDRESSES} are taken"])
            for ip in found:
                address = Address(ip, spec.address.port)
                specs.append((spec.model_copy(update={"address": address, "name": f"{spec.name}/{ip}"}), host))
        self._refuse_doubles(pool, [spec for spec, _ in specs])
        return [self._add(pool, spec, host, caller) for spec, host in specs]

    def _refuse_doubles(self, pool: Pool, specs: Sequence[ServerSpec]) -> None:
        keys, names = {str(spec.address) for spec in specs}, {spec.name for spec in specs}
        for server in pool.servers:
            if server.key not in keys and server.name not in names:
                continue
            more = "; it is being removed, and `ready` takes it back" if server in self._leaving else ""
            what = "address" if server.key in keys else "name"
            raise Conflict(f"server {server.name} of pool {pool.name} has this {what}{more}")

    def _add(self, pool: Pool, spec: ServerSpec, host: str, caller: Caller) -> Server:
        server = _made(spec, host)
        if pool.members.passive_retry_s is None:  # it has checks
            server.health, server.down_reason, server.why = Health.DOWN, JOINING, "joined; no check has passed yet"
            server.changed_at = self._clock()
        self.joined(server, str(caller))
        self._membership.add(pool, server)
        log.info("pool %s: server %s is added, by %s", pool.name, server.name, caller)
        self._tell(pool, server, "added", str(caller))
        return server

    def remove(self, pool: Pool, server: Server, caller: Caller) -> bool:
        """It drains and goes. True if it is gone already. Raises Conflict for a server that would be brought back."""
        source = self._origins.keeper_of(server)
        if source is not None:
            raise Conflict(f"{server.name} comes from {source.title}, which would bring it back; drain it instead")
        if server not in self._leaving:
            log.info("pool %s: server %s is removed when it is idle, by %s", pool.name, server.name, caller)
            self._tell(pool, server, "is removed when it is idle", str(caller))
            if self._origins.source_of(server) is None and not self.was_added(server):
                removals = self._removals.setdefault(pool.name, {})
                removals[server.name, server.key] = Removal(str(caller), self._clock())
        self.leave(pool, server, str(caller))
        self.remove_drained()
        return server not in pool.servers

    def remove_drained(self) -> None:
        """Let servers go that have nothing in flight any more. To be called now and then."""
        for server, pool in list(self._leaving.items()):
            if pool.is_drained(server, self._clock()):
                del self._leaving[server]
                self._membership.remove(pool, server)
                log.info("pool %s: server %s is gone", pool.name, server.name)
                self._tell(pool, server, "gone")

    def _tell(
        self, pool: Pool, server: Server, what: str, by: str | None = None, changes: Mapping[str, Change] | None = None
    ) -> None:
        text = f"pool {pool.name}: server {server.name}: {what}"
        old = {key: change.old for key, change in changes.items()} if changes else None
        new = {key: change.new for key, change in changes.items()} if changes else None
        self._events.add("live", text, pool=pool.name, server=server.name, by=by, old=old, new=new)
        self._changed()

    def _taken_back(self, pool: Pool, server: Server) -> None:
        """It is not removed any more. That the file's was, stands while an operator's own is in its place."""
        if not self.was_added(server):
            self._removals.get(pool.name, {}).pop((server.name, server.key), None)
        self._changed()

    # --- what the file says -----------------------------------------------------------------------------------------

    def file_says(self, pool: Pool, server: Server, values: Mapping[str, Value]) -> None:
        """The file has other values than it had: they hold, in place of live ones too."""
        record, now = self._record(server), self._clock()
        for key, value in values.items():
            record.live.pop(key, None)
            if value_of(server, key) != value:
                set_value(pool, server, key, value, FILE, now)
        self._changed()

    def was_added(self, server: Server) -> bool:
        """By an operator, and the file does not know it."""
        record = self._records.get(server)
        return record is not None and bool(record.added_by)

    def stays(self, pool: Pool, server: Server) -> None:
        """The file names it: it is the file's, whoever added it, and does not leave."""
        record = self._record(server)
        record.added_by = ""
        self._taken_back(pool, server)
        if self._leaving.pop(server, None) is not None:
            live = record.live.get("admin")
            if live is not None and live.is_removal:
                del record.live["admin"]
                pool.set_admin(server, Admin.READY, "", self._clock())

    def leave(self, pool: Pool, server: Server, by: str) -> None:
        """It drains and goes."""
        if server in self._leaving:
            return
        self._leaving[server] = pool
        if server.admin is Admin.READY:
            now = self._clock()
            self._record(server).live["admin"] = LiveValue(by, now, Admin.READY, is_removal=True)
            pool.set_admin(server, Admin.DRAIN, f"is being removed by {by}", now)
        self._changed()
        self.remove_drained()

    # --- what is known ----------------------------------------------------------------------------------------------

    def joined(self, server: Server, added_by: str = "") -> None:
        """A server joined the running pool."""
        self._records.setdefault(server, Record(self._clock(), added_by))

    def left(self, server: Server) -> None:
        """A server is no member any more."""
        self._records.pop(server, None)
        self._cuts.pop(server, None)
        self._changed()

    def file_names(self, pool: str, entries: Collection[tuple[str, str]]) -> None:
        """The names and addresses of a pool's servers in the file now: of others nobody need know that they were
        removed."""
        removals = self._removals.get(pool)
        if removals is not None:
            self._removals[pool] = {key: removal for key, removal in removals.items() if key in entries}
            if not self._removals[pool]:
                del self._removals[pool]
            self._changed()

    def record(self, server: Server) -> Record | None:
        """None: nothing was ever changed of it."""
        return self._records.get(server)

    def removals(self, pool: str) -> Mapping[tuple[str, str], Removal]:
        """Servers of the file that operators removed, by name and address."""
        return self._removals.get(pool, {})

    def is_leaving(self, server: Server) -> bool:
        """It was removed, by an operator or from the file, and has not gone yet."""
        return server in self._leaving

    # --- what another process knew ----------------------------------------------------------------------------------
    # event: what lies between it and this one, for the log. All this is called before there is traffic.

    def keep_value(
        self,
        pool: Pool,
        server: Server,
        key: str,
        value: Value,
        live: LiveValue,
        event: str,
        *,
        keep_sticky: bool = False,
    ) -> None:
        """An operator set this value before; it stands again."""
        before = value_of(server, key)
        self._record(server).live[key] = live
        if before == value and server.keep_sticky == (keep_sticky if key == "admin" else server.keep_sticky):
            return  # it still stands
        set_value(pool, server, key, value, live.by, live.at, keep_sticky=keep_sticky)
        change = Change(shown(key, before), shown(key, value))
        log.info("pool %s: server %s: %s: %s, by %s before %s", pool.name, server.name, key, change, live.by, event)
        self._tell(pool, server, f"{key}: {change}, from before {event}", live.by, {key: change})

    def give_back(self, pool: Pool, server: Server, key: str, event: str) -> None:
        """A live value was given back before; what stands in the file holds."""
        live = self._record(server).live.pop(key, None)
        if live is not None:
            change = Change(shown(key, value_of(server, key)), shown(key, live.given))
            set_value(pool, server, key, live.given, FILE, self._clock())
            told = f"{key}: {change}, given back before {event}"
            log.info("pool %s: server %s: %s", pool.name, server.name, told)
            self._tell(pool, server, told, None, {key: change})

    def keep_added(self, pool: Pool, spec: ServerSpec, host: str, by: str, at: float, event: str) -> Server:
        """An operator added it before; it takes traffic at once, as a server of the file does at a start.

        host: the name that it was found by, "" if none.
        """
        server = _made(spec, host)
        self._records[server] = Record(at, by)
        self._membership.add(pool, server)
        log.info("pool %s: server %s was added before %s, by %s", pool.name, server.name, event, by)
        return server

    def drop_added(self, pool: Pool, server: Server, event: str) -> None:
        """An operator had added it, and it was removed again before."""
        self._membership.remove(pool, server)
        log.info("pool %s: server %s, which was added by command, was removed before %s", pool.name, server.name, event)

    def keep_removal(self, pool: Pool, server: Server, removal: Removal, event: str) -> None:
        """An operator removed it before, and the file names it as it did."""
        self._removals.setdefault(pool.name, {})[server.name, server.key] = removal
        self._membership.remove(pool, server)
        log.info("pool %s: server %s was removed before %s, by %s", pool.name, server.name, event, removal.by)

    def end_removal(self, pool: Pool, server: Server, event: str) -> None:
        """Its removal was taken back before."""
        self._removals.get(pool.name, {}).pop((server.name, server.key), None)
        self._membership.add(pool, server)
        log.info(
            "pool %s: server %s is there again: its removal was taken back before %s", pool.name, server.name, event
        )

    def give(self, pool: Pool, server: Server, key: str, value: int) -> None:
        """A source says that `weight` or `max_inflight` is this: in force now, or when the live value is given back."""
        record = self._records.get(server)
        live = None if record is None else record.live.get(key)
        before = value_of(server, key) if live is None else live.given
        if before == value:
            return
        self._changed()
        if record is None or live is None:
            set_number(pool, server, key, value, self._clock())
        else:
            record.live[key] = replace(live, given=value)
        stands = "" if live is None else f"; the live value {text_of(shown(key, value_of(server, key)))} stands"
        change = Change(shown(key, before), shown(key, value))
        log.info("pool %s: server %s: %s: %s%s", pool.name, server.name, key, change, stands)

    def _record(self, server: Server) -> Record:
        """Who has none was there from the start."""
        return self._records.setdefault(server, Record(self._started_at))

    def told(self, server: Server | None, now: float) -> Json:
        """For the status: where a server comes from, whether it leaves, and of each value who set it and when.

        None: a server of the file whose name has no address yet.
        """
        if server is None:
            return {"source": "dns", "leaving": False, "sources": None}
        record, is_lost = self._records.get(server) or self._unknown, self._origins.is_leaving(server)
        known = self._origins.source_of(server)
        source = known.kind if known is not None else "live" if record.added_by else "file"
        values_from = known.values_from if known is not None else source
        rest = _source(values_from, record.added_by if known is None else "", now - record.since, None)
        sources: Json = dict.fromkeys(KEYS, rest)
        for key, live in record.live.items():
            sources[key] = _source("live", live.by, now - live.at, shown(key, live.given))
        if is_lost:
            sources["admin"] = _source(source, "", now - server.changed_at, None)
        return {
            "source": source,
            "leaving": is_lost or server in self._leaving,
            "sources": sources,
        }


def hosts_in(value: object) -> list[str]:
    """The host names in what is to be added, to be looked up. Raises Refused."""
    return list(dict.fromkeys(spec.address.host for spec in _read_specs(value) if not spec.address.is_literal))


def _read_specs(value: object) -> tuple[ServerSpec, ...]:
    try:
        return read_server(value)
    except ConfigError as error:
        raise Refused(str(item) for item in error.problems) from None


def _made(spec: ServerSpec, host: str) -> Server:
    return Server(
        spec.name,
        spec.address,
        weight=spec.weight,
        max_inflight=spec.max_inflight or 0,
        backup=spec.backup,
        host=host,
    )


def _source(source: str, by: str, since_s: float, given: object) -> Json:
    return {"source": source, "by": by or None, "since": round(since_s, 3), "given": given}


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    lower = {item.lower(): item for item in names}
    close = [lower[item] for item in get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    if close:
        return f"there is no {what} {name}; did you mean {' or '.join(close)}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = f"; {what}s: {', '.join(names[:SHOWN])}{more}" if names else f"; there are no {what}s"
    return f"there is no {what} {name}{listed}"
