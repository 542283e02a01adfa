"""A Redis of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import Program
from tests.support.servers import needed
from tests.support.waiting import wait_until


class Store:
    """A Redis on a unix socket in a folder, which may be killed and started again. more: options of redis-server."""

    def __init__(self, folder: Path, *more: str) -> None:
        self._more = more
        self.path = folder / "redis.sock"
        self._log = folder / "redis.log"
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--dir", str(self._folder), *self._more]
        n_before = self._n_ready()
        self.program = Program([needed("redis-server"), *options], self._log)
        wait_until(lambda: self._n_ready() > n_before, "Redis to be there")

    def kill(self) -> None:
        self.program.kill()

    def restart(self) -> None:
        """After a kill: it is empty."""
        self.path.unlink()
        self.start()

    def _n_ready(self) -> int:
        return self._log.read_text().count("eady to accept connections") if self._log.exists() else 0


def redis_time(store: Store) -> float:
    """Its clock, in seconds."""
    command = [needed("redis-cli"), "-s", str(store.path), "time"]
    seconds, micros = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    return int(seconds) + int(micros) / 1e6
