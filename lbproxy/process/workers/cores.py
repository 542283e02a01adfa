"""How many processes `workers: auto` means: the cores that this process may use.

A container is often given less than the machine has: by the set of its processors (sched_getaffinity(2)), or by a quota
of processor time (cgroup v2's `cpu.max`, v1's `cpu.cfs_quota_us`), in any of the groups that it is in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST: Final = 1024
_ROOT: Final = Path("/sys/fs/cgroup")
_SELF: Final = Path("/proc/self/cgroup")


def usable_cores(n_processors: int | None = None, membership: Path = _SELF, root: Path = _ROOT) -> int:
    """1 to MOST; part of a core counts as one. n_processors: that this process may run on. membership, root: where the
    kernel tells of cgroups."""
    n_usable = len(os.sched_getaffinity(0)) if n_processors is None else n_processors
    quota = min(_quotas(membership, root), default=math.inf)
    return max(1, min(MOST, n_usable, n_usable if math.isinf(quota) else math.ceil(quota)))


def _quotas(membership: Path, root: Path) -> Iterator[float]:
    """What each group allows, in cores."""
    for line in _lines(membership):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / controllers
        else:
            continue
        group = Path(path.lstrip("/"))
        # Inside of a container the path may be that of the host, and its own group is at the root.
        for folder in (base, *(base / part for part in (group, *group.parents))):
            quota = _v2(folder) if controllers == "" else _v1(folder)
            if quota is not None:
                yield quota


def _v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _v1(folder: Path) -> float | None:
    quota, period = (" ".join(_lines(folder / f"cpu.cfs_{word}_us")).strip() for word in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isascii() and quota.isdigit() and period.isascii() and period.isdigit()):
        return None  # "max", or -1: no quota
    return int(quota) / int(period) if int(period) and int(quota) else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []  # there is no such group: nothing limits
