"""A process that stays after an upgrade, because somebody watches it: process 1 of a container, or `--keep-pid`.

A container ends with its process 1, and supervisors that know of no upgrade (runit, supervisord, tini) end or start
again what they have started. So the first process stays: it passes signals on to the one that serves, waits for
children, and ends when that one ends, with its status.

It learns who serves from a socket whose other end goes from each lbproxy to the next one: each says its id when it
serves, and closes its end when it is not the one any more. So the end of the stream is the end of them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final

from lbproxy.process.upgrade.sockets import socket_of

log = logging.getLogger("lbproxy")

FD: Final = "LBPROXY_KEEPER_FD"
PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
POLL_S: Final = 1.0
HANDLED_S: Final = 0.01  # in which the loop calls the handlers of signals that have come already
CHILDREN_S: Final = 30.0  # for those that still finish something
ORPHAN_S: Final = 5.0  # whoever has started a child waits for it sooner than that
_SUBREAPER: Final = 36  # prctl(2): orphans among our descendants become our children


class Keeper:
    """The first process's side. main: who serves."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.main = os.getpid()
        self._status: int | None = None  # of who serves, if it was waited for already
        self._noted: deque[signal.Signals] = deque()
        if os.getpid() != 1 and ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
            log.warning("--keep-pid: prctl failed, so the status of later processes can't be known")

    @property
    def fd(self) -> int:
        """What the next process gets."""
        return self._theirs.fileno()

    def handed_over(self, pid: int) -> None:
        """Another process serves."""
        self.main = pid
        self._theirs.close()

    def leave_to_parent(self) -> None:
        """In a fork of this process, which has nothing to keep."""
        self._ours.close()
        self._theirs.close()

    def ended(self, pid: int, status: int) -> None:
        """A child was waited for. status: as of waitpid."""
        self.is_over()
        if pid == self.main:
            self._status = os.waitstatus_to_exitcode(status)

    def pass_on(self, number: signal.Signals) -> None:
        """To the process that serves. It has a process group of its own, so no terminal has told it already."""
        self.is_over()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.main, number)

    async def hold_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on signals wait for `keep`: between the loop and that none may end this process, or be lost."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
        await asyncio.sleep(HANDLED_S)
        for number in PASSED_ON:
            loop.remove_signal_handler(number)
        self.hold_signals_now()

    def hold_signals_now(self) -> None:
        """The same where there is no loop."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
        for number in PASSED_ON:
            signal.signal(number, self._note)  # for those that reach another thread, which does not block them

    def _note(self, number: int, _frame: object) -> None:
        self._noted.append(signal.Signals(number))

    def is_over(self) -> bool:
        """Hear who serves. True if nobody does any more."""
        while True:
            try:
                told = self._ours.recv(64)
            except BlockingIOError:
                return False
            if not told:
                return True
            self.main = int(told)

    def keep(self) -> int:
        """Until nobody serves any more; the status of the last one. After `hold_signals`."""
        status = self._status
        waits_until: float | None = None
        while waits_until is None or time.monotonic() < waits_until:
            number = signal.sigtimedwait({*PASSED_ON, signal.SIGCHLD}, POLL_S)
            if number is not None and number.si_signo != signal.SIGCHLD:
                self._noted.append(signal.Signals(number.si_signo))
            while self._noted:
                self.pass_on(self._noted.popleft())
            is_over = self.is_over()
            ended, has_children = _reaped()
            if self.main in ended:
                status = os.waitstatus_to_exitcode(ended[self.main])
            if is_over and (status or not has_children):
                break  # a crash: what others still finish must not keep a supervisor from starting lbproxy again
            if is_over and waits_until is None:
                waits_until = time.monotonic() + CHILDREN_S
        if status is None:
            return 1
        return status if status >= 0 else 128 - status


def _reaped() -> tuple[dict[int, int], bool]:
    """Children that have ended, and how; whether there are others."""
    found: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found, False
        if not pid:
            return found, True
        found[pid] = status


class Kept:
    """The side of a process that came later."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    def serving(self, pid: int) -> None:
        """This process serves."""
        try:
            self._sock.send(b"%d" % pid)
        except OSError as error:
            log.warning("the process that keeps the place is not told: %s", error)

    def handed_over(self) -> None:
        """It does not any more."""
        self._sock.close()


def kept_of(environ: MutableMapping[str, str]) -> Kept | None:
    """From the environment, of which the variable is taken. Raises ValueError."""
    sock = socket_of(environ, FD)
    return None if sock is None else Kept(sock)


# --- process 1, before any upgrade ------------------------------------------------------------------------------------


class Orphans:
    """Waits for children that nobody in this process has started: process 1 gets them when their parents end.

    `subprocess` waits for its own, and must find them; so those are left alone that have not been dead for ORPHAN_S.
    zombies: ids of children that have ended and were not waited for. wait: for one of them.
    """

    def __init__(
        self,
        zombies: Callable[[], set[int]] | None = None,
        wait: Callable[[int], object] = lambda pid: os.waitpid(pid, os.WNOHANG),
    ) -> None:
        self._zombies = zombies or (lambda: zombies_of(os.getpid()))
        self._wait = wait
        self._seen: set[int] = set()
        self._due_at = float("-inf")

    def sweep(self, now: float) -> None:
        """To be called now and then. Monotonic seconds."""
        if now < self._due_at:
            return
        self._due_at = now + ORPHAN_S
        found = self._zombies()
        for pid in found & self._seen:
            with contextlib.suppress(ChildProcessError):  # somebody has waited for it meanwhile
                self._wait(pid)
        self._seen = found - self._seen


def zombies_of(parent: int, proc: Path = Path("/proc")) -> set[int]:
    """Children of a process that have ended and that nobody has waited for."""
    found: set[int] = set()
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # gone meanwhile
                continue
            if fields[0] == "Z" and fields[1] == str(parent):
                found.add(int(entry.name))
    return found
