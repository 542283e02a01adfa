"""The new process of an upgrade: it gets sockets from the one that runs, says when it could serve, and is told to.

If the old process goes while this is under way, the new one goes on: with the sockets if it has them, and else as after
any other start. If the new one can't serve it says why, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final

from lbproxy import __version__
from lbproxy.control.status import Json
from lbproxy.process.upgrade import channel
from lbproxy.process.upgrade.channel import Broken, BrokenOff, Gone, Line
from lbproxy.process.upgrade.sockets import Inherited, identify, socket_of
from lbproxy.process.upgrade.talk import Talk
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy")

FD: Final = "LBPROXY_UPGRADE_FD"
"""The descriptor on which the old process listens; lbproxy sets it, and takes it away from its own environment."""
SOCKETS_S: Final = 30.0  # the old process answers at once, unless it hangs
BEREFT_S: Final = 5.0
"""So long what is left of an lbproxy that was killed before it could hand over may still have its addresses."""


class NotWanted(Exception):
    """The old process goes on, or this one was told to end: the text says why."""


class Arrival:
    """What was handed over. inherited: the sockets. states: what was known of servers
    (control/kept_state.py), None if nothing was said. counts: of upgrades so far, by result."""

    def __init__(self, sock: socket.socket, told: Json, inherited: Inherited) -> None:
        self._sock = sock
        self._line: Line | None = None
        self._is_ready = False
        self.is_alone = False
        self.is_bereft = not told  # the old process was gone before it gave anything
        self.inherited = inherited
        self.states = told.get("states")
        self.was_ready = told.get("ready") is True
        counts = told.get("counts")
        self.counts = [int(count) for count in counts] if isinstance(counts, list) else []
        self.old_pid = told.get("pid")

    def fail(self, problems: Sequence[str]) -> None:
        """This process can't serve, and is about to end."""
        if self._is_ready:
            return  # the end of the process says it, and the log why
        with self._sock:
            try:
                channel.send(self._sock, "failed", problems=list(problems))
            except (Gone, TimeoutError) as error:
                log.debug("nobody to tell: %r", error)

    # --- where there is no event loop (workers/before.py) -----------------------------------------------------------

    def talk(self) -> Talk:
        """The rest of the conversation, which whoever calls this leads from now on."""
        self._is_ready = True
        return Talk(self._sock)

    def leave_to_parent(self) -> None:
        """In a fork of this process, which has nothing to say: only when the parent ends the stream does."""
        self._sock.close()

    # --- on the loop ------------------------------------------------------------------------------------------------

    async def ready(self, tasks: Tasks, stop: asyncio.Event) -> object:
        """Say that everything is there, and wait to be told to serve: the states as they are by then, None if the old
        process is gone. Raises NotWanted. stop: this process was told to end."""
        self._is_ready = True
        line = self._line = await Line.on(self._sock)
        stopped = tasks.spawn(stop.wait(), "upgrade: stop")
        answer = tasks.spawn(self._go(line), "upgrade: go")
        try:
            await asyncio.wait((stopped, answer), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set() or not answer.done():
                raise NotWanted("it was told to stop before it served")
            word, told = answer.result()
        finally:
            stopped.cancel()
            answer.cancel()
        if word == "go":
            return told.get("states")
        if word == "gone":
            log.warning("the process %s, which was to hand over, is gone: this one goes on by itself", self.old_pid)
            return None
        raise NotWanted(f"the process {self.old_pid} goes on itself: {told.get('why', word)}")

    async def _go(self, line: Line) -> tuple[str, Json]:
        try:
            await line.say("ready", taken=self.inherited.taken)
            told = await line.hear()
        except Gone:
            return "gone", {}
        except Broken as error:
            return "broken", {"why": str(error)}
        return str(told["say"]), told

    async def serving(self) -> None:
        """This process accepts."""
        await self._say("serving", pid=os.getpid(), version=__version__)

    async def follow(self) -> None:
        """Wait for the end of the old process: `is_alone` then."""
        if self._line is not None:
            with contextlib.suppress(Gone, Broken):
                await self._line.hear()
        self.is_alone = True

    async def stop(self) -> None:
        """This process ends: so should the old one, if it is still there."""
        await self._say("stop")

    async def _say(self, word: str, **told: object) -> None:
        if self._line is not None:
            try:
                await self._line.say(word, **told)
            except Gone:  # it has nothing left to do, or was killed
                self._line.close()
                self._line = None


def arrive(environ: MutableMapping[str, str]) -> Arrival | None:
    """Take what the old process hands over; None if there is none, and this is any other start.

    Raises ValueError if the variable is there and leads nowhere, or what came can't be understood.
    """
    sock = socket_of(environ, FD)
    if sock is None:
        return None
    sock.settimeout(SOCKETS_S)
    try:
        return _received(sock)
    except BaseException:
        sock.close()
        raise


def _received(sock: socket.socket) -> Arrival:
    """Raises ValueError."""
    try:
        channel.send(sock, "hello", protocol=channel.PROTOCOL, version=__version__, pid=os.getpid())
        told, sockets = channel.receive_sockets(sock)
    except (Gone, TimeoutError):
        return Arrival(sock, {}, Inherited())
    except BrokenOff:
        raise ValueError("the running lbproxy hands nothing over: it has broken off, and its log says why") from None
    except Broken as error:
        raise ValueError(f"the running lbproxy said what this one can't understand: {error}") from None
    if told["say"] != "sockets":
        raise ValueError(f"the running lbproxy hands nothing over: {told.get('why', told['say'])}")
    try:
        inherited = identify(told.get("sockets"), sockets)
    except ValueError:
        for item in sockets:
            item.close()
        raise
    return Arrival(sock, told, inherited)
