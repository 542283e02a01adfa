"""Programs that the benchmark starts: pinned, known by pid with all their children, stopped whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.load import procfs
from benchmarks.load.errors import BenchmarkError

_START_LIMIT_S = 60.0  # beside a whole test run on two processors
_STOP_LIMIT_S = 5.0
_POLL_S = 0.02


class Process:
    """A started program and its children. stdout goes to /dev/null (a proxy's access log), stderr to a file."""

    def __init__(self, name: str, argv: Sequence[str], cpus: set[int], stderr: Path) -> None:
        self.name = name
        self.cpus = cpus
        self._stderr = stderr
        with stderr.open("wb") as log, pinned(cpus):
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    @property
    def tree(self) -> set[int]:
        return procfs.descendants(procfs.read_parents(), self._popen.pid)

    def wait_listening(self, port: int) -> None:
        """Return when this program, and nobody else, listens on the port."""
        limit = time.monotonic() + _START_LIMIT_S
        while not procfs.read_listeners(port):
            if self._popen.poll() is not None:
                raise BenchmarkError(f"{self.name} ended with status {self._popen.returncode}:\n{self.complaints()}")
            if time.monotonic() > limit:
                raise BenchmarkError(f"{self.name} does not listen on {port}:\n{self.complaints()}")
            time.sleep(_POLL_S)
        self.check_owner(port)

    def check_owner(self, port: int) -> None:
        """Raise BenchmarkError unless all sockets listening on the port are ours and all our processes are pinned."""
        tree = self.tree
        sockets = procfs.read_listeners(port)
        if self._popen.poll() is not None or not sockets:
            raise BenchmarkError(f"{self.name} no longer listens on {port}:\n{self.complaints()}")
        if foreign := sockets - procfs.read_socket_inodes(tree):
            raise BenchmarkError(f"port {port} belongs to someone else than {self.name}: socket inodes {foreign}")
        for pid in tree:
            if os.sched_getaffinity(pid) != self.cpus:
                raise BenchmarkError(f"process {pid} of {self.name} left its cores {sorted(self.cpus)}")

    def complaints(self) -> str:
        return self._stderr.read_text(errors="replace").strip() or "(it wrote nothing to stderr)"

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left of its own session."""
        if self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STOP_LIMIT_S)
        # Its session, and so this group, holds only what it started: workers that outlived their master.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


@contextlib.contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """This process, and so what it starts meanwhile, runs on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
