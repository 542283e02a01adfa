"""From a config to who may ask, and how much (dataplane/guard.py), and what of it outlives the config: the buckets of
rate limits, and connections to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lbproxy.api_keys import KeyRing
from lbproxy.config.certificates import FileProblem
from lbproxy.config.http_rules import Route
from lbproxy.config.key_file import read_key_file
from lbproxy.config.limits_model import ALL, ApiKeys, LimitStore, RateLimit
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.config.tls_checks import absolute
from lbproxy.control.file_watch import WatchedFiles, signature
from lbproxy.control.fleet.link import RedisLink
from lbproxy.dataplane.guard import Guard, KeyRule, KeyRules, Limit
from lbproxy.domain.buckets import Buckets, own_buckets
from lbproxy.domain.routing import Router
from lbproxy.errors import RATE_LIMITED
from lbproxy.process.settings import route_spec
from lbproxy.request_key import read_key
from lbproxy.telemetry.slots import PROCESS, Row

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

_FORGOTTEN: Final = PROCESS.column("rate_limit_keys_forgotten_total")


class KeyFile:
    """The file of keys, as control/file_watch.py has it. changed: called when other keys are in use."""

    renew_s: float | None = None

    def __init__(self, path: str, rules: KeyRules, changed: Callable[[], None]) -> None:
        self.path = path
        self._rules = rules
        self._changed = changed

    def load(self) -> KeyRing:
        """Raises FileProblem."""
        return read_key_file(self.path)

    def use(self, ring: KeyRing) -> None:
        """These keys, from the next request on."""
        self._rules.ring = ring
        self._changed()


@dataclass(slots=True)
class GuardRoom:
    """What a process keeps for all its configs. buckets: made when a limit needs them, or those that workers share.

    keys_changed: heads that were read before must be forgotten. links: to Redis, of the config that
    is in use, with their tasks.
    """

    buckets: Buckets | None = None
    keys_changed: Callable[[], None] = lambda: None
    links: dict[LimitStore, RedisLink] = field(default_factory=dict)
    _spawn: Spawn | None = None
    _running: dict[LimitStore, asyncio.Task[None]] = field(default_factory=dict)
    _n_counted: int = 0

    def begin(self, spawn: Spawn) -> None:
        """Requests are about to come; on the loop. spawn: see Tasks."""
        self._spawn = spawn
        self.use(self.links)

    def use(self, links: dict[LimitStore, RedisLink]) -> None:
        """These are the ones that there are from now on."""
        self.links = links
        if self._spawn is None:
            return
        for store in [store for store in self._running if store not in links]:
            self._running.pop(store).cancel()
        for store, link in links.items():
            if store not in self._running:
                self._running[store] = self._spawn(link.run(), f"rate limits at {link.shown}")

    def the_buckets(self) -> Buckets:
        """Those of all rate limits."""
        if self.buckets is None:
            self.buckets = own_buckets()
        return self.buckets

    def count(self, row: Row) -> None:
        """Have the counters of the process say what became of buckets."""
        if self.buckets is not None:
            row[_FORGOTTEN] += self.buckets.n_forgotten - self._n_counted
            self._n_counted = self.buckets.n_forgotten


class GuardBuilder:
    """Makes the guard of one config. row_of: the counters of a rate limit, by its name. watched: gets the file of keys.
    Raises Unusable."""

    def __init__(
        self,
        config: Config,
        room: GuardRoom,
        row_of: Callable[[str], Row],
        watched: list[WatchedFiles],
        base_dir: str,
    ) -> None:
        self._keys = config.api_keys
        self._room = room
        rules = None if self._keys is None else self._key_rules(self._keys, watched, base_dir)
        self.links: dict[LimitStore, RedisLink] = {}
        limits = [self._limit(limit, row_of(limit.label)) for limit in config.rate_limits]
        self.guard = Guard(rules, limits) if rules is not None or limits else None

    def _key_rules(self, config: ApiKeys, watched: list[WatchedFiles], base_dir: str) -> KeyRules:
        path = absolute(config.file, base_dir)
        seen = signature((path,))
        try:
            ring = read_key_file(path)
        except FileProblem as problem:
            hint = f"; {problem.suggestion}" if problem.suggestion else ""
            raise Unusable(("api_keys", "file"), f"{problem.message}{hint}") from None
        rules = KeyRules(ring, config.header, config.query or "")
        room = self._room
        target = KeyFile(path, rules, lambda: room.keys_changed())
        watched.append(WatchedFiles("api_keys", (path,), target, "API keys", seen))
        return rules

    def _limit(self, config: RateLimit, row: Row) -> Limit:
        key = None if config.key == ALL else read_key(config.key)
        match = None if config.match is None else Router.compile([route_spec(config.match)])
        return Limit(
            config.label,
            key,
            match,
            round(config.rate.seconds / config.rate.count * 1e9),
            config.most_at_once,
            self._room.the_buckets(),
            RATE_LIMITED if config.status == RATE_LIMITED.status else replace(RATE_LIMITED, status=config.status),
            row,
            None if config.store is None else self._link(config.store).buckets,
        )

    def _link(self, store: LimitStore) -> RedisLink:
        """The one that is in use stays."""
        link = self.links.get(store) or self._room.links.get(store)
        if link is None:
            link = RedisLink(store.url, store.timeout)
        self.links[store] = link
        return link

    def key_rule(self, route: Route) -> KeyRule | None:
        """What a route asks for."""
        if self._keys is None:
            return None
        own = route.api_keys or ("required" if self._keys.required else "optional")
        if isinstance(own, tuple):
            return KeyRule(is_needed=True, names=None if "*" in own else frozenset(own))
        return None if own == "off" else KeyRule(is_needed=own == "required")
