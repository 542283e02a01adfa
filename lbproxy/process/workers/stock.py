"""The sockets of all processes, as the supervisor keeps them: of the listeners, of a config to come, of the admin
address."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lbproxy.config.model import Config
from lbproxy.dataplane.listener import BindError
from lbproxy.dataplane.net.unix_socket import SocketFile
from lbproxy.process.listeners import binds_of
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade.arriving import BEREFT_S
from lbproxy.process.upgrade.handing import Offered
from lbproxy.process.upgrade.sockets import Given, Inherited, Passed, admin_name
from lbproxy.process.workers.lines import Said
from lbproxy.process.workers.sockets import Door, Doors, unflat

_PAUSE_S: Final = 0.05


class Stock:
    """doors: the open addresses. fresh: of a config that is not in force yet. owns_files: this lbproxy serves, so
    the files of unix sockets are its own."""

    def __init__(self, n_workers: int) -> None:
        self.doors = Doors(n_workers)
        self.fresh: dict[str, Door] = {}
        self.admin: tuple[str, Passed] | None = None
        self.owns_files = True

    def open(self, config: Config, outside: Outside) -> None:
        """Bind every address, or take what was inherited for it. Raises ValueError, BindError."""
        wanted = binds_of(config)
        binds = {name: item.address for name, item in wanted.items()}
        admin = config.admin.bind
        inherited = outside.inherit(binds if admin is None else {**binds, admin_name(admin): admin})
        passed = None if admin is None else inherited.take(admin_name(admin))
        self.admin = None if passed is None else (admin_name(admin), passed)
        arrival = outside.arrival
        self.owns_files = arrival is None
        patient_until = time.monotonic() + (BEREFT_S if arrival is not None and arrival.is_bereft else 0.0)
        while True:
            try:
                self.doors.bind(wanted, inherited, is_handed_over=arrival is not None)
                break
            except BindError:
                if time.monotonic() >= patient_until:
                    raise
            time.sleep(_PAUSE_S)
        inherited.close()

    # --- who has which ----------------------------------------------------------------------------------------------

    def leave_to_controller(self) -> Inherited:
        """In the controller: the sockets of the admin address; the rest is closed."""
        for door in self.doors.open.values():
            door.close(keeps_file=True)
        return Inherited({} if self.admin is None else dict([self.admin]))

    def leave_to_worker(self, slot: int) -> Inherited:
        """In a worker: its own; the rest is closed."""
        if self.admin is not None:
            self.admin[1].close()
        return Doors(self.doors.n_workers, {**self.doors.open, **self.fresh}).leave_to(slot)

    # --- another config ---------------------------------------------------------------------------------------------

    def keep_admin(self, said: Said) -> None:
        """The controller has opened its address."""
        told = json.loads(said.data)
        if self.admin is not None:
            self.admin[1].close()
        file = None if told["file"] is None else SocketFile(Path(told["file"][0]), told["file"][1], told["file"][2])
        self.admin = told["name"], Passed(tuple(socket.socket(fileno=fd) for fd in said.fds), file)

    def take(self, said: Said) -> dict[str, Door]:
        """Sockets of a config that is not in force yet."""
        doors = unflat(json.loads(said.data), said.fds, self.doors.n_workers)
        self.fresh |= doors
        return doors

    def drop_fresh(self, *, keeps_files: bool = True) -> list[str]:
        """It is not wanted; the names. keeps_files: whoever has bound unix sockets removes their files."""
        names = list(self.fresh)
        for door in self.fresh.values():
            door.close(keeps_file=keeps_files)
        self.fresh.clear()
        return names

    def adopt(self, config: Config, gone: Iterable[str]) -> None:
        """It is in force. gone: names."""
        self.doors.open |= self.fresh
        self.fresh = {}
        for name in gone:
            if name in self.doors.open:
                self.doors.open.pop(name).close()
        if config.admin.bind is None and self.admin is not None:
            self.admin[1].close()
            self.admin = None

    # --- an upgrade, and the end ------------------------------------------------------------------------------------

    def offered(self) -> Offered:
        """What another process gets."""
        found = {name: Given(door.descriptors(), door.file, door.is_ours) for name, door in self.doors.open.items()}
        if self.admin is not None:
            name, passed = self.admin
            fds = [sock.fileno() for sock in passed.sockets]
            found[name] = Given(fds, passed.file, passed.file is not None)
        return found

    def hand_over(self, taken: Iterable[str]) -> None:
        """Another process has those of these names: the copies of this one go, and what nobody has taken ends."""
        names = set(taken)
        for name, door in self.doors.open.items():
            door.close(keeps_file=name in names)
        self.doors.open.clear()
        self.drop_fresh()
        if self.admin is not None:
            name, passed = self.admin
            passed.close()
            if passed.file is not None and name not in names:
                passed.file.remove()
            self.admin = None

    def close(self) -> None:
        """Nobody accepts any more. The files of unix sockets stay until `remove_files`, as they do for whoever still
        is in a queue."""
        self.doors.close(keeps_files=True)

    def remove_files(self) -> None:
        """They lead to nobody."""
        if self.owns_files:
            self.doors.remove_files()
            if self.admin is not None and self.admin[1].file is not None:
                self.admin[1].file.remove()
