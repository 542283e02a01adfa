"""A process that the supervisor has forked: what it does first, and when it is forked again."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import Final, Literal

from lbproxy.process.workers.board import name_of
from lbproxy.process.workers.lines import Line
from lbproxy.process.workers.stuck import Watch

LIVED_S: Final = 10.0
"""Whoever lived so long did not die of its start."""
FIRST_DELAY_S: Final = 0.1
MOST_DELAY_S: Final = 5.0
HEARD: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
"""What the supervisor hears of."""
_SET_DEATH_SIGNAL: Final = 1  # prctl(2)
_SET_NAME: Final = 15


@dataclass(slots=True)
class Child:
    """number: see Board. pid 0: it does not run. due_at: when it is forked (again), monotonic seconds, None: it is not.
    said: how far it has come, as it said itself; "told": it waited to be told to serve, and was. failure: why it
    could not start, with the exit status, as it said itself."""

    number: int
    pid: int = 0
    line: Line | None = None
    due_at: float | None = None
    started_at: float = 0.0
    said: Literal["", "prepared", "updated", "told", "serving"] = ""
    failure: tuple[int, str] | None = None
    watch: Watch = field(default_factory=Watch)
    n_short: int = 0

    @property
    def name(self) -> str:
        return name_of(self.number)

    @property
    def serves(self) -> bool:
        return self.said == "serving"

    def started(self, pid: int, line: Line, now: float) -> None:
        self.pid, self.line, self.started_at, self.due_at = pid, line, now, None
        self.said, self.failure, self.watch = "", None, Watch()

    def ended(self) -> None:
        self.pid = 0
        if self.line is not None:
            self.line.close()
        self.line = None

    def delay_s(self, now: float) -> float:
        """How long to wait after an end, seconds: not at all at first; longer and longer for one that dies soon after
        each start."""
        self.n_short = 0 if self.serves and now - self.started_at >= LIVED_S else self.n_short + 1
        return 0.0 if self.n_short <= 1 else min(MOST_DELAY_S, FIRST_DELAY_S * 2 ** (self.n_short - 2))


def begin(number: int, supervisor: int) -> bool:
    """Have a name (number: see Board) and no signals. supervisor: its id. False: it is dead already."""
    libc = ctypes.CDLL(None)
    # Who was stopped goes on when the supervisor dies, and so hears of it.
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGCONT, 0, 0, 0)
    libc.prctl(_SET_NAME, f"lbproxy-{number or 'c'}".encode(), 0, 0, 0)
    for heard in HEARD:  # the supervisor says what they mean; a terminal tells the whole group
        signal.signal(heard, signal.SIG_DFL if heard == signal.SIGCHLD else signal.SIG_IGN)
    return os.getppid() == supervisor


def introduce(worker: Child, controller: Child) -> None:
    """Give both the ends of a channel, if both are there. Raises OSError."""
    if worker.line is None or controller.line is None:
        return
    first, second = socket.socketpair()
    controller.line.say("peer", b"%d" % worker.number, [first.fileno()])
    worker.line.say("peer", b"", [second.fileno()])
    first.close()
    second.close()
