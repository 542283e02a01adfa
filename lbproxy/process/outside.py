"""What stands around the process: who started it, and whom it tells that it serves.

That is a service manager, a pid file, sockets that were opened before, or the lbproxy whose work this one takes over.
All of it comes from the environment and the command line, and is taken out of the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from lbproxy.address import Address
from lbproxy.process.activation import address_of, assign, listen_fds, opened
from lbproxy.process.keeper import FD as KEEPER_FD
from lbproxy.process.keeper import Keeper, Kept, kept_of
from lbproxy.process.manager import Manager, manager_of
from lbproxy.process.pid_file import PidFile
from lbproxy.process.upgrade.arriving import Arrival, arrive
from lbproxy.process.upgrade.sockets import Inherited

log = logging.getLogger("lbproxy")


@dataclass(slots=True)
class Outside:
    """arrival: from the process before, if this is an upgrade. fds: of sockets that were opened for this process."""

    arrival: Arrival | None = None
    manager: Manager = field(default_factory=Manager)
    pid_file: PidFile | None = None
    fds: range = range(0)
    keeper: Keeper | None = None
    kept: Kept | None = None
    is_over: bool = False

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid_file: str | None, *, keeps_pid: bool = False) -> Outside:
        """Raises ValueError with a sentence for the user. keeps_pid: stay after an upgrade; process 1 always does."""
        pid = os.getpid()
        manager, fds, kept, arrival = (
            manager_of(environ, pid),
            listen_fds(environ, pid),
            kept_of(environ),
            arrive(environ),
        )
        keeper = Keeper() if arrival is None and kept is None and (keeps_pid or pid == 1) else None
        return cls(arrival, manager, None if pid_file is None else PidFile(pid_file, pid), fds, keeper, kept)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Descriptors for the process that takes over."""
        link = self.keeper or self.kept
        return () if link is None else (link.fd,)

    @property
    def variables(self) -> dict[str, str]:
        """For the same."""
        found = self.manager.variables
        for fd in self.pass_fds:
            found[KEEPER_FD] = str(fd)
        return found

    def sockets(self, wanted: Mapping[str, Address]) -> tuple[Inherited, list[str]]:
        """Listening sockets by name, and warnings. wanted: what will be bound. Raises ValueError."""
        if self.arrival is not None:
            return self.arrival.inherited, []
        return assign(wanted, [(address_of(sock), sock) for sock in opened(self.fds)])

    def inherit(self, wanted: Mapping[str, Address]) -> Inherited:
        """The same, with warnings in the log, if the pid file can be written. Raises ValueError; the text says why."""
        try:
            if self.pid_file is not None:
                self.pid_file.prepare()
        except OSError as error:
            raise ValueError(f"the pid file can't be written: {error.strerror}: {error.filename or ''}") from None
        inherited, warnings = self.sockets(wanted)
        for warning in warnings:
            log.warning("%s", warning)
        return inherited

    def serving(self, loop: asyncio.AbstractEventLoop) -> None:
        """This process accepts."""
        self.tell_serving()
        self.manager.watch(loop)

    def tell_serving(self) -> None:
        """The same, without the watchdog."""
        pid = os.getpid()
        if self.pid_file is not None:
            self.pid_file.take()
        if self.kept is not None:
            self.kept.serving(pid)
        self.manager.ready("serving", pid if self.arrival is not None else None)

    def handed_over(self, pid: int) -> None:
        """Another process does."""
        self.is_over = True
        self.manager.silence()
        if self.kept is not None:
            self.kept.handed_over()
        if self.keeper is not None:
            self.keeper.handed_over(pid)

    def pass_on(self, number: signal.Signals) -> bool:
        """Give a signal to the process that serves, if it is not this one, and this one has its place. Was that so?"""
        if self.keeper is None or not self.is_over:
            return False
        self.keeper.pass_on(number)
        return True

    @property
    def is_deserted(self) -> bool:
        """Does nobody serve any more, and this process has the place of who did?"""
        return self.keeper is not None and self.is_over and self.keeper.is_over()

    def take_back(self) -> None:
        """Another process was about to serve, and does not."""
        if self.pid_file is not None:
            self.pid_file.take()
        self.manager.main_pid(os.getpid())

    def leave_to_parent(self) -> None:
        """In a fork of this process: what ends with the process must not live on in another one."""
        if self.arrival is not None:
            self.arrival.leave_to_parent()
        if self.kept is not None:
            self.kept.handed_over()
        if self.keeper is not None:
            self.keeper.leave_to_parent()

    def ended(self) -> None:
        """The last thing that this process does."""
        if self.pid_file is not None:
            self.pid_file.remove()
