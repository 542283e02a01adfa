"""Listening sockets that a process gets when it starts, by what they are for.

They come from the lbproxy whose work it takes over, or from whoever started it (process/activation.py). A name is that
of a bind address (process/listeners.py), or ADMIN and the address; one name may stand for several sockets, as a host
name does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from lbproxy.dataplane.net.unix_socket import SocketFile

ADMIN: Final = "admin "
"""Before the address of the admin socket, whose name no listener can have."""


def socket_of(environ: MutableMapping[str, str], variable: str) -> socket.socket | None:
    """What an lbproxy that started this one left in a variable, which is taken out: what is started here has none.

    None without it. Raises ValueError if it leads to no socket.
    """
    text = environ.pop(variable, None)
    if text is None:
        return None
    try:
        sock = socket.socket(fileno=int(text))
    except (ValueError, OSError):
        raise ValueError(f"{variable}={text!r} is no socket: lbproxy sets it for itself, unset it") from None
    sock.set_inheritable(False)
    return sock


class Given(NamedTuple):
    """Descriptors of one name for another process; file, is_ours: see Passed."""

    fds: Sequence[int]
    file: SocketFile | None = None
    is_ours: bool = False


def admin_name(address: object) -> str:
    return f"{ADMIN}{address}"


@dataclass(frozen=True, slots=True)
class Passed:
    """The sockets of one name. file: of a unix socket, if whoever has it is to remove it in the end. is_ours: an
    lbproxy has opened them, so nobody has them once there is no lbproxy; a service manager keeps its own."""

    sockets: tuple[socket.socket, ...]
    file: SocketFile | None = None
    is_ours: bool = False

    def close(self) -> None:
        """Not the end of the socket while another process has it, too."""
        for sock in self.sockets:
            sock.close()


@dataclass(slots=True)
class Inherited:
    """What was passed and nobody has taken yet. taken: names."""

    waiting: dict[str, Passed] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

    def take(self, name: str) -> Passed | None:
        """Whoever takes it closes it."""
        found = self.waiting.pop(name, None)
        if found is not None:
            self.taken.append(name)
        return found

    def close(self) -> None:
        """Nobody wants the rest."""
        for item in self.waiting.values():
            item.close()
        self.waiting.clear()


def describe(offered: Mapping[str, Given]) -> tuple[list[int], list[object]]:
    """Descriptors in order, and what they are. offered: by name."""
    fds: list[int] = []
    told: list[object] = []
    for name, (sockets, file, is_ours) in offered.items():
        fds += sockets
        at = None if file is None else [str(file.path), file.device, file.inode]
        told.append({"name": name, "count": len(sockets), "file": at, "ours": is_ours})
    return fds, told


def identify(told: object, sockets: Sequence[socket.socket]) -> Inherited:
    """What sockets are, from what `describe` gave. Raises ValueError if the two don't fit; the caller closes them."""
    found = Inherited()
    left = iter(sockets)
    for name, count, file, is_ours in _entries(told):
        members = tuple(sock for _, sock in zip(range(count), left, strict=False))
        if len(members) != count or name in found.waiting:
            raise ValueError(f"{name}: {count} sockets are described, {len(members)} came")
        for sock in members:
            sock.setblocking(False)
        found.waiting[name] = Passed(members, file, is_ours)
    if next(left, None) is not None:
        raise ValueError("more sockets came than are described")
    return found


def _entries(told: object) -> Iterator[tuple[str, int, SocketFile | None, bool]]:
    """A version that does not say whose a socket is knows it of files only."""
    if not isinstance(told, list):
        raise ValueError("the sockets are not described")
    for entry in told:
        match entry:
            case {"name": str(name), "count": int(count), "file": None} if count >= 0:
                yield name, count, None, entry.get("ours") is True
            case {"name": str(name), "count": int(count), "file": [str(path), int(device), int(inode)]} if count >= 0:
                yield name, count, SocketFile(Path(path), device, inode), entry.get("ours", True) is True
            case _:
                raise ValueError(f"a socket is described as {entry!r:.100}")
