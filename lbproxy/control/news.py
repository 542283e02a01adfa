"""Events that nobody reports, seen by comparing: readiness, fail-open, and whether host names resolve."""

from __future__ import annotations

from collections.abc import Mapping

from lbproxy.control.event_log import EventLog
from lbproxy.domain.names import NOT_LOOKED_UP, Name
from lbproxy.domain.pool import Pool


class News:
    """Compares what there is with what there was, and writes what changed into `events`."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._was_ready: bool | None = None
        self._failing_open: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}

    def observe(self, pools: Mapping[str, Pool], not_ready: str | None) -> None:
        """To be called some times a second. not_ready: what /readyz says, None if it says 200."""
        is_ready = not_ready is None
        if is_ready != self._was_ready:
            text = "ready" if is_ready else f"not ready: {not_ready}"
            self._events.add("process", text, old=self._was_ready, new=is_ready)
            self._was_ready = is_ready
        self._failing_open &= pools.keys()
        before, self._names = self._names, {}
        for name, pool in pools.items():
            self._observe_fail_open(name, pool.is_failing_open)
            for known in pool.names:
                key = (name, known.host)
                self._names[key] = known.why
                self._compare_name(name, known, before.get(key, NOT_LOOKED_UP))

    def _observe_fail_open(self, pool: str, is_failing_open: bool) -> None:
        if is_failing_open == (pool in self._failing_open):
            return
        if is_failing_open:
            self._failing_open.add(pool)
            text = f"pool {pool} fails open: too few servers pass their checks, so all that were up are used"
        else:
            self._failing_open.discard(pool)
            text = f"pool {pool} no longer fails open"
        self._events.add("fail_open", text, pool=pool, old=not is_failing_open, new=is_failing_open)

    def _compare_name(self, pool: str, known: Name, before: str) -> None:
        """before: what was wrong with the look-up before."""
        why = known.why
        if why == before or (not why and before == NOT_LOOKED_UP):
            return
        if why:
            kept = "it has no server yet" if known.is_unresolved else "the last good answer stays in use"
            text = f"pool {pool}: looking up {known.host} failed: {why}; {kept}"
        else:
            text = f"pool {pool}: {known.host} resolves again, to {known.n_addresses} addresses"
        self._events.add("names", text, pool=pool, old=before or None, new=why or None)
