"""The listening sockets of all workers, which the supervisor keeps: whoever waits at one outlives the worker.

Each worker has a socket of its own for each TCP address (SO_REUSEPORT): the kernel spreads connections over them, and a
successor accepts where the one before it did. A unix socket, and what a service manager has opened, is one for all.

What another lbproxy hands over is the very sockets that it has, as who waits at one is lost with it. With fewer workers
than before some of them accept at several. With more, those that are left over get none until nobody else needs what is
there: the kernel gives connections to a new socket at once, and nobody would accept them if the upgrade failed.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbproxy.address import Address
from lbproxy.dataplane.listener import BACKLOG, BindError, bind_message, bind_tcp, listen_tcp, shown
from lbproxy.dataplane.net.unix_socket import SocketFile, bind_unix
from lbproxy.process.listeners import Bind
from lbproxy.process.upgrade.sockets import Inherited, Passed

log = logging.getLogger("lbproxy")

Sockets = tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Door:
    """One bind address. listener: its name. slots: the sockets of each worker, in order; the same ones for all where
    they are shared; none for who has to wait for some (`widened`). addresses: with the ports that the kernel chose.
    file: of a unix socket. is_ours: see Passed."""

    listener: str
    slots: tuple[Sockets, ...]
    addresses: tuple[str, ...]
    ports: frozenset[int]
    file: SocketFile | None = None
    is_ours: bool = True

    @classmethod
    def of(
        cls, listener: str, slots: tuple[Sockets, ...], file: SocketFile | None = None, *, is_ours: bool = True
    ) -> Door:
        """From sockets that are open."""
        ports = [sock.getsockname()[1] for sock in slots[0] if sock.family != socket.AF_UNIX]
        return cls(listener, slots, tuple(dict.fromkeys(map(shown, slots[0]))), frozenset(ports), file, is_ours)

    @classmethod
    def handed_over(
        cls, listener: str, sockets: Sockets, n_workers: int, file: SocketFile | None = None, *, is_ours: bool = True
    ) -> Door:
        """From the sockets of another lbproxy, of one worker or several."""
        places: dict[object, list[socket.socket]] = {}
        for sock in sockets:
            places.setdefault(sock.getsockname(), []).append(sock)
        if all(sock.family == socket.AF_UNIX for sock in sockets):
            return cls.of(listener, (sockets,) * n_workers, file, is_ours=is_ours)
        n_seats = min(n_workers, *(len(members) for members in places.values()))
        slots = [
            tuple(sock for members in places.values() for sock in members[slot::n_seats]) if slot < n_seats else ()
            for slot in range(n_workers)
        ]
        return cls.of(listener, tuple(slots), file, is_ours=is_ours)

    @property
    def n_seated(self) -> int:
        """How many workers have sockets: the first ones."""
        return sum(1 for sockets in self.slots if sockets)

    def widened(self) -> Door:
        """Sockets for those who have none; where none can be had, those of another worker."""
        n_seated = self.n_seated
        slots = list(self.slots)
        for slot in range(n_seated, len(slots)):
            known = slots[slot % n_seated]
            try:
                for sock in known:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                slots[slot] = _like(tuple({sock.getsockname(): sock for sock in known}.values()))
            except OSError as error:
                log.warning(
                    "listener %s: no further socket at %s: %s; workers share one",
                    self.listener,
                    self.addresses[0],
                    error.strerror,
                )
                slots[slot] = known
        return replace(self, slots=tuple(slots))

    def descriptors(self) -> list[int]:
        """Of all sockets, each once."""
        return [sock.fileno() for sock in self._all()]

    def close(self, *, keeps_file: bool = False) -> None:
        """This process's copies. keeps_file: somebody else has the socket, too."""
        for sock in self._all():
            sock.close()
        if self.file is not None and not keeps_file:
            self.file.remove()

    def leave_to(self, slot: int) -> Passed:
        """In a worker: what is its own; the rest is closed. The file is the supervisor's."""
        own = self.slots[slot]
        for sock in self._all():
            if sock not in own:
                sock.close()
        return Passed(own, is_ours=self.is_ours)

    def _all(self) -> Iterable[socket.socket]:
        return {id(sock): sock for sockets in self.slots for sock in sockets}.values()


def open_door(
    item: Bind,
    n_workers: int,
    *,
    is_beside: bool = False,
    passed: Passed | None = None,
    is_handed_over: bool = False,
) -> Door:
    """Bind an address for all workers. Raises BindError with a sentence; nothing stays open then.

    is_beside: this lbproxy is bound to the port already, at an overlapping address. passed: opened by somebody else.
    is_handed_over: by another lbproxy.
    """
    address, name = item.address, item.listener.name
    if passed is not None:
        if passed.file is not None:
            passed.file.set_mode(item.listener.mode_bits)
        if is_handed_over:
            return Door.handed_over(name, passed.sockets, n_workers, passed.file, is_ours=passed.is_ours)
        return Door.of(name, (passed.sockets,) * n_workers, passed.file, is_ours=passed.is_ours)
    try:
        if address.is_unix:
            sock, file = bind_unix(address, item.listener.mode_bits, BACKLOG)
            return Door.of(name, ((sock,),) * n_workers, file)
        return Door.of(name, _bind_slots(address, n_workers, is_beside))
    except OSError as error:
        raise BindError(bind_message(f"listener {name}", address, error)) from None


def _bind_slots(address: Address, n_workers: int, is_beside: bool) -> tuple[Sockets, ...]:
    """Raises OSError."""
    if address.port and not is_beside:
        # Whoever else shares its port would get a part of the traffic without a word: another lbproxy, for one.
        for sock in bind_tcp(address, shares_port=False):
            sock.close()
    slots: list[Sockets] = [tuple(bind_tcp(address, shares_port=True))]
    try:
        for _ in range(n_workers - 1):
            slots.append(_like(slots[0]))
    except OSError:
        for sockets in slots:
            for sock in sockets:
                sock.close()
        raise
    return tuple(slots)


def _like(sockets: Sockets) -> Sockets:
    """More of them at the same addresses. Raises OSError."""
    found: list[socket.socket] = []
    try:
        for sock in sockets:
            found.append(listen_tcp(sock.family, sock.getsockname(), shares_port=True))
    except OSError:
        for sock in found:
            sock.close()
        raise
    return tuple(found)


@dataclass(slots=True)
class Doors:
    """All of them, by the names of process/listeners.py."""

    n_workers: int
    open: dict[str, Door] = field(default_factory=dict)

    def bind(self, wanted: Mapping[str, Bind], inherited: Inherited, *, is_handed_over: bool = False) -> None:
        """Raises BindError; nothing stays open then. is_handed_over: inherited from another lbproxy."""
        try:
            for name, item in wanted.items():
                self.open[name] = open_door(
                    item, self.n_workers, passed=inherited.take(name), is_handed_over=is_handed_over
                )
        except BindError:
            for name, door in self.open.items():
                door.close(keeps_file=is_handed_over and name in inherited.taken)
            self.open.clear()
            raise

    @property
    def n_seated(self) -> int:
        """How many workers have sockets at all of them: the first ones."""
        return min((door.n_seated for door in self.open.values()), default=self.n_workers)

    def widen(self) -> None:
        """Sockets for all workers."""
        for name, door in self.open.items():
            if door.n_seated < self.n_workers:
                self.open[name] = door.widened()

    def leave_to(self, slot: int) -> Inherited:
        """In a worker: its own sockets; the rest is closed."""
        passed = {name: door.leave_to(slot) for name, door in self.open.items()}
        return Inherited({name: item for name, item in passed.items() if item.sockets})

    def close(self, *, keeps_files: bool = False) -> None:
        """This process's copies."""
        for door in self.open.values():
            door.close(keeps_file=keeps_files)
        if not keeps_files:
            self.open.clear()

    def remove_files(self) -> None:
        """Nobody accepts any more."""
        for door in self.open.values():
            if door.file is not None:
                door.file.remove()

    def ports(self) -> set[int]:
        """The TCP ports among them."""
        return {port for door in self.open.values() for port in door.ports}


def flat(doors: Mapping[str, Door]) -> tuple[list[dict[str, object]], list[int]]:
    """Doors for a message, and their descriptors in order."""
    told: list[dict[str, object]] = []
    fds: list[int] = []
    for name, door in doors.items():
        is_shared = all(sockets is door.slots[0] for sockets in door.slots)
        slots = door.slots[:1] if is_shared else door.slots
        file = None if door.file is None else [str(door.file.path), door.file.device, door.file.inode]
        entry: dict[str, object] = {"name": name, "listener": door.listener, "file": file, "ours": door.is_ours}
        told.append({**entry, "each": len(slots[0]), "shared": is_shared})
        fds += [sock.fileno() for sockets in slots for sock in sockets]
    return told, fds


def unflat(told: Sequence[Mapping[str, object]], fds: Sequence[int], n_workers: int) -> dict[str, Door]:
    """What `flat` gave."""
    left = iter(fds)
    found: dict[str, Door] = {}
    for entry in told:
        n_slots = 1 if entry["shared"] else n_workers
        each = int(str(entry["each"]))
        slots = tuple(tuple(_taken(next(left)) for _ in range(each)) for _ in range(n_slots))
        file = entry["file"]
        found[str(entry["name"])] = Door.of(
            str(entry["listener"]),
            slots * n_workers if entry["shared"] else slots,
            SocketFile(Path(file[0]), file[1], file[2]) if isinstance(file, list) else None,
            is_ours=bool(entry["ours"]),
        )
    return found


def _taken(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock
