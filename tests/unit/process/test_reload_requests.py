"""Who asks for a reload: however often that is, one is at work and one waits."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, cast

from lbproxy.control.caller import Caller
from lbproxy.process.manager import Manager
from lbproxy.process.reload_requests import ReloadRequests
from lbproxy.process.reloading import Reloading
from lbproxy.tasks import Tasks


class Stage:
    """Reloads that end when the test says so. did: what happened, in order."""

    def __init__(self, path: str = "lb.yaml") -> None:
        self.did: list[str] = []
        self.may_end = asyncio.Event()
        self.is_last_good = True
        self.digest = b""
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(self.crashes.append)
        manager = Manager(lambda data: self.did.append(data.decode().splitlines()[-1]))
        self.signals: list[tuple[int, int]] = []
        self.requests = ReloadRequests(
            cast(Reloading, self), manager, self.tasks, path, lambda pid, number: self.signals.append((pid, number))
        )

    async def reload(self, by: str) -> tuple[int, dict[str, Any]]:
        self.did.append(by)
        await self.may_end.wait()
        return 200, {}

    async def dry_run(self) -> tuple[int, dict[str, Any]]:
        self.did.append("dry run")
        return 200, {}

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_signals_that_come_together_are_two_reloads_at_most() -> None:
    stage = Stage()
    for _ in range(5):
        stage.requests.signal()
    await stage.settled()
    assert stage.did.count("SIGHUP") == 2
    stage.may_end.set()
    await stage.settled()
    stage.requests.signal()
    await stage.settled()
    assert stage.did.count("SIGHUP") == 3 and not stage.crashes


async def test_a_signal_that_waits_for_the_end_of_an_upgrade_is_passed_on() -> None:
    stage = Stage()
    for _ in range(3):
        stage.requests.signal()
    await stage.settled()
    stage.requests.hand_over(4711)
    await stage.settled()
    assert stage.signals == [(4711, signal.SIGHUP)]
    assert len(stage.tasks) == 0 and not stage.crashes


async def test_nothing_is_passed_on_where_nothing_waits() -> None:
    stage = Stage()
    stage.may_end.set()
    stage.requests.signal()
    stage.requests.watch(True)
    await stage.settled()
    stage.requests.hand_over(4711)
    await stage.settled()
    assert stage.signals == [] and len(stage.tasks) == 0


async def test_the_manager_hears_of_a_reload_and_of_its_end() -> None:
    stage = Stage()
    stage.may_end.set()
    stage.is_last_good = False
    assert await stage.requests.call(Caller("ci", "192.0.2.1"), False) == (200, {})
    assert await stage.requests.call(Caller("ci", "192.0.2.1"), True) == (200, {})
    assert stage.did == [
        "STATUS=reading the config file",
        "ci from 192.0.2.1",
        "STATUS=serving; the last reload failed",
        "dry run",
    ]


async def test_a_file_is_watched_once_and_while_that_is_wanted() -> None:
    for path, n_tasks in (("lb.yaml", 1), ("-", 0), ("", 0)):
        stage = Stage(path)
        stage.requests.watch(True)
        stage.requests.watch(True)
        assert len(stage.tasks) == n_tasks
        stage.requests.watch(False)
        await stage.settled()
        assert len(stage.tasks) == 0
