"""What one process knows that the next one should: live changes of operators, and which servers are down or ejected.

`snapshot` says it as plain data, `restore` puts it in force in a process that has just begun, before there is traffic.
Nothing here reads or writes anything: control/state_file.py keeps the data in a file, and a process that takes over
from another one (process/upgrade/) gets them from it, and a second time before it serves, for `update`. Times in the
data are Unix seconds, as the monotonic clock is another one's.

Against the config it is as at a reload. A live value stands if the file's own value of the key is what it was when the
value was set; else the file's holds. A server that an operator added is there again, unless the file names it now; one
that he removed is gone, unless the file names another one by that name or address. What can't be used any more is left
out, and told: a line for each server.

Verdicts (down, ejected) are believed if the data are at most BELIEVED_S old: they say who must not get the first
requests, and checks, which come at once, may say otherwise. A server that was ejected has its probe when its time is
over, and no pool has more ejected than it can spare.

Servers that are found by discovery are not there at a start. What is known of them waits for them, for WAIT_S; until
then it is part of each snapshot. A server that joins later than the first ones is down until a check has passed it,
unless one of the process before has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final

from pydantic import ValidationError

from lbproxy.config.server_model import ServerSpec
from lbproxy.control.discovery.roster import JOINING
from lbproxy.control.kept_data import (
    MOST_LEVEL,
    VERSION,
    WORDS,
    AddedData,
    EjectedData,
    HealthData,
    LiveData,
    PoolData,
    RemovedData,
    ServerData,
    SplitData,
    StateData,
    changes_since,
    is_of_use,
    json_of,
    read,
    servers_of,
    value_in,
    words,
)
from lbproxy.control.live import LiveControl, LiveValue, Origins, Record, Removal
from lbproxy.control.live_values import KEYS, shown, text_of, value_of
from lbproxy.control.splits import LiveShares, SplitControl
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Breaker, Health

log = logging.getLogger("lbproxy")

BELIEVED_S: Final = 300.0
WAIT_S: Final = 600.0
SHOWN: Final = 20  # lines about what can't be used; then they are counted
RESTART: Final = "the restart"
UPGRADE: Final = "the upgrade"
SUCCESSION: Final = "the death of another controller"

Json = dict[str, object]


class KeptState:
    """See the module. clock: monotonic seconds. wall: Unix seconds.

    has_sources: by the name of a pool, may servers of it come later?
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        live: LiveControl,
        origins: Origins,
        has_sources: Callable[[str], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
        splits: SplitControl,
    ) -> None:
        self._splits = splits
        self._pools = pools
        self._live = live
        self._origins = origins
        self._has_sources = has_sources
        self._clock = clock
        self._wall = wall
        self._awaited: dict[str, dict[str, ServerData]] = {}  # by pool and address
        self._believed_until = -inf
        self._waits_until = 0.0
        self._n_lost = 0
        self._event = RESTART  # what lies between the other process and this one
        self._restored: StateData | None = None  # until `update`, as are these: who was taken out, by pool and name
        self._taken_out: dict[tuple[str, str], Server] = {}

    # --- what is known ----------------------------------------------------------------------------------------------

    def snapshot(self, *, with_well: bool = False) -> Json:
        """All that is worth keeping, as JSON has it. with_well: verdicts about servers that are well, too."""
        state = StateData(
            version=VERSION,
            saved_at=self._wall(),
            pools={
                name: kept for name, pool in self._pools.items() if (kept := self._pool(pool, with_well)) is not None
            },
            splits=[
                SplitData(
                    listener=listener,
                    route=route,
                    pools=list(pools),
                    shares=list(live.shares),
                    given=list(live.given),
                    by=live.by[:WORDS],
                    at=self._unix(live.at),
                )
                for (listener, route, pools), live in self._splits.records().items()
            ],
        )
        return state.model_dump(mode="json", exclude_defaults=True)

    def _pool(self, pool: Pool, with_well: bool) -> PoolData | None:
        servers = [kept for server in pool.servers if (kept := self._server(server, with_well)) is not None]
        awaited = self._awaited.get(pool.name, {}).values()
        servers += awaited if with_well else [item for item in awaited if is_of_use(item)]
        removed = [
            RemovedData(name=name, address=address, by=removal.by[:WORDS], at=self._unix(removal.at))
            for (name, address), removal in self._live.removals(pool.name).items()
        ]
        return PoolData(servers=servers, removed=removed) if servers or removed else None

    def _server(self, server: Server, with_well: bool) -> ServerData | None:
        if self._live.is_leaving(server) or self._origins.is_leaving(server):
            return None
        record = self._live.record(server)
        added = self._added(server, record) if record is not None and record.added_by else None
        values = {key: self._set(server, key, item) for key, item in record.live.items()} if record is not None else {}
        health, ejected = self._health(server, with_well), self._ejected(server)
        if added is None and not values and health is None and ejected is None:
            return None
        return ServerData.model_validate(
            {
                "name": server.name,
                "address": server.key,
                "added": added,
                "live": values,
                "health": health,
                "ejected": ejected,
            }
        )

    def _added(self, server: Server, record: Record) -> AddedData:
        """As it would be without live values."""
        weight, limit = (
            record.live[key].given if key in record.live else value_of(server, key)
            for key in ("weight", "max_inflight")
        )
        return AddedData(
            by=record.added_by[:WORDS],
            at=self._unix(record.since),
            weight=int(weight),
            max_inflight=int(limit) or None,
            backup=server.backup,
            host=server.host if server.host != server.address.host else "",
        )

    def _set(self, server: Server, key: str, live: LiveValue) -> LiveData:
        return LiveData(
            value=json_of(key, value_of(server, key)),
            given=json_of(key, live.given),
            by=live.by[:WORDS],
            at=self._unix(live.at),
            keep_sticky=key == "admin" and server.keep_sticky,
        )

    def _health(self, server: Server, with_well: bool) -> HealthData | None:
        if server.health is Health.UNKNOWN or (server.health is not Health.DOWN and not with_well):
            return None
        return HealthData.model_validate(
            {
                "state": server.health.value,
                "reason": server.down_reason[:WORDS],
                "why": _said(server.why)[:WORDS],
                "was_up": server.was_up,
                "at": self._unix(server.changed_at),
            }
        )

    def _ejected(self, server: Server) -> EjectedData | None:
        circuit = server.circuit
        if circuit is None or server.breaker is Breaker.CLOSED:
            return None
        return EjectedData(
            reason=circuit.reason,
            what=circuit.what[:WORDS],
            level=min(circuit.level, MOST_LEVEL),
            until=self._unix(circuit.open_until),
        )

    # --- what another process knew ----------------------------------------------------------------------------------

    def restore(self, data: object, event: str = RESTART) -> None:
        """Put a snapshot in force: of this moment's servers now, of others when they join. Raises Unreadable.

        event: RESTART, UPGRADE or SUCCESSION, for the log. After UPGRADE an `update` has to follow. SUCCESSION: it is
        of the controller before, whose config this one has, and servers are in the books as that had them, live
        values included; so what the file says of them is what was known of that.
        """
        state = read(data)
        now, age_s = self._clock(), self._wall() - state.saved_at
        is_believed = -BELIEVED_S <= age_s <= BELIEVED_S
        self._believed_until = now + BELIEVED_S - max(0.0, age_s) if is_believed else -inf
        self._waits_until = now + WAIT_S
        self._n_lost = 0
        self._event = event
        self._restored = state if event == UPGRADE else None
        if not is_believed and any(item.health or item.ejected for item in servers_of(state)):
            log.info("state: which servers were down is not believed, as it was known %.0f s ago", age_s)
        for split in state.splits:
            self._take_split(split)
        for name, kept in state.pools.items():
            pool = self._pools.get(name)
            if pool is None:
                if any(item.live or item.added for item in kept.servers) or kept.removed:
                    self._lose("pool %s is not there any more: what was changed of its servers is dropped", name)
                continue
            for removed in kept.removed:
                self._remove(pool, removed)
            for item in kept.servers:
                self._take(pool, item)
        if self._n_lost > SHOWN:
            log.info("state: %d more pools and servers are not there any more", self._n_lost - SHOWN)

    def update(self, data: object) -> None:
        """The process that was told of by `restore` is about to leave: take up what operators did there meanwhile, and
        whom it ejected. Before there is traffic. None: it is gone, and there is nothing new. Raises Unreadable."""
        before, self._restored = self._restored, None
        state = None if data is None else read(data)
        self._n_lost = 0
        if before is not None and state is not None:
            self._update_splits(before, state)
            for name, changes in changes_since(before, state).items():
                pool, known = self._pools.get(name), state.pools.get(name, PoolData())
                if pool is None:
                    continue  # which has been told
                self._take_back(pool, changes.taken_back)
                for removed in changes.removed:
                    self._remove(pool, removed)
                for item in changes.withdrawn:
                    self._withdraw(pool, item)
                for item, keys in changes.given_back:
                    self._give_back(pool, item, keys)
                awaited, newer = self._awaited.pop(name, {}), {item.address: item for item in known.servers}
                for item in changes.servers:
                    if item.address not in awaited:
                        self._take(pool, item)
                if still := {address: newer[address] for address in awaited if address in newer}:
                    self._awaited[name] = {**still, **self._awaited.get(name, {})}
        self._taken_out.clear()

    def joined(self, pool: Pool, server: Server) -> None:
        """A server came; it may be one that is awaited."""
        awaited = self._awaited.get(pool.name)
        item = awaited.pop(server.key, None) if awaited else None
        if item is not None:
            self._apply(pool, server, item)

    def settle(self) -> None:
        """Forget what has been waited for in vain. Called now and then."""
        if not self._awaited or self._clock() < self._waits_until:
            return
        self._n_lost = 0
        for name, awaited in self._awaited.items():
            for item in awaited.values():
                self._is_lost(name, item)
        self._awaited.clear()

    def _take_split(self, item: SplitData) -> None:
        key = item.listener, item.route, tuple(item.pools)
        live = LiveShares(item.by, self._monotonic(item.at), tuple(item.shares), tuple(item.given))
        if not self._splits.keep(key, live, self._event):
            shares = ", ".join(f"{pool} {share}" for pool, share in zip(item.pools, item.shares, strict=False))
            self._lose("listener %s: there is no such split of %s any more: %s is dropped", key[0], key[1], shares)

    def _update_splits(self, before: StateData, state: StateData) -> None:
        known = {(item.listener, item.route, tuple(item.pools)) for item in state.splits}
        for item in before.splits:
            key = item.listener, item.route, tuple(item.pools)
            if key not in known:
                self._splits.give_back(key)
        for item in state.splits:
            if item not in before.splits:
                self._take_split(item)

    def _take(self, pool: Pool, item: ServerData) -> None:
        server = _member(pool, item)
        if server is None and item.added is not None and self._add(pool, item, item.added):
            server = _member(pool, item)
        if server is not None:
            self._apply(pool, server, item)
        elif item.added is None and self._has_sources(pool.name):
            self._awaited.setdefault(pool.name, {})[item.address] = item
        elif item.added is None:
            self._is_lost(pool.name, item)

    def _add(self, pool: Pool, item: ServerData, added: AddedData) -> bool:
        taken = [server.name for server in pool.servers if server.name == item.name or server.key == item.address]
        if taken:
            told = "pool %s: server %s, which was added by %s, is left out: %s has its name or its address"
            self._lose(told, pool.name, item.name, added.by, taken[0])
            return False
        try:
            spec = ServerSpec.model_validate(
                {
                    "address": item.address,
                    "name": item.name,
                    "weight": added.weight,
                    "max_inflight": added.max_inflight,
                    "backup": added.backup,
                }
            )
        except ValidationError as error:
            self._lose("pool %s: server %s can't be added again: %s", pool.name, item.name, words(error))
            return False
        if not spec.address.is_literal or str(spec.address) != item.address:
            told = "pool %s: server %s can't be added again: %s is not the address of one server"
            self._lose(told, pool.name, item.name, item.address)
            return False
        self._live.keep_added(pool, spec, added.host, added.by, self._monotonic(added.at), self._event)
        return True

    def _remove(self, pool: Pool, item: RemovedData) -> None:
        server = next((s for s in pool.servers if s.name == item.name and s.key == item.address), None)
        if server is not None:  # else the file no longer has it either
            if self._event == UPGRADE:
                self._taken_out[pool.name, server.key] = server
            self._live.keep_removal(pool, server, Removal(item.by, self._monotonic(item.at)), self._event)

    def _take_back(self, pool: Pool, removals: Iterable[RemovedData]) -> None:
        for item in removals:
            server = self._taken_out.pop((pool.name, item.address), None)
            if server is not None and all(server.key != there.key for there in pool.servers):
                self._live.end_removal(pool, server, self._event)

    def _withdraw(self, pool: Pool, item: ServerData) -> None:
        server = _member(pool, item)
        if server is not None and self._live.was_added(server):
            self._live.drop_added(pool, server, self._event)

    def _give_back(self, pool: Pool, item: ServerData, keys: Iterable[str]) -> None:
        server = _member(pool, item)
        if server is not None:
            for key in keys:
                self._live.give_back(pool, server, key, self._event)

    def _apply(self, pool: Pool, server: Server, item: ServerData) -> None:
        record = self._live.record(server)
        is_taken_over = item.added is not None and (record is None or not record.added_by)
        for key in KEYS:
            kept = item.live.get(key)
            if kept is not None:
                self._keep(pool, server, key, kept, is_taken_over=is_taken_over)
        if self._clock() <= self._believed_until:
            self._judge(pool, server, item)

    def _keep(self, pool: Pool, server: Server, key: str, kept: LiveData, *, is_taken_over: bool) -> None:
        """is_taken_over: it was an operator's own server, and now is the file's, which says what it weighs."""
        value, given, record = value_in(key, kept.value), value_in(key, kept.given), self._live.record(server)
        live = None if record is None else record.live.get(key)  # `update` may find one
        if value is None or given is None:
            log.warning("state: pool %s: server %s: %s: %r is no value of it", pool.name, server.name, key, kept.value)
            return
        is_in_force = self._event == SUCCESSION
        file_says = given if is_in_force else value_of(server, key) if live is None else live.given
        if file_says != given or (is_taken_over and key != "admin"):
            log.info(
                "pool %s: server %s: %s: the file says %s now, which stands over %s, set before %s by %s",
                pool.name,
                server.name,
                key,
                text_of(shown(key, file_says)),
                text_of(kept.value),
                self._event,
                kept.by,
            )
        elif (
            is_in_force or value != value_of(server, key) or (key == "admin" and kept.keep_sticky != server.keep_sticky)
        ):
            set_before = LiveValue(kept.by, self._monotonic(kept.at), given)
            self._live.keep_value(pool, server, key, value, set_before, self._event, keep_sticky=kept.keep_sticky)

    def _judge(self, pool: Pool, server: Server, item: ServerData) -> None:
        now, health, ejected = self._clock(), item.health, item.ejected
        is_unknown = server.health is Health.UNKNOWN or server.down_reason == JOINING
        if health is not None and is_unknown:
            server.was_up = health.was_up
            reason = health.reason if health.state == "down" else ""
            why = f"before {self._event}: {health.why}" if health.why and reason != JOINING else health.why
            pool.set_health(server, Health(health.state), reason, why, now)
            server.changed_at = self._monotonic(health.at)
        if ejected is not None:
            until = now + min(max(0.0, ejected.until - self._wall()), 1e9)
            pool.resume_ejection(server, ejected.reason, ejected.what, ejected.level, until, now)

    # --- what can't be used -----------------------------------------------------------------------------------------

    def _is_lost(self, pool: str, item: ServerData) -> None:
        if item.live:  # a verdict alone is of no interest
            told = ", ".join(f"{key} {text_of(kept.value)}" for key, kept in item.live.items())
            self._lose("pool %s: server %s is not there any more: %s is dropped", pool, item.name, told)

    def _lose(self, message: str, *args: object) -> None:
        self._n_lost += 1
        if self._n_lost <= SHOWN:
            log.info(f"state: {message}", *args)

    # --- clocks -----------------------------------------------------------------------------------------------------

    def _unix(self, at: float) -> float:
        return round(self._wall() + at - self._clock(), 3)

    def _monotonic(self, at: float) -> float:
        """Nothing was in the future, whatever the wall clock says."""
        return self._clock() - max(0.0, self._wall() - at)


def _said(why: str) -> str:
    """Without the words of this module."""
    for event in (RESTART, UPGRADE, SUCCESSION):
        why = why.removeprefix(f"before {event}: ")
    return why


def _member(pool: Pool, item: ServerData) -> Server | None:
    """The same server: by name and address, or, where discovery named it otherwise, by its address."""
    found = [server for server in pool.servers if server.key == item.address]
    same = [server for server in found if server.name == item.name or server.host != server.address.host]
    return same[0] if same else None
