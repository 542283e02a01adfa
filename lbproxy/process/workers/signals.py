"""Signals for a process without an event loop: noted when they come, and taken when there is time for them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable
from types import FrameType


class Signals:
    """The process's own from `listen` on. A descriptor can be read when one has come."""

    def __init__(self) -> None:
        self._wake, self._woken = socket.socketpair()
        self._noted: list[signal.Signals] = []

    def listen(self, numbers: Iterable[signal.Signals]) -> None:
        """Note these."""
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(signal.Signals(number))

    def fileno(self) -> int:
        """To poll for reading."""
        return self._woken.fileno()

    def take(self) -> list[signal.Signals]:
        """Those that have come."""
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return []
        noted, self._noted = self._noted, []
        return noted

    def leave_to_parent(self) -> None:
        """In a fork of the process."""
        signal.set_wakeup_fd(-1)
        self._wake.close()
        self._woken.close()
