"""A daemon with several workers, and its processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, cast

from tests.support.client import Client
from tests.support.daemon import STOP_S, LbProxy
from tests.support.origin import Origin
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def crew_config(origin: Origin) -> dict[str, Any]:
    """Two workers, the listener `in`, and one pool, `p`."""
    return {
        "workers": 2,
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
    }


def status_of(port: int) -> int:
    """Of the answer to a request on a new connection."""
    with Client(port) as client:
        return client.ask(GET).status


def members_of(supervisor: int) -> dict[str, int]:
    """Ids of the processes that a supervisor has forked and that have not ended, by their names."""
    found: dict[str, int] = {}
    try:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    except OSError:  # it has ended
        return {}
    for pid in children.split():
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # gone meanwhile
            continue
        if name.startswith("lbproxy-") and state != "Z":
            found[name.removeprefix("lbproxy-")] = int(pid)
    return found


class CrewProxy(LbProxy):
    """workers above 1. `pid` is the supervisor's. Processes are called `c`, the controller, `1`, `2` and so on."""

    def members(self) -> dict[str, int]:
        """Ids of the processes that the supervisor has forked and that have not ended, by their names."""
        return members_of(self.pid)

    def kill_member(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Its id."""
        pid = self.members()[name]
        os.kill(pid, number)
        return pid

    def wait_replaced(self, name: str, pid: int) -> None:
        """Until another process of this name serves, and the controller says that all workers do."""
        wait_until(lambda: self.members().get(name, pid) != pid, f"a successor of {name} ({pid})")
        self.wait_all_up()

    def wait_all_up(self) -> None:
        """Until the controller says that every worker serves."""
        n_workers = len([name for name in self.members() if name != "c"])
        wait_until(lambda: self._n_up() == n_workers, "all workers to serve")

    def _n_up(self) -> float:
        try:
            return self.metric("worker_up")
        except OSError:
            return -1

    def worker_rows(self) -> list[dict[str, Any]]:
        """What the status says of each worker."""
        return cast("list[dict[str, Any]]", self.status()["workers"])

    def pss_bytes(self, name: str) -> int:
        """Memory of a process: its own, and its part of what it shares with others."""
        text = Path(f"/proc/{self.members()[name]}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) << 10

    def stopped_by(self, number: signal.Signals) -> int:
        """The exit status after a signal."""
        assert self.process is not None
        self.signal(number)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.kill()

    def ask_admin(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """A call of the admin address that changes something."""
        with Client(self.port("admin")) as admin:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            admin.send(head.encode() + body)
            answer = admin.response()
        return answer.status, answer.body


def is_alive(pid: int) -> bool:
    """Is there such a process, that has not ended?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
