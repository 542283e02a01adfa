"""What every process that the supervisor forks has: a number, a line to the supervisor, a loop that is watched."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lbproxy.config.loader import Kept
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.process.building import TlsParts
from lbproxy.process.upgrade.sockets import Inherited
from lbproxy.process.workers.board import BEAT_S, SERVING, Board, name_of
from lbproxy.process.workers.lines import Gone, Line, Said
from lbproxy.process.workers.neighbours import Mailbox
from lbproxy.process.workers.share import Share

log = logging.getLogger("lbproxy")

ORPHAN_GRACE_S: Final = 1.0
ORPHAN_S: Final = 1.9


@dataclass(slots=True)
class Setup:
    """What a process begins with. number: see Board. config: of the whole lbproxy; generation: its number. sockets:
    that are open for it. tls: what is made already. known: what the controller before knew of servers. mailboxes: of
    the workers, for connections."""

    number: int
    config: Config
    config_path: str
    shown: Callable[[Unusable], str]
    line: Line
    board: Board
    share: Share
    generation: int = 0
    kept: Kept | None = None
    sockets: Inherited = field(default_factory=Inherited)
    tls: TlsParts | None = None
    known: object = None
    is_first: bool = True
    waits: bool = False
    was_ready: bool = False
    counts: tuple[int, ...] = ()
    mailboxes: tuple[Mailbox, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return name_of(self.number)


class Station:
    """Hears the supervisor, and says that the loop runs. hears: by word. orphaned: the supervisor is dead; whoever is
    still here ORPHAN_S later is ended by the kernel."""

    def __init__(self, setup: Setup, hears: Mapping[str, Callable[[Said], None]], orphaned: Callable[[], None]) -> None:
        self._number = setup.number
        self._line = setup.line
        self._board = setup.board
        self._hears = hears
        self._orphaned = orphaned
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._line.fileno(), self._readable)
        self._beat(loop)

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._line.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def prepared(self) -> None:
        """It could do its work."""
        self._line.say("prepared")

    def serving(self) -> None:
        """It does its work from now on."""
        self._board.tell(self._number, SERVING)
        self._line.say("serving")

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._board.beat(self._number)
        self._timer = loop.call_later(BEAT_S, self._beat, loop)

    def _readable(self) -> None:
        try:
            while (said := self._line.hear()) is not None:
                hears = self._hears.get(said.word)
                if hears is not None:
                    hears(said)
                else:
                    close_all(said.fds)
        except Gone:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            log.error("the supervisor is gone: stopping")
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, ORPHAN_S)
            self._orphaned()


def close_all(fds: tuple[int, ...]) -> None:
    """Descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
