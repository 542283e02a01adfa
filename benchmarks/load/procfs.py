"""What the kernel says about processes and sockets. The parsers are pure; the readers below them take pids.

CPU time comes from the process's own CPU clock (clock_getcpuclockid), which counts every thread, also ended ones, in
nanoseconds; utime and stime of /proc/PID/stat are the same sum cut into ticks of 10 ms. On kernels without
CONFIG_IRQ_TIME_ACCOUNTING, Debian's among others, it includes the loopback's receive work done while the process ran.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_CPUCLOCK_SCHED = 2  # linux/include/linux/posix-timers_types.h


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Ticks that one core has spent since boot. stolen: taken by the hypervisor for other guests."""

    busy: int
    idle: int
    stolen: int


def parse_stat(text: str) -> tuple[int, int]:
    """(parent's pid, start time in ticks since boot) from /proc/PID/stat. The program's name may hold anything."""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def parse_listeners(text: str, port: int) -> set[int]:
    """Inodes of the sockets that listen on `port`, from /proc/net/tcp or tcp6."""
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(int(fields[9]))
    return found


def parse_rss_kib(status: str) -> int:
    """VmRSS of /proc/PID/status; 0 for a process that has none any more (a zombie)."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def parse_core(text: str, core: int) -> CoreTime:
    """The line of one core in /proc/stat. Waiting for a disk counts as idle."""
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0] == f"cpu{core}":
            user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) for field in fields[1:9])
            return CoreTime(user + nice + system + irq + softirq, idle + iowait, stolen)
    raise ValueError(f"/proc/stat has no core {core}")


def descendants(parents: dict[int, int], root: int) -> set[int]:
    """`root` and everything below it. `parents` maps each pid to its parent's."""
    tree = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in tree and pid not in tree}
        if not more:
            return tree
        tree |= more


def read_parents() -> dict[int, int]:
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = parse_stat((entry / "stat").read_text())[0]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return parents


def read_cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far. Raises OSError if one of them has ended."""
    return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


def read_rss_kib(pids: Iterable[int]) -> int:
    """Sum over the processes; pages that they share are counted once for each."""
    return sum(parse_rss_kib((_PROC / str(pid) / "status").read_text()) for pid in pids)


def parse_pss_kib(rollup: str) -> int:
    """Pss of /proc/PID/smaps_rollup. Raises ValueError if it is not there."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError("smaps_rollup has no Pss")


def read_pss_kib(pids: Iterable[int]) -> int:
    """Sum over the processes; a page that several share is divided among them."""
    return sum(parse_pss_kib((_PROC / str(pid) / "smaps_rollup").read_text()) for pid in pids)


def read_core(core: int) -> CoreTime:
    return parse_core((_PROC / "stat").read_text(), core)


def read_listeners(port: int) -> set[int]:
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        table = _PROC / "net" / name
        if table.exists():
            found |= parse_listeners(table.read_text(), port)
    return found


def read_socket_inodes(pids: Iterable[int]) -> set[int]:
    """Inodes of all sockets that these processes hold."""
    found = set()
    for pid in pids:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            try:
                link = str(entry.readlink())
            except FileNotFoundError:
                continue
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return found
