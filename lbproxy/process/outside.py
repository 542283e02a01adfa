"""What stands around the process: who started it, and whom it tells that it serves.

That is a service manager, a pid file, sockets that were opened before, or the lbproxy whose work this one takes over.
All of it comes from the environment and the command line, and is taken out of the environment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from lbproxy.address import Address
from lbproxy.process.activation import address_of, assign, listen_fds, opened
from lbproxy.process.manager import Manager, manager_of
from lbproxy.process.pid_file import PidFile
from lbproxy.process.upgrade.arriving import Arrival, arrive
from lbproxy.process.upgrade.sockets import Inherited


@dataclass(slots=True)
class Outside:
    """arrival: from the process before, if this is an upgrade. fds: of sockets that were opened for this process."""

    arrival: Arrival | None = None
    manager: Manager = field(default_factory=Manager)
    pid_file: PidFile | None = None
    fds: range = range(0)

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid_file: str | None) -> Outside:
        """Raises ValueError with a sentence for the user."""
        pid = os.getpid()
        manager, fds, arrival = manager_of(environ, pid), listen_fds(environ, pid), arrive(environ)
        return cls(arrival, manager, None if pid_file is None else PidFile(pid_file, pid), fds)

    def sockets(self, wanted: Mapping[str, Address]) -> tuple[Inherited, list[str]]:
        """Listening sockets by name, and warnings. wanted: what will be bound. Raises ValueError."""
        if self.arrival is not None:
            return self.arrival.inherited, []
        return assign(wanted, [(address_of(sock), sock) for sock in opened(self.fds)])

    def serving(self, loop: asyncio.AbstractEventLoop) -> None:
        """This process accepts."""
        pid = os.getpid()
        if self.pid_file is not None:
            self.pid_file.take()
        self.manager.ready("serving", pid if self.arrival is not None else None)
        self.manager.watch(loop)

    def take_back(self) -> None:
        """Another process was about to serve, and does not."""
        if self.pid_file is not None:
            self.pid_file.take()
        self.manager.main_pid(os.getpid())

    def ended(self) -> None:
        """The last thing that this process does."""
        if self.pid_file is not None:
            self.pid_file.remove()
