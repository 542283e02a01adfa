"""What a process does first that the supervisor has forked."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from typing import Final

from lbproxy.process.workers.child import Child

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
