"""A daemon that is upgraded: it is started as a script that a test replaces, as installing another version does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support import nursery
from tests.support.client import Client
from tests.support.daemon import STOP_S, LbProxy, Settings
from tests.support.waiting import wait_until

READY_S = (
    150.0  # a start from a script takes 1 s of CPU, and 60 s, as it has by rights, where thirty want the two cores
)
MAIN = (
    "import sys\n"
    "from lbproxy.process.upgrade import handing\n"
    f"handing.READY_S = {READY_S}\n"
    "from lbproxy.cli import main\n"
    "sys.exit(main())\n"
)


def prepared(directory: Path, before: str = "", text: str = MAIN) -> Path:
    """The script `lbproxy` in a directory, replaced in one step. before: what it does first."""
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / "lbproxy.part"
    part.write_text(f"#!{sys.executable} -P\n{before}\n{text}")
    part.chmod(part.stat().st_mode | stat.S_IXUSR)
    return part.rename(directory / "lbproxy")


def held(at: str, directory: Path) -> str:
    """Code that has a new process wait before `at` ("hello", "ready" or "serving") until `directory/go` is there; it
    says in `directory/held` who it is."""
    wait = (
        "import os, pathlib, time\n"
        "def _held():\n"
        f"    d = pathlib.Path({str(directory)!r})\n"
        "    (d / 'part').write_text(str(os.getpid()))\n"
        "    (d / 'part').rename(d / 'held')\n"
        "    while not (d / 'go').exists():\n"
        "        time.sleep(0.01)\n"
    )
    if at == "hello":
        return wait + "_held()\n"
    return wait + (
        "from lbproxy.process.upgrade import arriving\n"
        "from lbproxy.process.workers import before\n"
        f"_before = arriving.Arrival.{at}\n"
        "async def _after(self, *arguments):\n"
        "    _held()\n"
        "    return await _before(self, *arguments)\n"
        f"arriving.Arrival.{at} = _after\n"
        f"_supervised = before.Before.{at}\n"
        "def _after_all(self):\n"
        "    _held()\n"
        "    return _supervised(self)\n"
        f"before.Before.{at} = _after_all\n"
    )


class Chain(LbProxy):
    """One daemon after the other, as seen from outside. process: the first of them; pids: all that are known.

    The first one has been imported before (tests/support/nursery.py), those after it are executed.
    """

    def __init__(self, config: Settings, directory: Path, *options: str, text: str = MAIN) -> None:
        super().__init__(config, directory)
        self.options = options
        self.is_executed = False  # the first one, too
        self.pids: list[int] = []
        self.may_complain = False  # a new process that can't start is an error, of that process
        prepared(directory, text=text)

    def _program(self) -> list[str]:
        return [str(self.directory / "lbproxy"), *self.options]

    def _started(self, env: Mapping[str, str]) -> subprocess.Popen[bytes] | nursery.Nursling:
        script, *options = self._program()
        if self.is_executed or not nursery.can_start(env):
            return super()._started(env)
        arguments = [*options, "--config", str(self.config_path)]
        with self.stderr_path.open("wb") as stderr, Path(os.devnull).open("wb") as devnull:
            stdout = devnull.fileno() if self._stdout == subprocess.DEVNULL else self._stdout
            return nursery.start(arguments, env, stdout=stdout, stderr=stderr.fileno(), script=Path(script))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None and not self.may_complain:
                assert not self.error_lines(), self.stderr[-4000:]
        finally:
            self.kill()

    @property
    def exit_code(self) -> int | None:
        """Of the first one; whose end can be seen before the nursery has told how it was."""
        if self.process is not None and not is_alive(self.pid):
            return self.process.wait(STOP_S)
        return super().exit_code

    def kill(self) -> None:
        super().kill()
        for pid in self.pids:
            self.kill_own(pid)

    def kill_own(self, pid: int) -> None:
        """SIGKILL for a process that writes to the log of this daemon, and for no other one: the kernel gives the ids
        of those that have ended to others, soon where many begin."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if os.readlink(f"/proc/{pid}/fd/2") == str(self.stderr_path):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError:  # it has ended
            return
        finally:
            os.close(handle)

    def kill_first(self) -> None:
        """SIGKILL for the process that was started first."""
        super().kill()

    @property
    def current(self) -> int:
        """The process that serves, as far as upgrades have told."""
        return self.pids[-1] if self.pids else self.pid

    def ask(self) -> tuple[int, dict[str, Any]]:
        """POST /api/v1/upgrade."""
        with Client(self.port("admin"), timeout_s=READY_S) as admin:
            admin.send(b"POST /api/v1/upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = admin.response()
        return answer.status, json.loads(answer.body)

    def upgrade(self) -> dict[str, Any]:
        status, told = self.ask()
        assert status == 200, (told, self.stderr[-3000:])
        self.pids.append(told["new"]["pid"])
        return told

    def fails(self) -> str:
        """An upgrade that does not come off; why."""
        status, told = self.ask()
        assert status == 422, told
        return "; ".join(told["problems"])

    def fails_with(self, good: Mapping[str, Any], **changed: object) -> str:
        """The same, with this config but for some keys of it."""
        self.config_path.write_text(yaml.safe_dump({**good, **changed}))
        return self.fails()

    @contextlib.contextmanager
    def holding(self, at: str) -> Iterator[int]:
        """An upgrade whose new process waits before `at`, until the end of the block; its id. See `held`."""
        place = self.directory / f"{at}{len(self.pids)}"
        place.mkdir()
        prepared(self.directory, held(at, place))
        asking = threading.Thread(target=self._ask_all_the_same, daemon=True)
        asking.start()
        wait_until((place / "held").exists, f"the new process to come to {at!r}", READY_S)
        pid = int((place / "held").read_text())
        self.pids.append(pid)
        try:
            yield pid
        finally:
            (place / "go").touch()
            asking.join(READY_S)
            prepared(self.directory)

    def _ask_all_the_same(self) -> None:
        with contextlib.suppress(Exception):  # whom it asks may be killed meanwhile
            self.ask()


def is_alive(pid: int) -> bool:
    """Does it run? What nobody has waited for yet does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in ("Z", "X")


def wait_ended(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"process {pid} to end")
