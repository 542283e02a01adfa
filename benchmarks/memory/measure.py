"""How much more memory a proxy holds with so many connections more.

Each number comes from a process of its own, as freed memory would be used again. Its first connections are not counted:
they fill what a process makes once. PSS is the resident memory of all processes of a proxy, in which pages that several
share are divided among them. What the kernel holds for sockets is not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from benchmarks.load import procfs
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process, pinned
from benchmarks.load.results import rotated
from benchmarks.load.targets import Nginx, Placement, Setup, free_ports, inspect_nginx, start_target
from benchmarks.memory.crowd import HELD, IDLE, Crowd, Origin

TARGETS: Final = ("lbproxy", "haproxy", "nginx")
# What is counted, by name: the path of the request that each connection has sent, and what it means.
CASES: Final = {
    "idle": (IDLE, "a client's connection that has had one answer and is kept"),
    "active": (HELD, "a request that waits for its server: a connection on either side"),
}
_SERVERS: Final = 3
_FIRST: Final = 200
_SPARE_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """connections: so many are counted in each run. settle_s: what a process gets before it is looked at."""

    targets: tuple[str, ...]
    connections: int
    rounds: int
    settle_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """One process: PSS of the target before and with `connections` more. In KiB."""

    case: str
    target: str
    round: int
    connections: int
    before_kib: int
    after_kib: int

    @property
    def each_bytes(self) -> float:
        return (self.after_kib - self.before_kib) * 1024 / self.connections


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds of one target under one case; bytes per connection, with the range."""

    case: str
    target: str
    each_bytes: float
    low_bytes: float
    high_bytes: float
    before_kib: float
    after_kib: float


@dataclass(slots=True)
class Results:
    runs: list[Run] = field(default_factory=list)

    @property
    def summaries(self) -> list[Summary]:
        pairs = dict.fromkeys((run.case, run.target) for run in sorted(self.runs, key=lambda run: run.round))
        return [
            summarise([run for run in self.runs if (run.case, run.target) == pair])
            for pair in sorted(pairs, key=lambda pair: list(CASES).index(pair[0]))
        ]


def summarise(runs: Sequence[Run]) -> Summary:
    """Of the runs of one target under one case."""
    each = [run.each_bytes for run in runs]
    return Summary(
        case=runs[0].case,
        target=runs[0].target,
        each_bytes=median(each),
        low_bytes=min(each),
        high_bytes=max(each),
        before_kib=median(run.before_kib for run in runs),
        after_kib=median(run.after_kib for run in runs),
    )


class Runner:
    """`say` gets one line of progress per run."""

    def __init__(self, options: Options, placement: Placement, say: Callable[[str], None]) -> None:
        self._options = options
        self._placement = placement
        self._say = say
        self._nginx = inspect_nginx() if "nginx" in options.targets else Nginx("")

    def run(self) -> Results:
        """Raises BenchmarkError if a connection is lost, or not kept."""
        raise_file_limit(sockets(self._options.connections))
        results = Results()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-memory-")))
            folder.chmod(0o755)  # nginx started by root lets an unprivileged worker open the files
            stack.enter_context(pinned(set(self._placement.load)))
            for number in range(self._options.rounds):
                for case in CASES:
                    for target in rotated(self._options.targets, number):
                        place = folder / f"{number}-{case}-{target}"
                        run = uvloop.run(self._measure(case, target, number, place))
                        self._say(f"{case} round {number + 1} {target}: {run.each_bytes / 1024:.2f} KiB each")
                        results.runs.append(run)
        return results

    async def _measure(self, case: str, target: str, number: int, folder: Path) -> Run:
        path = CASES[case][0]
        count = self._options.connections
        origin = Origin()
        servers = await origin.listen(_SERVERS)
        (port,) = free_ports(1)
        setup = Setup("http", port, servers, folder, self._nginx, clients=sockets(count) // 2)
        process = start_target(target, setup, self._placement)
        crowd = Crowd(port)
        try:
            await asyncio.to_thread(process.wait_listening, port)
            await asyncio.sleep(self._options.settle_s)  # servers have passed their first checks

            async def grow(more: int, total: int) -> int:
                await crowd.grow(more, path)
                if path == HELD:
                    await crowd.until_held(origin, total)
                else:
                    await crowd.until_answered(total)
                await asyncio.sleep(self._options.settle_s)
                return read_pss_kib(process, port)

            before_kib = await grow(_FIRST, _FIRST)
            after_kib = await grow(count, _FIRST + count)
            origin.release()
            await crowd.until_answered(_FIRST + count)
            crowd.check_whole()
        except BenchmarkError as error:
            raise BenchmarkError(f"{case} through {target}: {error}\n{process.complaints()}") from None
        finally:
            crowd.close()
            origin.close()
            await asyncio.to_thread(process.stop)
        return Run(case, target, number, count, before_kib, after_kib)


def read_pss_kib(process: Process, port: int) -> int:
    """Of all processes of a target, which must be the one that listens on the port."""
    process.check_owner(port)
    return procfs.read_pss_kib(process.tree)


def sockets(connections: int) -> int:
    """How many a proxy, or the other side, needs at most: two for each request under way, and some to spare."""
    return 2 * (_FIRST + connections) + _SPARE_FILES


def raise_file_limit(needed: int) -> None:
    """This process, and the proxies that inherit it, may have so many descriptors. Raises BenchmarkError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise BenchmarkError(f"{needed} descriptors are needed and at most {hard} allowed: fewer --connections")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
