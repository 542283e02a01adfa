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
    for link in filter(None, map(_link, entries)):
        found[_kind(link, sockets, ports)] += 1
    return found


def clients(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """The connections that a process has accepted over TCP, each with the state of both ends and who has the other one.

    It tells a connection that the process keeps from one that its client does.
    """
    own = _sockets_of(proc / str(pid))
    at = {local for local, _, state in own.values() if state == LISTENS}
    wanted = {(remote, local): state for local, remote, state in own.values() if local in at and state != LISTENS}
    found = [f"{local} from {remote}, state {state}" for (remote, local), state in wanted.items()]
    for other in proc.iterdir():
        if wanted and other.name.isdigit() and other.name != str(pid):
            name = _name(other)
            for local, remote, state in _sockets_of(other).values():
                if (local, remote) in wanted:
                    found.append(f"{remote} from {local}: the client is {other.name} {name}, state {state}")
    return sorted(found)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "gone"


def _sockets_of(process: Path) -> dict[str, tuple[int, int, str]]:
    """Local port, remote port and state of its TCP sockets, by inode; none where it may not be read, or is gone."""
    try:
        entries = list((process / "fd").iterdir())
        sockets = _tcp_sockets((process / "net" / name).read_text() for name in ("tcp", "tcp6"))
    except OSError:
        return {}
    links = [_link(entry) for entry in entries]
    own = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    return {inode: found for inode, found in sockets.items() if inode in own}


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:  # closed meanwhile
        return ""


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
