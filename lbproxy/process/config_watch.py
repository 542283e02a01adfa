"""`watch: true`: the config file is read again when its content changes.

Looked at by name once a second, in a thread, because a file system may hang. Editors write a new file and rename it
over the old one, and Kubernetes swaps a symbolic link: by name both are a change like any other. A file that is being
written is left alone until it has been the same for a while; one that is not there is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lbproxy.config import loader
from lbproxy.config.problems import ConfigError
from lbproxy.config.source import read_bytes
from lbproxy.control.file_watch import Signature, signature

LOOK_S = 1.0
QUIET_S = 0.2


def digest(path: str) -> bytes:
    """What stands in the file, in short; b"" if it can't be read."""
    try:
        return loader.digest(read_bytes(path))
    except ConfigError:
        return b""


class ConfigWatch:
    """Call `run` as a task. changed: called when other content than `known()` has come to rest.

    known: the digest of what was read last, by whatever trigger. in_thread: how a function is run off the loop.
    """

    def __init__(
        self,
        path: str,
        known: Callable[[], bytes],
        changed: Callable[[], Awaitable[object]],
        *,
        in_thread: Callable[..., Any] = asyncio.to_thread,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._known = known
        self._changed = changed
        self._in_thread = in_thread
        self._sleep = sleep
        self._seen: Signature | None = None

    async def run(self) -> None:
        while True:
            await self.look()
            await self._sleep(LOOK_S)

    async def look(self) -> None:
        """One round; it takes as long as the file takes to come to rest."""
        found = await self._signature()
        if found == self._seen:
            return
        while True:
            self._seen = found
            await self._sleep(QUIET_S)
            found = await self._signature()
            if found == self._seen:
                break
        if None in found:
            return
        content: bytes = await self._in_thread(digest, self._path)
        if content and content != self._known():
            await self._changed()

    async def _signature(self) -> Signature:
        found: Signature = await self._in_thread(signature, (self._path,))
        return found
