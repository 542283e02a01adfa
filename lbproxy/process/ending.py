"""How the process ends: it was told to stop, or another one has taken over.

A stop has a limit for what is in flight, `shutdown.grace`. After an upgrade nobody waits for this process, so what is
in flight may go on, tunnels and streams included, up to `shutdown.after_upgrade`; connections that idle are kept until
their next request, whose answer says that it is the last one, or until the client or their time-out closes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Set
from dataclasses import dataclass

from lbproxy.config.model import Shutdown
from lbproxy.dataplane.services import Services
from lbproxy.process.controller import Controller
from lbproxy.process.listeners import Listeners
from lbproxy.process.newcomers import held_off

log = logging.getLogger("lbproxy")

POLL_S = 0.02
LINGER_POLL_S = 0.2
FLUSH_S = 0.2
HANDED_S = 0.1
"""A process that has just been handed the sockets accepts that long after it was told to stop: until the one before it,
which hears of both, has closed its copies. Whoever came to these after ours were closed would be lost."""


@dataclass(slots=True)
class Ending:
    """stop, stop_now: a signal asked for the end, a second one did. has_before: does the process before this one still
    finish something? After an upgrade this one stays as long, to tell it of a stop. controller: None: it is another
    process, which is told of the stop, too. may_hold_off: no other process accepts, or may accept, at the sockets."""

    services: Services
    listeners: Listeners
    controller: Controller | None
    shutdown: Shutdown
    stop: asyncio.Event
    stop_now: asyncio.Event
    has_before: Callable[[], bool]
    may_hold_off: bool = True

    async def drain(self, told_at: float | None = None) -> None:
        """Stop accepting, and let what is in flight finish, as long as `shutdown.grace` says. told_at: when this
        process was told to stop, None: now."""
        services, shutdown = self.services, self.shutdown
        ends_at = (services.clock() if told_at is None else told_at) + shutdown.grace
        if self.controller is not None:
            self.controller.draining()
        delay_s = max(shutdown.delay, HANDED_S) if self.has_before() else shutdown.delay
        await self._wait_for(lambda: False, min(services.clock() + delay_s, ends_at))
        with held_off(self.listeners.filenos if self.may_hold_off else ()):
            await self._wait_for(lambda: not self.listeners.has_queued, services.clock() + 1.0)
            services.is_draining = True
            self.listeners.close(is_last=self.may_hold_off)
        await self._empty(ends_at)

    async def leave(self, taken: Set[str]) -> None:
        """Another process accepts at the sockets of these names: finish what is in flight here."""
        services, shutdown = self.services, self.shutdown
        begun = services.clock()
        self.listeners.hand_over(taken, begun)
        services.is_draining = True
        if self.controller is not None:
            await self.controller.handed_over(taken)
        rests = False
        while (services.swept or self.has_before()) and not self.stop.is_set():
            if services.clock() - begun >= shutdown.after_upgrade:
                break
            if not rests and services.clock() - begun >= shutdown.grace:
                rests = True
                if self.controller is not None:
                    self.controller.rest()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_POLL_S):
                    await self.stop.wait()
        await self._empty(services.clock() + shutdown.grace if self.stop.is_set() else services.clock())

    async def _empty(self, ends_at: float) -> None:
        """Wait for what is in flight, and cut what is left then."""
        services = self.services
        now = services.clock()
        for item in list(services.swept):
            item.begin_drain(now)
        await self._wait_for(lambda: not services.swept, ends_at)
        left = list(services.swept)
        if left:
            for item in left:
                item.shut_down()
            await asyncio.sleep(FLUSH_S)

    async def _wait_for(self, condition: Callable[[], bool], until: float) -> None:
        """Wait for the condition, the time, or a second signal, whichever is first."""
        while not condition() and not self.stop_now.is_set():
            left = until - self.services.clock()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_S)):
                    await self.stop_now.wait()
