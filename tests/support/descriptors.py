"""What the descriptors of a process are, from /proc: how many of each kind, so that two moments can be compared."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

ESTABLISHED = "01"
LISTENS = "0A"


def kinds(pid: int, ports: Collection[int] = (), proc: Path = Path("/proc")) -> Counter[str]:
    """How many of each kind; none of a process that is gone. ports: of servers. A connection to one is called
    `to server PORT`, with its state, another one by its own port, and what is no TCP socket as the kernel calls it."""
    found: Counter[str] = Counter()
    try:
        entries = list((proc / str(pid) / "fd").iterdir())
        sockets = _tcp_sockets((proc / str(pid) / "net" / name).read_text() for name in ("tcp", "tcp6"))
    except OSError:
        return found
    for entry in entries:
        try:
            link = os.readlink(entry)
        except OSError:  # closed meanwhile
            continue
        found[_kind(link, sockets, ports)] += 1
    return found


def _kind(link: str, sockets: dict[str, tuple[int, int, str]], ports: Collection[int]) -> str:
    inode = re.fullmatch(r"socket:\[(\d+)\]", link)
    if inode is None:
        return re.sub(r":\[\d+\]$", "", link)
    if inode[1] not in sockets:
        return "socket that is no TCP"  # of unix sockets, or one that is not bound and not connected
    local, remote, state = sockets[inode[1]]
    if state == LISTENS:
        return f"listens at {local}"
    if remote in ports:
        return f"to server {remote}, state {state}"
    return f"at {local}, state {state}"


def _tcp_sockets(tables: Iterable[str]) -> dict[str, tuple[int, int, str]]:
    """Local port, remote port and state, by inode. tables: as of /proc/net/tcp."""
    found: dict[str, tuple[int, int, str]] = {}
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            found[fields[9]] = local, remote, fields[3]
    return found
