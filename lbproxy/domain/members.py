"""The servers of a pool: who they are, what state they are in, and who of them may take a request now.

Eligibility is written here and nowhere else. One tuple of eligible servers is kept and made anew when a server flips or
joins, which is rare. Facts that belong to one request (this server is full, that one was tried already) are no part of
it: the pool looks at them.

A change here says nothing to who waits for a slot: the pool does, when the change is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from lbproxy.domain.picker import Picker
from lbproxy.domain.server import Server
from lbproxy.domain.slow_start import SlowStart
from lbproxy.domain.states import REFUSED, Admin, Breaker, Health

FlipListener = Callable[[Server, str, str], None]


class Members:
    """All times are monotonic seconds given by the caller; fail_open, passive_retry_s: see Pool.

    version: another number after each change of who they are. out: ejected or probing, the oldest ejection first.
    probing: those of them that may be sent a probe, permits aside.
    fast: the same as `eligible()`, but empty when a request must be placed with more care. beyond: usable servers of
    other zones, which come after all of `eligible()`; as of the last call of that.
    """

    __slots__ = (
        "_eligible",
        "_is_dirty",
        "_is_strategy_behind",
        "_listeners",
        "_picker",
        "_slow_start",
        "beyond",
        "fail_open",
        "fast",
        "is_failing_open",
        "out",
        "passive_retry_s",
        "probing",
        "servers",
        "version",
    )

    def __init__(
        self,
        servers: Iterable[Server],
        picker: Picker,
        *,
        fail_open: float | None,
        passive_retry_s: float | None,
        slow_start_s: float,
    ) -> None:
        self.servers = list(servers)
        self.version = 0
        self.fail_open = fail_open
        self.passive_retry_s = passive_retry_s
        self.is_failing_open = False
        self.fast: tuple[Server, ...] = ()
        self.probing: tuple[Server, ...] = ()
        self.beyond: tuple[Server, ...] = ()
        self.out = [server for server in self.servers if server.breaker is not Breaker.CLOSED]
        self._eligible: tuple[Server, ...] = ()
        self._is_dirty = self._is_strategy_behind = True
        self._listeners: list[FlipListener] = []
        self._picker = picker
        self._slow_start = SlowStart(slow_start_s)
        self.rebuild()

    def reconfigure(self, *, fail_open: float | None, passive_retry_s: float | None, slow_start_s: float) -> None:
        """Other rules from now on: see Pool."""
        self.fail_open = fail_open
        self.passive_retry_s = passive_retry_s
        self._slow_start.reconfigure(slow_start_s)
        self.rebuild()

    # --- who they are -----------------------------------------------------------------------------------------------

    def join(self, server: Server, *, is_new: bool) -> None:
        """is_new: it joins others that are at work, and gets its share bit by bit once it `came_back`."""
        if server.breaker is not Breaker.CLOSED:
            self.out.append(server)
        self.servers.append(server)
        self.version += 1
        self.rebuild()
        if is_new:
            self._slow_start.left(server, float("-inf"))

    def leave(self, server: Server) -> None:
        """It is no member any more; requests that it has go on."""
        self.servers.remove(server)
        self.version += 1
        if server in self.out:
            self.out.remove(server)
        self._slow_start.forget(server)
        self.rebuild()

    def rebuild(self) -> None:
        """Membership or a weight changed: so may who is eligible, and the strategy must know before it picks. Many such
        changes in a row are one to it: some build large tables."""
        self._stale()
        self._is_strategy_behind = True

    # --- states -----------------------------------------------------------------------------------------------------

    def on_flip(self, listener: FlipListener) -> None:
        """Call `listener(server, old, new)` when the shown state of a server changes."""
        self._listeners.append(listener)

    def set_health(self, server: Server, health: Health, reason: str, why: str, now: float) -> bool:
        """See Pool."""
        if server.health is health and (health is not Health.DOWN or server.down_reason == reason):
            server.why = why
            return False
        was_down, old = server.health is Health.DOWN, server.shown
        server.health = health
        server.was_up = server.was_up or health is Health.UP or health is Health.BUSY
        server.down_reason = reason if health is Health.DOWN else ""
        if health is Health.DOWN and not was_down:
            self._slow_start.left(server, now)
        self.changed(server, old, why, now)
        if was_down and health is not Health.DOWN:
            # What failed before was most likely another process: it is not held against this one, and an ejection
            # waits for nothing but its probe.
            server.penalty_until = 0.0
            if server.circuit is not None:
                server.circuit.open_until = min(server.circuit.open_until, now)
            self.came_back(server, now)
        return True

    def set_admin(self, server: Server, admin: Admin, why: str, now: float, *, keep_sticky: bool) -> bool:
        """See Pool."""
        if server.admin is admin and server.keep_sticky == keep_sticky:
            return False
        server.keep_sticky = keep_sticky
        was_in_maintenance, old = server.admin is Admin.MAINT, server.shown
        server.admin = admin
        server.cut_at = inf
        if admin is Admin.MAINT:
            self._slow_start.left(server, now)
        self.changed(server, old, why, now)
        if was_in_maintenance:
            self.came_back(server, now)
        return True

    def ejected(self, server: Server, old: str, why: str, now: float) -> None:
        """Its breaker has opened. old: the state that was shown before."""
        server.breaker = Breaker.EJECTED
        if server in self.out:
            self.out.remove(server)
        elif server in self.servers:
            self._slow_start.left(server, now)
        if server in self.servers:
            self.out.append(server)
        self.changed(server, old, why, now)

    def closed(self, server: Server, old: str, why: str, now: float) -> None:
        """Its breaker has closed."""
        server.breaker = Breaker.CLOSED
        server.penalty_until = 0.0
        if server in self.out:
            self.out.remove(server)
        self.changed(server, old, why, now)
        if server in self.servers:
            self.came_back(server, now)

    def changed(self, server: Server, old: str, why: str, now: float) -> None:
        """One of its three axes did. old: the state that was shown before."""
        server.why = why
        server.changed_at = now
        self._stale()
        new = server.shown
        if new != old and server in self.servers:
            for listener in self._listeners:
                listener(server, old, new)

    def came_back(self, server: Server, now: float) -> None:
        """It may be used again, or for the first time."""
        if server.is_usable and self._slow_start.came_back(server, now, len(self.servers)):
            self.rebuild()

    def sweep(self, now: float) -> None:
        """What time brings: another chance for refused servers (without checks), and ramps."""
        if self.passive_retry_s is not None:
            for server in self.servers:
                if server.health is Health.DOWN and now - server.changed_at >= self.passive_retry_s:
                    self.set_health(server, Health.UNKNOWN, "", "trying again; no health checks", now)
        if self._slow_start.step(now):
            self.rebuild()
        if self._picker.step(self.servers, now):
            self._stale()

    # --- who may take a request -------------------------------------------------------------------------------------

    def _stale(self) -> None:
        self._is_dirty = True
        self.fast = ()

    def eligible(self) -> tuple[Server, ...]:
        """Servers that may take a new request, limits aside. Empty if there is none. Where one zone comes first, those
        of the others are in `beyond` instead."""
        if self._is_dirty:
            if self._is_strategy_behind:
                self._is_strategy_behind = False
                self._picker.rebuild(self.servers)
            self._eligible = self._compute_eligible()
            self.probing = tuple(server for server in self.out if self._may_be_probed(server))
            self.fast = () if self.probing else self._picker.prefer(self._eligible)
            self._is_dirty = False
        return self._eligible

    def _compute_eligible(self) -> tuple[Server, ...]:
        usable = tuple(server for server in self.servers if server.is_usable)
        self.is_failing_open = False
        if self.fail_open is not None and self.servers and len(usable) <= self.fail_open * len(self.servers):
            believed = tuple(
                server
                for server in self.servers
                if server.admin is Admin.READY
                and server.weight > 0
                and server.breaker is Breaker.CLOSED
                and (server.health is not Health.DOWN or (server.was_up and server.down_reason != REFUSED))
            )
            if len(believed) > len(usable):
                self.is_failing_open = True
                usable = believed
        return self._near(tuple(server for server in usable if not server.backup) or usable)

    def _near(self, usable: tuple[Server, ...]) -> tuple[Server, ...]:
        """Those of this zone, while at least half of them are usable, the others in `beyond`; else all, so that each
        zone has its share."""
        self.beyond = ()
        near = tuple(server for server in usable if not server.far)
        if not near or len(near) == len(usable):
            return usable
        n_wanted = 0
        for server in self.servers:
            if server.admin is Admin.READY and server.weight > 0 and not server.far and server.backup == near[0].backup:
                n_wanted += 1
        if 2 * len(near) < n_wanted:
            return usable
        self.beyond = tuple(server for server in usable if server.far)
        return near

    def _may_be_probed(self, server: Server) -> bool:
        """A backup is probed only while backups are in use: its turn comes before theirs, not before the primaries'."""
        return (
            server.breaker is Breaker.PROBING
            and server.admin is Admin.READY
            and server.health is not Health.DOWN
            and server.weight > 0
            and (not server.backup or not self._eligible or self._eligible[0].backup)
        )

    def why(self, server: Server, now: float) -> str:
        """What people are told about the state of a server; "" if there is nothing to say."""
        circuit = server.circuit
        if server.cut_at < inf and server.inflight:
            return f"{server.why}; what is in flight is cut in {max(0.0, server.cut_at - now):.0f} s"
        if server.admin is not Admin.READY or circuit is None or circuit.state is Breaker.CLOSED:
            is_unchecked = server.health is Health.UNKNOWN and self.passive_retry_s is None
            return server.why or ("not checked yet" if is_unchecked else "")
        if server.health is Health.DOWN and circuit.state is Breaker.PROBING:
            return server.why
        ago = f"{circuit.state.value} {max(0.0, now - circuit.changed_at):.0f} s ago: {circuit.what}"
        if circuit.state is Breaker.EJECTED:
            return f"{ago}, next probe in {max(0.0, circuit.open_until - now):.0f} s"
        return f"{ago}, {'a probe is out' if circuit.has_probes_out else 'the next request is a probe'}"
