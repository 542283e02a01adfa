"""The steps of an upgrade at which a process of either lbproxy can get a signal (tests/support/killing.py), in their
order, and a daemon that does.

`Victim` runs with everything that an upgrade has to look after (TCP and unix listeners, the admin address, a state
file, a pid file, a service manager), and with traffic on new connections all the time.
"""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import nursery
from tests.support.client import Client
from tests.support.crew import members_of
from tests.support.killing import text
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import READY_S, Chain, is_alive
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Ended

OLD: Final = (
    "before lbproxy.process.upgrade.handing:start",
    "after lbproxy.process.upgrade.handing:start",
    "before lbproxy.process.upgrade.channel:send_sockets",
    "after lbproxy.process.upgrade.channel:send_sockets",
    "before lbproxy.process.keeping:Keeping.last_snapshot",
    "before lbproxy.control.state_file:StateFile.pause",
    "after lbproxy.process.keeping:Keeping.last_snapshot",
    "after lbproxy.process.upgrade.channel:Line.say",
    "before lbproxy.process.upgrade.taking_over:TakingOver._handed_over",
    "before lbproxy.process.outside:Outside.handed_over",
    "after lbproxy.process.upgrade.taking_over:TakingOver._handed_over",
    "before lbproxy.process.ending:Ending.leave",
    "before lbproxy.process.listeners:Listeners.hand_over",
    "after lbproxy.process.listeners:Listeners.hand_over",
    "after lbproxy.process.admin_address:AdminAddress.handed_over",
    "after lbproxy.process.ending:Ending.leave",
)
"""Of one process, which hands over."""
NEW: Final = (
    "before lbproxy.process.upgrade.arriving:_received",
    "after lbproxy.process.upgrade.arriving:_received",
    "before lbproxy.process.worker:Worker._start",
    "before lbproxy.process.worker:Worker._bind",
    "after lbproxy.process.worker:Worker._bind",
    "after lbproxy.process.controller:Controller.start",
    "before lbproxy.process.upgrade.arriving:Arrival.ready",
    "after lbproxy.process.upgrade.channel:Line.say",
    "after lbproxy.process.upgrade.arriving:Arrival.ready",
    "before lbproxy.process.keeping:Keeping.update",
    "before lbproxy.process.listeners:Listeners.start",
    "after lbproxy.process.listeners:Listeners.start",
    "after lbproxy.process.admin_address:AdminAddress.serve",
    "before lbproxy.process.keeping:Keeping.serve",
    "after lbproxy.process.keeping:Keeping.serve",
    "before lbproxy.process.outside:Outside.tell_serving",
    "after lbproxy.process.pid_file:PidFile.take",
    "after lbproxy.process.outside:Outside.tell_serving",
    "before lbproxy.process.upgrade.arriving:Arrival.serving",
    "after lbproxy.process.upgrade.arriving:Arrival.serving",
)
"""Of one process, which takes over."""
OLD_SUPERVISOR: Final = (
    "before lbproxy.process.workers.passing_on:PassingOn.begin",
    "after lbproxy.process.workers.passing_on:PassingOn.begin",
    "before lbproxy.process.workers.heir:Heir._greeted",
    "after lbproxy.process.workers.heir:Heir._greeted",
    "before lbproxy.process.workers.heir:Heir.go",
    "after lbproxy.process.workers.heir:Heir.go",
    "before lbproxy.process.workers.supervisor:Supervisor._hand_over",
    "before lbproxy.process.workers.stock:Stock.hand_over",
    "after lbproxy.process.workers.stock:Stock.hand_over",
    "after lbproxy.process.workers.supervisor:Supervisor._hand_over",
)
OLD_CONTROLLER: Final = (
    "before lbproxy.process.workers.succession:Succession._hand_over",
    "before lbproxy.process.workers.succession:Succession._say_last",
    "after lbproxy.process.keeping:Keeping.last_snapshot",
    "after lbproxy.process.workers.succession:Succession._say_last",
    "before lbproxy.process.workers.succession:Succession.handed_over",
    "before lbproxy.process.workers.control_process:ControlProcess._leave",
    "after lbproxy.process.admin_address:AdminAddress.handed_over",
)
OLD_WORKER: Final = (
    "before lbproxy.process.workers.data_process:DataProcess._told_to_leave",
    "before lbproxy.process.ending:Ending.leave",
    "after lbproxy.process.listeners:Listeners.hand_over",
    "after lbproxy.process.ending:Ending.leave",
)
NEW_SUPERVISOR: Final = (
    "before lbproxy.process.upgrade.arriving:_received",
    "after lbproxy.process.upgrade.arriving:_received",
    "before lbproxy.process.workers.supervisor:Supervisor._make",
    "after lbproxy.process.workers.supervisor:Supervisor._make",
    "after lbproxy.process.workers.supervisor:Supervisor._start",
    "before lbproxy.process.workers.before:Before.ready",
    "after lbproxy.process.workers.before:Before.ready",
    "after lbproxy.process.workers.supervisor:Supervisor._hear_before",
    "before lbproxy.process.workers.supervisor:Supervisor._let_serve",
    "after lbproxy.process.workers.supervisor:Supervisor._let_serve",
    "before lbproxy.process.outside:Outside.tell_serving",
    "after lbproxy.process.pid_file:PidFile.take",
    "after lbproxy.process.outside:Outside.tell_serving",
    "before lbproxy.process.workers.before:Before.serving",
    "after lbproxy.process.workers.before:Before.serving",
)
NEW_CONTROLLER: Final = (
    "before lbproxy.process.controller:Controller.start",
    "after lbproxy.process.controller:Controller.start",
    "before lbproxy.process.workers.succession:Succession.take_over",
    "before lbproxy.process.workers.succession:Succession.update",
    "after lbproxy.process.workers.succession:Succession.update",
    "before lbproxy.process.workers.succession:Succession.serve",
    "before lbproxy.process.keeping:Keeping.serve",
    "after lbproxy.process.keeping:Keeping.serve",
    "after lbproxy.process.admin_address:AdminAddress.serve",
    "before lbproxy.process.workers.station:Station.serving",
    "after lbproxy.process.workers.station:Station.serving",
)
NEW_WORKER: Final = (
    "before lbproxy.process.workers.data_process:DataProcess._build",
    "before lbproxy.process.workers.station:Station.prepared",
    "after lbproxy.process.workers.station:Station.prepared",
    "before lbproxy.process.workers.data_process:DataProcess._open",
    "after lbproxy.process.listeners:Listeners.start",
    "before lbproxy.process.workers.station:Station.serving",
    "after lbproxy.process.workers.station:Station.serving",
)
ALL: Final = (*OLD, *NEW, *OLD_SUPERVISOR, *OLD_CONTROLLER, *OLD_WORKER, *NEW_SUPERVISOR, *NEW_CONTROLLER, *NEW_WORKER)
TRIES: Final = 24  # at two workers: that all of them come to one happens once in ten million times
IN_DOUBT: Final = (ConnectionResetError, BrokenPipeError, Ended)

_IMPATIENT = """
from lbproxy.process.upgrade import handing

handing.READY_S = {ready_s}


class _Asyncio:
    def __getattr__(self, name):
        return getattr(asyncio, name)

    def timeout(self, seconds):
        real, loop = asyncio.timeout(seconds), asyncio.get_running_loop()

        def look():
            if pathlib.Path({over!r}).exists():
                try:
                    real.reschedule(loop.time())
                except RuntimeError:  # it is over, or has not begun
                    pass
            else:
                loop.call_later(0.02, look)

        look()
        return real


handing.asyncio = _Asyncio()
"""


class Traffic:
    """A request on a new connection, one after the other, from a thread. came: of what, how many: a status or an
    error's name."""

    def __init__(self, *places: int | str) -> None:
        self.came: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in places]
        for thread in self._threads:
            thread.start()

    def _run(self, place: int | str) -> None:
        while not self._is_over.is_set():
            try:
                with Client(place, timeout_s=PATIENCE_S) as client:
                    self.came[str(client.ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").status)] += 1
            except IN_DOUBT:
                self.came["cut" if isinstance(place, int) else "cut unix"] += 1
            except OSError as error:
                self.came[errno.errorcode.get(error.errno or 0, type(error).__name__)] += 1
            time.sleep(0.002)

    def wait_more(self, count: int = 5) -> None:
        """Until so many more were answered."""
        enough = self.came["200"] + count
        wait_until(lambda: self.came["200"] >= enough, f"answers, after {dict(self.came)}")

    def end(self) -> Counter[str]:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return self.came


class Victim(Chain):
    """See the module. file: see `arm`."""

    def __init__(self, workers: int, origin: Origin, directory: Path) -> None:
        first = consecutive_ports(2)
        self.unix = directory / "in.sock"
        self.pid_file = directory / "lb.pid"
        self.state_file = directory / "state.json"
        self.over = directory / "over"
        self.file = directory / "falls"
        config: dict[str, Any] = {
            "workers": workers,
            "admin": {"bind": f"127.0.0.1:{first + 1}"},
            "state_file": "state.json",
            "shutdown": {"grace": "5s"},
            "listeners": [{"name": "in", "bind": [f"127.0.0.1:{first}", f"unix:{self.unix}"], "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": {"interval": "100ms"}}},
        }
        self._life = -1
        more = _IMPATIENT.format(ready_s=READY_S, over=str(self.over))
        super().__init__(config, directory, "--pid-file", str(self.pid_file), text=text(self.file, ALL, more))
        self.may_complain = True
        self.in_port, self.admin_port = first, first + 1
        self.server = origin.address
        self.workers = workers

    def _started(self, env: Mapping[str, str]) -> subprocess.Popen[bytes] | nursery.Nursling:
        """Its standard output is a pipe that nobody else has: what has it at all is of this daemon."""
        self._close_life()
        self._life, self._stdout = os.pipe()
        try:
            return super()._started(env)
        finally:
            os.close(self._stdout)

    def _close_life(self) -> None:
        if self._life >= 0:
            os.close(self._life)
        self._life = -1

    def __exit__(self, *exc: object) -> None:
        try:
            super().__exit__(*exc)
        finally:
            for pid in self.processes():
                self.kill_own(pid)
            self._close_life()

    @property
    def is_gone(self) -> bool:
        """Has every process of it ended?"""
        life = select.poll()
        life.register(self._life, select.POLLIN)
        return any(event & select.POLLHUP for _, event in life.poll(0))

    def processes(self) -> set[int]:
        """All that write to its log, and so are its; but for who is just being made."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and is_alive(int(entry.name)):
                try:
                    where = os.readlink(entry / "fd" / "2")
                except OSError:  # gone meanwhile
                    continue
                if where == str(self.stderr_path):
                    found.add(int(entry.name))
        return found

    def whole(self) -> int:
        """The process that serves, if it is, with its members, all that there is; else 0."""
        mains = [pid for pid in self.processes() if not _comm(pid).startswith("lbproxy-")]
        return mains[0] if len(mains) == 1 and self._is_whole(mains[0]) and self.serves() else 0

    def _is_whole(self, main: int) -> bool:
        members = members_of(main)
        wanted = {"c", *(str(number + 1) for number in range(self.workers))} if self.workers > 1 else set()
        return self.processes() == {main, *members.values()} and members.keys() == wanted

    def serves(self) -> bool:
        """Does it answer at every socket, and say that it is ready?"""
        try:
            places: list[int | str] = [self.in_port] * TRIES
            for place in (*places, str(self.unix)):
                with Client(place) as client:
                    if client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status != 200:
                        return False
            return self.admin_get("/readyz")[0] == 200
        except (OSError, Ended):
            return False

    def kept_weight(self) -> object:
        """What the state file says of the server's weight; it must be a whole file."""
        if not self.state_file.exists():
            return None
        told = json.loads(self.state_file.read_text())  # whole, or this raises
        servers = told["state"]["pools"].get("p", {}).get("servers", [])
        values = [value for server in servers for value in _values(server, "weight")]
        return values[0] if values else None

    def descriptors(self) -> dict[str, int]:
        """How many each of its processes has."""
        found: dict[str, int] = {}
        for pid in self.processes():
            found[_comm(pid)] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _values(told: object, key: str) -> list[object]:
    """All values of a key, however deep, but for what is said about them."""
    if isinstance(told, dict):
        own = [told[key]["value"]] if isinstance(told.get(key), dict) and "value" in told[key] else []
        return own + [value for item in told.values() for value in _values(item, key)]
    if isinstance(told, list):
        return [value for item in told for value in _values(item, key)]
    return []
