"""What becomes of servers and pools, for people: a line of the log, an event and a counter for each change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from lbproxy.control.event_log import EventLog
from lbproxy.control.metrics import Registry
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import SERVER, SERVER_STATES

_TO: Final = {state: SERVER.column("server_transitions_total", state) for state in SERVER_STATES}


class Flips:
    """See the module. log: one that does not repeat itself; registry: has the rows of the servers."""

    def __init__(self, registry: Registry, events: EventLog, log: ThrottledLog) -> None:
        self._registry = registry
        self._events = events
        self._log = log
        self._failing_open: set[str] = set()

    def flipped(self, pool: Pool, server: Server, old: str, new: str) -> None:
        """A server is in another state; the words are those of the status."""
        row = self._registry.row(SERVER, (pool.name, server.name))
        if row is not None:
            row[_TO[new]] += 1
            if new == "ejected" and server.circuit is not None:
                row[SERVER.column("server_ejections_total", server.circuit.reason)] += 1
        level = logging.WARNING if new in ("down", "ejected") else logging.INFO
        reason = server.circuit.what if new == "ejected" and server.circuit is not None else server.why
        why = f": {reason}" if reason else ""
        old = old if server.was_up or old != "up" else "never up"  # what has not been checked counts as up
        cause = f"{pool.name}/{server.name} {new}"  # with the state, so that the last word is not the one left out
        self._log.log(level, cause, "pool %s: server %s is %s, was %s%s", pool.name, server.name, new, old, why)
        self._events.add(
            "ejection" if new == "ejected" else "flip",
            f"pool {pool.name}: server {server.name} is {new}, was {old}{why}",
            pool=pool.name,
            server=server.name,
            old=old,
            new=new,
        )
        if not pool.eligible():
            # Not an error of lbproxy, which its tests look for in the log.
            self._log.warning(f"{pool.name} empty", "pool %s has no usable server", pool.name)

    def named(self, pool: Pool, server: Server, what: str) -> None:
        """A server came or went; of those that come from no name live control tells."""
        if server.host != server.address.host:
            text = f"pool {pool.name}: server {server.name} {what}"
            self._events.add("names", text, pool=pool.name, server=server.name)

    def watch_fail_open(self, pools: Mapping[str, Pool]) -> None:
        """Say of each pool when it begins to fail open, and when it ends. To be called now and then."""
        for name, pool in pools.items():
            pool.eligible()  # settles is_failing_open
            if pool.is_failing_open == (name in self._failing_open):
                continue
            if pool.is_failing_open:
                self._failing_open.add(name)
                self._log.warning(
                    f"{name} fail_open", "pool %s fails open: too few servers pass their checks, so all are used", name
                )
            else:
                self._failing_open.discard(name)
                self._log.info(f"{name} fail_closed", "pool %s no longer fails open", name)

    def forget(self, pool: str) -> None:
        """There is no such pool any more."""
        self._failing_open.discard(pool)
