"""The servers that the config file names, when another file says otherwise while traffic flows.

A server is the same one if its name and its address are. Who stays keeps health, counters, connections and what was
learned; its own values change where the file's do, and an operator's live value stands until then. Who is new is down
until its first passing check, as one that discovery finds. Who is gone drains; but where nobody else could take the
requests yet, it goes on until one of the newcomers has passed its check, or has failed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.server_model import ServerSpec
from lbproxy.control.discovery.roster import JOINING, Membership
from lbproxy.control.live import LiveControl, Origins
from lbproxy.control.live_values import Value
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Health

CALLER: Final = "the config file"
WAIT_S: Final = 10.0  # for a newcomer's first check, before the last ones of the old go all the same


class FileServers:
    """See the module. clock: monotonic seconds."""

    def __init__(self, live: LiveControl, membership: Membership, origins: Origins, clock: Callable[[], float]) -> None:
        self._live = live
        self._membership = membership
        self._origins = origins
        self._clock = clock
        self._going: dict[Server, tuple[Pool, float]] = {}

    def enter(self, pool: Pool, config: PoolConfig) -> None:
        """A new pool gets its servers; they take traffic at once, as at a start."""
        for spec in config.servers:
            if spec.address.is_literal:
                self._membership.add(pool, server_of(spec, config))

    def change(self, pool: Pool, old: PoolConfig | None, new: PoolConfig) -> None:
        """Bring the members in line with another config. Servers behind names come and go by discovery; here only what
        the file says of them changes. What operators added or removed stands while the file says nothing new about it.

        old None: the pool was about to go, and nothing that it had stands in the file.
        """
        members = {server.name: server for server in pool.servers if self._origins.source_of(server) is None}
        wanted: set[Server] = set()
        entries = {} if old is None else {(entry.name, entry.address): entry for entry in old.servers}
        for spec in new.servers:
            if not spec.address.is_literal:
                continue
            before = entries.get((spec.name, spec.address))
            server = members.get(spec.name)
            if server is not None and server.address == spec.address:
                self._going.pop(server, None)
                if before is None:
                    self._live.stays(pool, server)
                self._update(pool, server, {} if before is None or old is None else values_of(before, old), spec, new)
            elif before is not None:
                continue  # an operator has removed it
            else:
                server = self._join(pool, spec, new)
            wanted.add(server)
        for server in list(pool.servers):
            if self._origins.source_of(server) is not None:
                before, after = None if old is None else spec_behind(server, old), spec_behind(server, new)
                if after is not None and before is not None and old is not None:
                    self._update(pool, server, values_of(before, old), after, new)
            elif server not in wanted and not self._live.was_added(server):
                self._going.setdefault(server, (pool, self._clock() + WAIT_S))
        self.settle()

    def settle(self) -> None:
        """Let those go whom the file no longer names, as soon as others can do their work. Called now and then."""
        now = self._clock()
        for server, (pool, until) in list(self._going.items()):
            if server not in pool.servers:
                del self._going[server]
            elif now >= until or self._can_spare(pool):
                del self._going[server]
                self._live.leave(pool, server, CALLER)

    def _can_spare(self, pool: Pool) -> bool:
        if any(server not in self._going for server in pool.eligible()):
            return True
        return not any(
            server.health is Health.DOWN and server.down_reason == JOINING
            for server in pool.servers
            if server not in self._going
        )

    def _join(self, pool: Pool, spec: ServerSpec, config: PoolConfig) -> Server:
        server = server_of(spec, config)
        if pool.members.passive_retry_s is None:  # it has checks
            server.health, server.down_reason, server.why = Health.DOWN, JOINING, "joined; no check has passed yet"
            server.changed_at = self._clock()
        self._membership.add(pool, server)
        return server

    def _update(
        self, pool: Pool, server: Server, known: dict[str, Value], spec: ServerSpec, config: PoolConfig
    ) -> None:
        """known: what the file said before."""
        after = values_of(spec, config)
        self._live.file_says(pool, server, {key: value for key, value in after.items() if known.get(key) != value})
        if server.backup != spec.backup:
            pool.set_backup(server, spec.backup, self._clock())


def server_of(spec: ServerSpec, config: PoolConfig) -> Server:
    """A domain server from its config entry; the pool's limit is for those without their own."""
    values = values_of(spec, config)
    return Server(
        spec.name,
        spec.address,
        weight=spec.weight,
        max_inflight=int(values["max_inflight"]),
        backup=spec.backup,
    )


def values_of(spec: ServerSpec, config: PoolConfig) -> dict[str, Value]:
    """What the file says of a server, by the keys of live control; 0 is no limit."""
    limit = spec.max_inflight if spec.max_inflight is not None else config.max_inflight
    return {"weight": spec.weight, "max_inflight": limit or 0}


def spec_behind(server: Server, config: PoolConfig) -> ServerSpec | None:
    """The entry whose name this server was found by."""
    for spec in config.servers:
        if (
            not spec.address.is_literal
            and spec.address.host == server.host
            and spec.address.port == server.address.port
        ):
            return spec
    return None
