"""What lbproxy tells its service manager: systemd's protocol (sd_notify(3)), a datagram of lines to a unix socket.

    READY=1                           it serves; after a reload too
    RELOADING=1, MONOTONIC_USEC=...   the config file is being read
    STOPPING=1                        what is in flight is finished
    MAINPID=...                       another process serves now (the unit needs NotifyAccess=all)
    STATUS=...                        one line for people
    WATCHDOG=1                        the loop that serves is alive, at twice the pace that is asked for

The variables are taken out of the environment, so that no program that a plug-in starts speaks for lbproxy; the process
that takes over in an upgrade gets them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, MutableMapping

from lbproxy.telemetry.log import ThrottledLog

log = logging.getLogger("lbproxy")

SOCKET = "NOTIFY_SOCKET"
USEC = "WATCHDOG_USEC"
PID = "WATCHDOG_PID"

FED = b"WATCHDOG=1"
PATIENCE_S = 0.1  # for a manager whose queue is full: the loop waits meanwhile

Send = Callable[[bytes], None]


class Manager:
    """send: one datagram; raises OSError; None: nobody wants to know. watchdog_s: how often WATCHDOG=1 is wanted at
    least, None: it is not. monotonic_ns: the clock of MONOTONIC_USEC."""

    def __init__(
        self,
        send: Send | None = None,
        watchdog_s: float | None = None,
        variables: dict[str, str] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._send = send
        self._watchdog_s = watchdog_s
        self._variables = variables or {}
        self._monotonic_ns = monotonic_ns
        self._log = ThrottledLog(log)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def variables(self) -> dict[str, str]:
        """For the process that takes over."""
        return dict(self._variables)

    def ready(self, status: str, main_pid: int | None = None) -> None:
        """It serves. main_pid: this process, if another one served before."""
        self._tell("READY=1", f"STATUS={status}", *([] if main_pid is None else [f"MAINPID={main_pid}"]))

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}", "STATUS=reading the config file")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=finishing what is in flight")

    def main_pid(self, pid: int) -> None:
        """That process serves, after all."""
        self._tell(f"MAINPID={pid}")

    def silence(self) -> None:
        """Another process speaks for lbproxy from now on."""
        self._send = None
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Feed the watchdog from this loop: whoever hangs is restarted."""
        pause_s = self.feed()
        if pause_s is not None:
            self._timer = loop.call_later(pause_s, self.watch, loop)

    def feed(self) -> float | None:
        """Feed the watchdog, and say when it is to be fed again, in seconds; None: there is none."""
        if self._send is None or self._watchdog_s is None:
            return None
        self._tell(FED.decode())
        return self._watchdog_s / 2

    def forward(self, data: bytes) -> None:
        """What another process of this lbproxy tells."""
        self._tell(*data.decode().splitlines())

    def _tell(self, *lines: str) -> None:
        if self._send is None:
            return
        try:
            self._send("\n".join(" ".join(line.splitlines()) for line in lines).encode("utf-8", "replace"))
        except OSError as error:
            self._log.warning("manager", "the service manager (%s) is not told %s: %s", SOCKET, lines[0], error)


def manager_of(environ: MutableMapping[str, str], pid: int) -> Manager:
    """From the environment, of which its variables are taken. pid: of this process. What is odd is told and ignored."""
    found = {name: environ.pop(name) for name in (SOCKET, USEC, PID) if name in environ}
    path = found.get(SOCKET, "")
    if not path:
        return Manager()
    if not path.startswith(("/", "@")):
        log.warning("%s=%s is no unix socket: the service manager is told nothing", SOCKET, path)
        return Manager()
    watchdog_s: float | None = None
    usec = found.get(USEC, "")
    if found.get(PID, str(pid)) == str(pid) and usec:
        if usec.isascii() and usec.isdigit() and int(usec):
            watchdog_s = int(usec) / 1e6
        else:
            log.warning("%s=%s is no number of microseconds: there is no watchdog", USEC, usec)
    kept = {SOCKET: path} | ({USEC: usec} if watchdog_s is not None else {})
    address = "\0" + path[1:] if path.startswith("@") else path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)

    def send(data: bytes) -> None:
        flags = socket.MSG_DONTWAIT if data == FED else 0  # there is another one soon
        sock.sendto(data, flags, address)

    return Manager(send, watchdog_s, kept)
