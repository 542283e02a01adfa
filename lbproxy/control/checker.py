"""Active health checks: when to check which server, and what becomes of the results.

Each server has a task, hence one check in flight at most. First checks come soon, as /readyz waits for one to pass, and
are spread out where there are many servers; every wait is jittered, so that many servers (or many proxies) do not check
in step. Servers in maintenance are not checked.

What a verdict means (the counting of rise and fall is in domain/health.py):

    pass                          a pass
    fail                          a failure
    refused                       nobody listens: down at once, checked again after 250 ms, then with back-off
    time-out, recent progress     busy: the server works, but not on our check
    time-out, no progress         a failure
    none, or lbproxy was late     discarded: our own trouble says nothing about the server
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from lbproxy.address import Address
from lbproxy.config.model import HealthCheck
from lbproxy.control.probe import ProbeSpec, Result, Verdict, probe
from lbproxy.domain.health import CheckResult, HealthMachine
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import SERVER, Row

FIRST_GAP_S = 0.005  # between first checks of a pool, on average
FIRST_WITHIN_S = 0.5  # and all of them
MIN_GAP_S = 0.25  # between two checks of a server, whoever asks for them
LATE_FACTOR = 1.5  # a check that took this many time-outs was held up by us: the timer fires at one

_COUNTS = {word: SERVER.column("health_checks_total", word) for word in ("pass", "fail", "busy", "discarded")}

Probe = Callable[[ProbeSpec, Address], Awaitable[Result]]


class _Watch:
    """One server under observation."""

    __slots__ = (
        "busy_window_s",
        "checked_at",
        "due_at",
        "interval_s",
        "machine",
        "pool",
        "server",
        "spec",
        "task",
        "wake",
        "was_checked",
    )

    def __init__(self, pool: Pool, server: Server, check: HealthCheck, spec: ProbeSpec, first_at: float) -> None:
        self.pool = pool
        self.server = server
        self.spec = spec
        self.interval_s = check.interval
        self.busy_window_s = check.busy_window
        self.machine = HealthMachine(check.rise, check.fall, has_joined=server.health is Health.DOWN)
        if server.health in (Health.UP, Health.BUSY):  # another process has found that out
            self.machine.health = server.health
        self.due_at = first_at
        self.checked_at = float("-inf")
        self.wake = asyncio.Event()
        self.was_checked = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def change(self, check: HealthCheck, spec: ProbeSpec) -> None:
        """Check in another way from the next time on. What was counted stays."""
        self.spec = spec
        self.interval_s = check.interval
        self.busy_window_s = check.busy_window
        self.machine.reconfigure(check.rise, check.fall)

    def bring_forward(self, at: float) -> None:
        """Check at `at` instead of later."""
        at = max(at, self.checked_at + MIN_GAP_S)
        if at < self.due_at:
            self.due_at = at
            self.wake.set()


class Checker:
    """Runs the checks of all pools. clock is monotonic seconds; server_row finds the counters of a server."""

    def __init__(
        self,
        tasks: Tasks,
        clock: Callable[[], float],
        rng: random.Random,
        server_row: Callable[[Pool, Server], Row | None],
        run_probe: Probe = probe,
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._rng = rng
        self._server_row = server_row
        self._probe = run_probe
        self._checks: dict[str, tuple[HealthCheck, ProbeSpec]] = {}
        self._watches: dict[tuple[str, str], _Watch] = {}

    def add_pool(self, pool: Pool, check: HealthCheck, spec: ProbeSpec) -> None:
        """Check the servers of a pool from now on, the first time at some moment within FIRST_WITHIN_S."""
        self._checks[pool.name] = check, spec
        spread_s = min(check.interval, FIRST_WITHIN_S, len(pool.servers) * FIRST_GAP_S)
        for server in pool.servers:
            self._watch(pool, server, self._clock() + self._rng.random() * spread_s)

    def change_pool(self, pool: Pool, check: HealthCheck, spec: ProbeSpec) -> None:
        """Check in another way: each server when it is due, or an interval from now if that is sooner."""
        self._checks[pool.name] = check, spec
        now = self._clock()
        for watch in self._watches_of(pool):
            watch.change(check, spec.named(watch.server.host))
            watch.bring_forward(now + watch.machine.next_check_delay(watch.interval_s, self._rng))

    def drop_pool(self, pool: Pool) -> None:
        """Check its servers no more."""
        self._checks.pop(pool.name, None)
        for watch in self._watches_of(pool):
            self.remove(pool, watch.server)

    def end_checks(self, pool: Pool) -> None:
        """It is not checked any more: what checks have found out holds no longer, what traffic has does."""
        self.drop_pool(pool)
        for server in pool.servers:
            if server.health is Health.BUSY or (server.health is Health.DOWN and server.down_reason != REFUSED):
                pool.set_health(server, Health.UNKNOWN, "", "there are no health checks any more", self._clock())

    def _watches_of(self, pool: Pool) -> list[_Watch]:
        return [watch for watch in self._watches.values() if watch.pool is pool]

    def add(self, pool: Pool, server: Server) -> None:
        """A server joined: check it at once, because it may be waiting for its first pass."""
        if pool.name in self._checks:
            self._watch(pool, server, self._clock())

    def remove(self, pool: Pool, server: Server) -> None:
        """A server left."""
        watch = self._watches.get((pool.name, server.key))
        if watch is None or watch.server is not server:  # another one has its address meanwhile
            return
        del self._watches[pool.name, server.key]
        if watch.task is not None:
            watch.task.cancel()

    async def all_checked(self) -> None:
        """Wait until every server has been checked once; nobody waits for those in maintenance."""
        for watch in list(self._watches.values()):
            if watch.server.admin is not Admin.MAINT:
                await watch.was_checked.wait()

    def kick(self, pool: Pool, server: Server) -> None:
        """Check this server soon: the data plane had trouble with it."""
        watch = self._watches.get((pool.name, server.key))
        if watch is not None:
            watch.bring_forward(self._clock())

    def refused(self, pool: Pool, server: Server) -> None:
        """The data plane was refused by this server and has set it down: look for its return."""
        watch = self._watches.get((pool.name, server.key))
        if watch is not None:
            now = self._clock()
            watch.machine.refused(now)
            watch.bring_forward(now + self._next_delay(watch))

    def _watch(self, pool: Pool, server: Server, first_at: float) -> None:
        check, spec = self._checks[pool.name]
        key = (pool.name, server.key)
        known = self._watches.get(key)
        if known is not None and known.server is not server:
            self.remove(pool, known.server)  # which had this address, and drains
        if key not in self._watches:
            watch = self._watches[key] = _Watch(pool, server, check, spec.named(server.host), first_at)
            watch.task = self._tasks.spawn(self._follow(watch), f"check:{pool.name}/{server.name}")

    async def _follow(self, watch: _Watch) -> None:
        while True:
            while (wait_s := watch.due_at - self._clock()) > 0:
                watch.wake.clear()
                with contextlib.suppress(TimeoutError):  # nobody brought the check forward: it is due
                    async with asyncio.timeout(wait_s):
                        await watch.wake.wait()
            if watch.server.admin is Admin.MAINT:
                watch.due_at = self._clock() + self._next_delay(watch)
                continue
            await self._check(watch)

    async def _check(self, watch: _Watch) -> None:
        started = watch.checked_at = self._clock()
        watch.due_at = float("inf")
        if watch.spec.server_host != watch.server.host:  # its address is another name's now
            watch.spec = watch.spec.named(watch.server.host)
        result = await self._probe(watch.spec, watch.server.address)
        now = self._clock()
        self.take(watch, result, started, now)
        watch.was_checked.set()
        # A kick during the check has set due_at already; a check that took longer than its interval is not caught up.
        watch.due_at = min(watch.due_at, max(started + self._next_delay(watch), now))

    def _next_delay(self, watch: _Watch) -> float:
        return watch.machine.next_check_delay(watch.interval_s, self._rng)

    def take(self, watch: _Watch, result: Result, started: float, now: float) -> None:
        """Count a result and act on it."""
        server, machine = watch.server, watch.machine
        word = self._word(watch, result, started, now)
        row = self._server_row(watch.pool, server)
        if row is not None:
            row[_COUNTS[word]] += 1
        if word == "discarded" or server.admin is Admin.MAINT:
            return
        is_only_hope = not any(other.is_usable for other in watch.pool.servers if other is not server)
        health = machine.observe(CheckResult(word), result.reason, now, is_only_hope=is_only_hope)
        if health is not None:
            watch.pool.set_health(server, health, result.reason, result.why, now)
        elif server.health is Health.DOWN and word != "pass":
            server.why = result.why  # still down, perhaps for another reason

    def _word(self, watch: _Watch, result: Result, started: float, now: float) -> str:
        """pass, fail, busy or discarded."""
        if result.verdict is Verdict.PASS:
            return "pass"
        if result.verdict is Verdict.NONE or now - started > LATE_FACTOR * watch.spec.timeout_s:
            return "discarded"
        if result.verdict is Verdict.TIMEOUT and now - watch.server.progress_at <= watch.busy_window_s:
            return "busy"
        return "fail"
