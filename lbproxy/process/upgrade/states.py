"""What one process knows of its servers, for the one that takes over: health, ejections, and what operators set.

Without it every server would be unknown to the new process: those that are down would get requests until a check has
found out, and what an operator drained would be used again. A server is the same one if its pool, its name and its
address are. Whatever does not fit the new config is left out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Set

from lbproxy.config.model import Config
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.roster import JOINING
from lbproxy.control.live import Conflict, LiveControl, NotThere
from lbproxy.control.live_values import FILE, KEYS, Refused
from lbproxy.control.status import Json
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Breaker, Health

log = logging.getLogger("lbproxy")


def snapshot(config: Config, pools: Mapping[str, Pool], live: LiveControl, now: float) -> Json:
    """As JSON. config: the one in force. now: monotonic seconds; times go as ages, as the two clocks may differ."""
    found: Json = {}
    for name, pool in pools.items():
        if pool.is_leaving:
            continue
        told = [(server, live.told(server, now)) for server in pool.servers]
        stays = [(server, item) for server, item in told if not item["leaving"]]
        found[name] = {
            "servers": [_server(server, item, now) for server, item in stays],
            "removed": _removed(config, name, {server.name for server, _ in stays}),
        }
    return found


def _server(server: Server, told: Json, now: float) -> Json:
    is_added = told["source"] == "live"
    found: Json = {
        "name": server.name,
        "address": server.key,
        "health": server.health.value,
        "reason": server.down_reason,
        "why": server.why,
        "was_up": server.was_up,
        "age": _age(now - server.changed_at),
        "live": {key: [_value(server, key), by, given] for key, by, given in _live(told)},
        "added": {"weight": server.weight, "backup": server.backup, "max_inflight": _value(server, "max_inflight")}
        if is_added
        else None,
        "ejected": None,
    }
    circuit = server.circuit
    if server.breaker is not Breaker.CLOSED and circuit is not None:
        found["ejected"] = [circuit.reason, circuit.what, _age(circuit.open_until - now)]
    return found


def _age(seconds: float) -> float:
    return round(max(0.0, seconds), 3) if math.isfinite(seconds) else 0.0


def _live(told: Json) -> Iterator[tuple[str, str, object]]:
    """Keys that an operator has set, who that was, and what would hold otherwise."""
    sources = told["sources"]
    if not isinstance(sources, dict):
        return
    for key in KEYS:
        source = sources[key]
        if source["source"] == "live" and source["by"]:
            yield key, source["by"], source["given"]


def _value(server: Server, key: str) -> object:
    return (server.max_inflight or None) if key == "max_inflight" else getattr(server, key)


def _removed(config: Config, pool: str, known: Set[str]) -> list[str]:
    """Servers that the file names by their address, and that are no members: operators have removed them."""
    settings = config.pools.get(pool)
    specs = settings.servers if settings is not None else ()
    return [spec.name for spec in specs if spec.address.is_literal and spec.name not in known]


class Restoring:
    """Puts a snapshot in place, in several goes, as some servers come later than others. clock: monotonic seconds.

    remove(pool, server): it is no member any more.
    """

    def __init__(
        self,
        told: object,
        pools: Mapping[str, Pool],
        live: LiveControl,
        remove: Callable[[Pool, Server], None],
        clock: Callable[[], float],
    ) -> None:
        self._told = told if isinstance(told, dict) else {}
        self._pools = pools
        self._live = live
        self._remove = remove
        self._clock = clock
        self._done: set[tuple[str, str]] = set()

    def restore(self) -> None:
        """Every server that is there by now, and was not before. What is odd is left out, with a line of the log."""
        for name, pool in self._pools.items():
            for entry in _entries(self._told, name):
                self._restore(pool, entry)
            removed = _removed_from(self._told, name)
            for server in [item for item in pool.servers if item.name in removed]:
                log.info("pool %s: server %s stays away: it was removed by command", name, server.name)
                self._remove(pool, server)

    def operators(self, told: object) -> None:
        """What operators have set since the snapshot. told: a newer one."""
        before, self._told = self._told, told if isinstance(told, dict) else {}
        for name, pool in self._pools.items():
            known = {entry.get("name"): _settings(entry) for entry in _entries(before, name)}
            for entry in _entries(self._told, name):
                server, old, new = _same(pool, entry), known.get(entry.get("name"), {}), _settings(entry)
                if server is not None:
                    self._change(pool, server, {key: item for key, item in new.items() if old.get(key) != item})
                    self._change(
                        pool, server, {key: [FILE, item[1], None] for key, item in old.items() if key not in new}
                    )
        self.restore()

    def _restore(self, pool: Pool, entry: Mapping[str, object]) -> None:
        server = _same(pool, entry)
        key = (pool.name, str(entry.get("name")))
        if key in self._done:
            return
        if server is None and isinstance(entry.get("added"), dict):
            server = self._add(pool, entry)
        if server is None:
            return
        self._done.add(key)
        self._set(pool, server, entry)
        believe(pool, server, entry, self._clock())

    def _add(self, pool: Pool, entry: Mapping[str, object]) -> Server | None:
        added = entry["added"]
        assert isinstance(added, dict)
        spec = {"address": entry.get("address"), "name": entry.get("name")}
        spec |= {key: value for key, value in added.items() if value is not None}
        by = next((str(item[1]) for item in _settings(entry).values()), "command")
        try:
            return self._live.add(pool, spec, Caller("", by))[0]
        except (Refused, Conflict) as error:
            log.warning("pool %s: server %s, which was added by command, is left out: %s", pool.name, entry, error)
            return None

    def _set(self, pool: Pool, server: Server, entry: Mapping[str, object]) -> None:
        """What operators have set, unless the file says something else by now."""
        settings = _settings(entry)
        self._change(
            pool,
            server,
            {key: item for key, item in settings.items() if item[2] in (None, _value(server, key))},
        )

    def _change(self, pool: Pool, server: Server, settings: Mapping[str, list[object]]) -> None:
        for key, (value, by, _) in settings.items():
            try:
                self._live.change(pool, server, {key: value}, Caller("", str(by)))
            except (Refused, Conflict, NotThere) as error:
                log.warning(
                    "pool %s: server %s: %s of the process before is left out: %s", pool.name, server, key, error
                )


def believe(pool: Pool, server: Server, entry: Mapping[str, object], now: float) -> None:
    """What checks and answers have told another process. Ages in seconds; what is odd is left out."""
    match entry:
        case {"health": str(word), "reason": str(reason), "why": str(why), "age": float() | int() as age} if (
            word in tuple(Health)
        ):
            server.was_up = server.was_up or entry.get("was_up") is True
            if (word, reason) != (Health.DOWN, JOINING):
                pool.set_health(server, Health(word), reason, why, now - age)
    match entry.get("ejected"):
        case [str(reason), str(what), float() | int() as left_s]:
            pool.resume_ejection(server, reason, what, 1, now + left_s, now)


def _same(pool: Pool, entry: Mapping[str, object]) -> Server | None:
    name, address = entry.get("name"), entry.get("address")
    return next((item for item in pool.servers if item.name == name and item.key == address), None)


def _entries(told: Mapping[str, object], pool: str) -> list[Mapping[str, object]]:
    """What a snapshot says of the servers of a pool."""
    found = told.get(pool)
    servers = found.get("servers") if isinstance(found, dict) else None
    return [item for item in servers if isinstance(item, dict)] if isinstance(servers, list) else []


def _removed_from(told: Mapping[str, object], pool: str) -> list[object]:
    found = told.get(pool)
    removed = found.get("removed") if isinstance(found, dict) else None
    return removed if isinstance(removed, list) else []


def _settings(entry: Mapping[str, object]) -> dict[str, list[object]]:
    """By key: the value, who set it, and what would hold otherwise."""
    live = entry.get("live")
    items = live.items() if isinstance(live, dict) else ()
    return {key: item for key, item in items if key in KEYS and isinstance(item, list) and len(item) == 3}
