"""Servers from a file that others write: an editor, a deploy script, a ConfigMap.

Looked at twice a second by time, size and inode, in a thread, because a file system may hang. That sees what is written
in place, what is renamed over it, and a symlink on the way that points elsewhere (Kubernetes' `..data`), which watching
the file itself would not. A file that has changed is read when it has been quiet for QUIET_S; so it is never read in
the middle of two writes that follow each other, nor twice within one tick of the file system's clock.

What cannot be read, is empty, or is wrong in any line changes nothing, and is looked at again when it changes, or after
RETRY_S. An empty list is an answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lbproxy.config.problems import ConfigError
from lbproxy.config.server_model import ServerSpec
from lbproxy.config.servers_file import read_servers_file
from lbproxy.control.discovery.source import Answer, Pause, Polled, Trouble, found_as, pause
from lbproxy.control.file_watch import Signature, signature

POLL_S = 0.5
QUIET_S = 0.2
RETRY_S = 5.0
SHOWN = 3  # problems that one line of the log names


class ServersFile(Polled):
    """written: the path as the config has it; path: as it is seen from here. read, look_at: see the module."""

    kind = values_from = "servers_file"
    rank = 1

    def __init__(
        self,
        written: str,
        path: str,
        clock: Callable[[], float],
        *,
        environ: Mapping[str, str] = os.environ,
        read: Callable[[str, Mapping[str, str]], Sequence[ServerSpec]] = read_servers_file,
        look_at: Callable[[Sequence[str]], Signature] = signature,
        in_thread: Callable[..., Any] = asyncio.to_thread,
        pause: Pause = pause,
    ) -> None:
        super().__init__(f"servers_file:{written}", f"servers_file {written}", pause)
        self._path = path
        self._clock = clock
        self._environ = environ
        self._read = read
        self._look_at = look_at
        self._in_thread = in_thread
        self._seen: Signature | None = None  # at the last look, first so at _seen_at
        self._seen_at = 0.0
        self._used: Signature | None = None  # what the last answer was made from
        self._read_at = 0.0
        self._answer: Answer = ()

    async def look(self) -> Answer | None:
        now: Signature = await self._in_thread(self._look_at, (self._path,))
        is_first, time = self._seen is None, self._clock()
        if now != self._seen:
            self._seen, self._seen_at = now, time
        self.wait_s = POLL_S
        if now == self._used:
            if not isinstance(self._answer, Trouble):
                return self._answer
            if time - self._read_at < RETRY_S:
                return None
        elif not is_first and time - self._seen_at < QUIET_S:
            self.wait_s = QUIET_S
            return None
        self._used, self._read_at = now, time
        self._answer = await self._in_thread(self._read_all)
        return self._answer

    def _read_all(self) -> Answer:
        try:
            return [found_as(spec) for spec in self._read(self._path, self._environ)]
        except ConfigError as error:
            told = [str(problem) for problem in error.problems]
        more = f" (and {len(told) - SHOWN} more problems)" if len(told) > SHOWN else ""
        return Trouble("; ".join(told[:SHOWN]) + more)

    def failed(self, why: str) -> str:
        return why  # it begins with the path

    def recovered(self, n_servers: int) -> str:
        return f"{self.title} is good again, with {n_servers} servers"

    def gone(self) -> str:
        return f"{self.title} no longer lists it"

    def stays(self) -> str:
        return f"{self.title} lists it"
