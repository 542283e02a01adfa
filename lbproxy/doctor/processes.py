"""Who listens on a port of this machine, as /proc tells it: several workers behind one port are several processes.

A supervisor that only holds the socket for its children (gunicorn's and uvicorn's parents) is none of them. Processes
of other users are seen by root only; then nothing is known, and nothing is said.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lbproxy.address import Address

Host = ipaddress.IPv4Address | ipaddress.IPv6Address
MOST_PROCESSES: Final = 20_000
_LISTEN: Final = "0A"
_SOCKET: Final = "socket:["


def workers(addresses: Collection[Address], proc: Path = Path("/proc")) -> dict[Address, tuple[int, ...]]:
    """Process ids of those that accept on each address, without those that are elsewhere or can't be told.

    proc: where /proc is. It is gone through once, since on a large machine that takes a while.
    """
    local = {address for address in addresses if _is_here(address)}
    listening = list(_listening(proc)) if local else []
    inodes = {address: _of(address, listening) for address in local}
    parents: dict[Address, dict[int, int]] = {address: {} for address in local}
    for pid in _pids(proc) if any(inodes.values()) else ():
        process = proc / str(pid)
        held = set(_held(process))
        for address in local:
            if held & inodes[address]:
                parents[address][pid] = _parent(process)
    return {address: found for address in local if (found := _without_supervisors(parents[address]))}


def _of(address: Address, listening: Sequence[tuple[str, Host, int]]) -> set[str]:
    """Inodes of the sockets that get its connections: those bound to it, else those bound to every address."""
    host = ipaddress.ip_address(address.host.partition("%")[0])
    here = [(inode, bound) for inode, bound, port in listening if port == address.port]
    exact = {inode for inode, bound in here if bound == host}
    return exact or {inode for inode, bound in here if bound.is_unspecified and bound.version >= host.version}


def _is_here(address: Address) -> bool:
    if address.is_unix or not address.is_literal:
        return False
    return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback


def _without_supervisors(parents: Mapping[int, int]) -> tuple[int, ...]:
    """parents: of those that hold a socket, by process id."""
    return tuple(sorted(parents.keys() - set(parents.values()) or parents.keys()))


def _listening(proc: Path) -> Iterator[tuple[str, Host, int]]:
    """Inode, address and port of every socket that listens."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTEN:
                host, _, port = words[1].rpartition(":")
                yield words[9], _host(host), int(port, 16)


def _host(text: str) -> Host:
    """An address as /proc/net has it: words of 32 bits in the machine's order of bytes."""
    raw = bytes.fromhex(text)
    step = -1 if sys.byteorder == "little" else 1
    found = ipaddress.ip_address(b"".join(raw[at : at + 4][::step] for at in range(0, len(raw), 4)))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped


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
