"""Who listens on a port of this machine, as /proc tells it: several workers behind one port are several processes.

A supervisor that only holds the socket for its children (gunicorn's and uvicorn's parents) is none of them. Processes
of other users are seen by root only; then nothing is known, and nothing is said.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lbproxy.address import Address

MOST_PROCESSES: Final = 20_000
_LISTEN: Final = "0A"


def workers(address: Address, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Process ids of those that accept on it; () if it is elsewhere or can't be told. proc: where /proc is."""
    if (
        address.is_unix
        or not address.is_literal
        or not ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
    ):
        return ()
    sockets = {f"socket:[{inode}]" for inode in _listening(address.port, proc)}
    if not sockets:
        return ()
    holders = {pid: _parent(proc / str(pid)) for pid in _pids(proc) if _holds(proc / str(pid), sockets)}
    return tuple(sorted(holders.keys() - set(holders.values()) or holders.keys()))


def _listening(port: int, proc: Path) -> Iterator[str]:
    """Inodes of the sockets that listen on a port."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                yield words[9]


def _pids(proc: Path) -> list[int]:
    try:
        return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())[:MOST_PROCESSES]
    except OSError:
        return []


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # it has ended, or is somebody else's
        return False
    return any(_target(path) in sockets for path in descriptors)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
