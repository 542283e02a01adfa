"""Certificates and keys that change on disk are read again, without a reload of the config.

Looked at every two seconds by name, time, size and inode, in a thread, because a file system may hang. A renewal writes
several files one after the other, so what can't be loaded is tried again while the files still change, and complained
about once when they have come to rest. What is in use stays in use until then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger("lbproxy.control")

INTERVAL_S = 2.0
RETRY_S = 60.0  # after the same files could not be loaded again

Signature = tuple[tuple[int, int, int] | None, ...]


class Reloadable(Protocol):
    """Something made from files. `load` runs in a thread and may raise anything; `use` runs in the loop."""

    @property
    def renew_s(self) -> float | None:
        """After so long it is loaded again, changed or not; None for never."""
        ...

    def load(self) -> Any: ...

    def use(self, loaded: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class WatchedFiles:
    """name: for messages, such as `listener public`. what: they are, likewise. seen: their signature before they were
    loaded, as they may have changed since; None: they were loaded long ago, or never.
    """

    name: str
    paths: tuple[str, ...]
    target: Reloadable
    what: str = "certificate files"
    seen: Signature | None = None


def signature(paths: Sequence[str]) -> Signature:
    """What tells a changed file. None for one that is not there."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            stat = Path(path).stat()
            found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


class _Entry:
    __slots__ = ("files", "renew_at", "seen", "tried", "used", "was_reported")

    def __init__(self, files: WatchedFiles, used: Signature, now: float) -> None:
        self.files = files
        self.loaded(now)
        self.used = used  # what is in place was made from these
        self.seen = used  # at the last look
        self.tried: Signature | None = None  # these could not be loaded
        self.was_reported = False

    def loaded(self, now: float) -> None:
        renew_s = self.files.target.renew_s
        self.renew_at = now + (float("inf") if renew_s is None else renew_s)


class FileWatch:
    """Call `run` as a task. in_thread: how a function is run off the loop."""

    def __init__(
        self,
        files: Sequence[WatchedFiles],
        *,
        in_thread: Callable[..., Any] = asyncio.to_thread,
        look: Callable[[Sequence[str]], Signature] = signature,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_thread = in_thread
        self._look = look
        self._clock = clock
        self._entries = [self._entry(item) for item in files]

    @property
    def has_files(self) -> bool:
        return bool(self._entries)

    def watch(self, files: Sequence[WatchedFiles]) -> None:
        """Watch these from now on. What stays in use is not read anew for it."""
        known = {id(entry.files.target): entry for entry in self._entries}
        self._entries = [known.get(id(item.target)) or self._entry(item) for item in files]

    def _entry(self, item: WatchedFiles) -> _Entry:
        return _Entry(item, self._look(item.paths) if item.seen is None else item.seen, self._clock())

    async def run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """One round."""
        for entry in tuple(self._entries):
            await self._look_at(entry)

    async def _look_at(self, entry: _Entry) -> None:
        now: Signature = await self._in_thread(self._look, entry.files.paths)
        is_at_rest, entry.seen = now == entry.seen, now
        if now == entry.used:
            entry.tried, entry.was_reported = None, False
            if self._clock() < entry.renew_at:
                return
            entry.renew_at = self._clock() + RETRY_S  # should it fail
        if now == entry.tried and (entry.was_reported or not is_at_rest):
            return
        try:
            loaded = await self._in_thread(entry.files.target.load)
        except Exception as error:  # whatever is wrong with new files, the old ones serve on
            entry.tried = now
            if is_at_rest:
                entry.was_reported = True
                log.warning(
                    "%s: its new %s are not used, the old ones stay: %s",
                    entry.files.name,
                    entry.files.what,
                    error,
                )
            else:
                entry.was_reported = False
            return
        entry.files.target.use(loaded)
        if now != entry.used:
            log.info("%s: %s changed and are in use", entry.files.name, entry.files.what)
        entry.used, entry.tried, entry.was_reported = now, None, False
        entry.loaded(self._clock())
