"""What `lbproxy top` shows: the state of a running lbproxy, kept up to date by the messages of its event stream.

The messages may be of another version: nothing in them is taken for granted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lbproxy.cli.asking import objects
from lbproxy.cli.changing import Target

Object = Mapping[str, object]
EVENTS: Final = 200
SORTS: Final[tuple[str, ...]] = ("config", "server", "state", "inflight", "rps", "errors", "latency")
_WORST_FIRST: Final = ("down", "unresolved", "ejected", "probing", "busy", "maint", "drain", "up")


@dataclass(frozen=True, slots=True)
class Row:
    """A server: as in the status, and its rates."""

    target: Target
    server: Object
    rates: Object


class View:
    """status: the newest; empty before the first message. rates: the newest. events: the newest last.

    clock: monotonic seconds. A server that stays as it is comes once, so how long it has been so is counted here.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.status: dict[str, object] = {}
        self.rates: Object = {}
        self.events: list[Object] = []
        self._clock = clock
        self._told_at: dict[Target, float] = {}

    def take(self, kind: str, data: object) -> None:
        """A message of the stream."""
        if not isinstance(data, dict):
            return
        if kind == "state":
            self.status = data
            self._told_at = {}
            self._note_time(data)
            self.events = objects(data.get("recent"))
        elif kind == "servers":
            self._merge(data)
        elif kind == "rates":
            self.rates = data
        elif kind == "event":
            self.events = [*self.events, data][-EVENTS:]

    def _note_time(self, data: Object) -> None:
        now = self._clock()
        for pool in objects(data.get("pools")):
            for server in objects(pool.get("servers")):
                self._told_at[_target(pool, server)] = now

    def _merge(self, data: Object) -> None:
        self._note_time(data)
        changed = {pool.get("name"): pool for pool in objects(data.get("pools"))}
        pools = []
        for pool in objects(self.status.get("pools")):
            news = changed.get(pool.get("name"))
            if news is None:
                pools.append(pool)
                continue
            servers = {server.get("name"): server for server in objects(news.get("servers"))}
            merged = [servers.get(server.get("name"), server) for server in objects(pool.get("servers"))]
            pools.append({**pool, **news, "servers": merged})
        self.status = {**self.status, "pools": pools}

    @property
    def pools(self) -> list[tuple[Object, Object]]:
        """Each pool of the status with its rates."""
        rates = mapping(self.rates.get("pools"))
        return [(pool, mapping(rates.get(str(pool.get("name"))))) for pool in objects(self.status.get("pools"))]

    def rows(self, sort: str = "config", wanted: str = "") -> list[Row]:
        """Servers in whose name, address, state or pool `wanted` occurs, ordered by one of SORTS, the worst first."""
        rates, now = mapping(self.rates.get("servers")), self._clock()
        found = []
        for pool in objects(self.status.get("pools")):
            for server in objects(pool.get("servers")):
                target = _target(pool, server)
                text = f"{target} {server.get('address')} {server.get('state')}"
                if wanted.lower() not in text.lower():
                    continue
                for key in ("since", "latency_age"):
                    seconds = server.get(key)
                    if isinstance(seconds, int | float):
                        server = {**server, key: seconds + now - self._told_at[target]}
                found.append(Row(target, server, mapping(rates.get(str(target)))))
        if sort == "server":
            found.sort(key=lambda row: str(row.target))
        elif sort == "state":
            found.sort(key=lambda row: _badness(row.server.get("state")))
        elif sort != "config":
            found.sort(key=lambda row: _measure(row, sort), reverse=True)
        return found


def _target(pool: Object, server: Object) -> Target:
    return Target(str(pool.get("name")), str(server.get("name")))


def _badness(state: object) -> int:
    return _WORST_FIRST.index(state) if isinstance(state, str) and state in _WORST_FIRST else len(_WORST_FIRST)


def _measure(row: Row, sort: str) -> float:
    if sort == "errors":
        return number(row.rates.get("error_ratio"))
    return number((row.rates if sort == "rps" else row.server).get(sort))


def mapping(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def number(value: object) -> float:
    """0.0 for what is none."""
    return float(value) if isinstance(value, int | float) else 0.0
