"""Who listens on a port of this machine, as /proc tells it: several workers behind one port are several processes.

A supervisor that only holds the socket for its children (gunicorn's and uvicorn's parents) is none of them. Processes
of other users are seen by root only; then nothing is known, and nothing is said.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from lbproxy.address import Address

MOST_PROCESSES: Final = 20_000
_LISTEN: Final = "0A"
_SOCKET: Final = "socket:["


def workers(addresses: Collection[Address], proc: Path = Path("/proc")) -> dict[Address, tuple[int, ...]]:
    """Process ids of those that accept on each address, without those that are elsewhere or can't be told.

    proc: where /proc is. It is gone through once, since on a large machine that takes a while.
    """
    local = {address for address in addresses if _is_here(address)}
    ports = dict(_listening(proc)) if local else {}
    wanted = {address.port for address in local}
    parents: dict[int, dict[int, int]] = {port: {} for port in wanted}
    sockets = {inode: port for inode, port in ports.items() if port in wanted}
    for pid in _pids(proc) if sockets else ():
        process = proc / str(pid)
        for port in {sockets[inode] for inode in _held(process) if inode in sockets}:
            parents[port][pid] = _parent(process)
    return {address: found for address in local if (found := _without_supervisors(parents[address.port]))}


def _is_here(address: Address) -> bool:
    if address.is_unix or not address.is_literal:
        return False
    return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback


def _without_supervisors(parents: Mapping[int, int]) -> tuple[int, ...]:
    """parents: of those that hold a socket, by process id."""
    return tuple(sorted(parents.keys() - set(parents.values()) or parents.keys()))


def _listening(proc: Path) -> Iterator[tuple[str, int]]:
    """Inode and port of every socket that listens."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTEN:
                yield words[9], int(words[1].rpartition(":")[2], 16)


def _pids(proc: Path) -> list[int]:
    try:
        return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())[:MOST_PROCESSES]
    except OSError:
        return []


def _held(process: Path) -> Iterator[str]:
    """Inodes of the sockets that it has open."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # it has ended, or is somebody else's
        return
    for path in descriptors:
        try:
            target = str(path.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith(_SOCKET):
            yield target.removeprefix(_SOCKET).removesuffix("]")


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
