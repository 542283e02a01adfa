"""What brings servers to a pool, behind one interface.

A source watches one thing (a name, a file, a record of DNS) and says what it found, or that it could not look. It
changes nothing itself: `discovery.py` keeps the last good answer of each, and the pool in step with all of them. So a
new kind of source is one small class with `watch`, and obeys the same rules as the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from lbproxy.address import Address
from lbproxy.config.server_model import ServerSpec

MIN_GAP_S = 1.0  # between two looks, whatever asks for them
MAX_SERVERS = 1024  # of one source; with more it is out of order


@dataclass(frozen=True, slots=True)
class Found:
    """A server as a source describes it. max_inflight None: as the pool says. host: see domain.server.Server.

    zone: where it stands, "" if that is not known. far: in another one than lbproxy, and the near come first.
    """

    address: Address
    name: str
    weight: int = 1
    max_inflight: int | None = None
    backup: bool = False
    host: str = ""
    zone: str = ""
    far: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """No answer, and why: the last good one stays in use."""

    why: str


Answer = Sequence[Found] | Trouble
Emit = Callable[[Answer], None]
Pause = Callable[[asyncio.Event, float], Awaitable[None]]


async def pause(woken: asyncio.Event, wait_s: float) -> None:
    """Wait until the time is over, or somebody asks, but not less than MIN_GAP_S of it."""
    least_s = min(wait_s, MIN_GAP_S)
    await asyncio.sleep(least_s)
    with contextlib.suppress(TimeoutError):  # nobody asked: the time is over
        async with asyncio.timeout(wait_s - least_s):
            await woken.wait()
    woken.clear()


class Source:
    """One source of one pool.

    kind: what the status says that a server is from; values_from: and its weight and limit. rank: where several sources
    have an address, the lowest says what its weight is. name: in metrics and the status, made of words of the config.
    title: in messages. lacking: what is wrong with part of the last good answer, "" if nothing. says: by address, what
    it says of the health of servers, which is shown and not gone by. going: addresses that are not in that answer, and
    known to be on their way out: an answer without them does not wait for more news.
    """

    kind = ""
    values_from = ""
    rank = 0

    def __init__(self, name: str, title: str, pause: Pause = pause) -> None:
        self.name = name
        self.title = title
        self.lacking = ""
        self.says: Mapping[str, str] = {}
        self.going: Set[str] = frozenset()
        self.woken = asyncio.Event()
        self._pause = pause

    def wake(self) -> None:
        """A connect to one of its servers failed: look soon."""
        self.woken.set()

    def left(self, ip: str) -> None:
        """A server at this IP address has left a pool; nothing is in flight there any more."""

    def succeed(self, before: Source) -> None:
        """It takes the place of one with other settings, and may take over what that one knows."""

    async def watch(self, emit: Emit) -> None:
        """Look again and again, until cancelled; the first time at once. Every look ends in one answer, if any."""
        raise NotImplementedError

    def failed(self, why: str) -> str:
        """What the log says of a look that failed."""
        return f"{self.title}: {why}"

    def recovered(self, n_servers: int) -> str:
        """What the log says of the first good answer after that."""
        raise NotImplementedError

    def gone(self) -> str:
        """Why a server leaves that it no longer has."""
        raise NotImplementedError

    def stays(self) -> str:
        """Why a server stays that another source lost."""
        return f"{self.title} has it"


class Polled(Source):
    """Looks, waits for `wait_s`, and looks again."""

    wait_s = 0.0

    async def watch(self, emit: Emit) -> None:
        while True:
            answer = await self.look()
            if answer is not None:
                emit(answer)
            await self._pause(self.woken, self.wait_s)

    async def look(self) -> Answer | None:
        """One look; None if there is nothing to say yet. It sets `wait_s`, the time to the next."""
        raise NotImplementedError


def found_as(spec: ServerSpec) -> Found:
    """A server that is described by its address."""
    return Found(spec.address, spec.name or str(spec.address), spec.weight, spec.max_inflight, spec.backup)
