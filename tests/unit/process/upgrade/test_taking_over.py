"""What an upgrade means for the parts of a process; real upgrades are in tests/scenarios/process/upgrade."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lbproxy.control.caller import Caller
from lbproxy.control.kept_data import Unreadable
from lbproxy.process.controller import Controller
from lbproxy.process.listeners import Listeners
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade.arriving import Arrival, NotWanted
from lbproxy.process.upgrade.taking_over import TakingOver
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import PROCESS, Slots


class Parts:
    """In place of the controller, what it keeps, and the arrival. lacks: why this process could not serve."""

    def __init__(self, lacks: str | None = None, config_path: str = "lb.yaml") -> None:
        self.lacks = lacks
        self.was_ready = True
        self.counts = [3, 1, 0]
        self.last: object = "the last word"
        self.updated: list[object] = []
        self.stop = asyncio.Event()
        self.row = Slots().allocate(PROCESS)
        crashes: list[BaseException] = []
        self.taking_over = TakingOver(
            Outside(),
            cast(Listeners, self),
            cast(Controller, self),
            Tasks(crashes.append),
            asyncio.Lock(),
            self.row,
            self.stop,
            config_path,
            lambda: None,
        )

    @property
    def keeping(self) -> Any:
        return self

    async def checked(self, most_s: float) -> None:
        """All of them have been."""

    def lacking(self) -> str | None:
        return self.lacks

    async def ready(self, tasks: Tasks, stop: asyncio.Event) -> object:
        return self.last

    def update(self, data: object) -> None:
        if data == "nonsense":
            raise Unreadable("it is nonsense")
        self.updated.append(data)

    async def wait(self) -> None:
        await self.taking_over.wait_to_serve(cast(Arrival, self))


async def test_a_process_serves_with_the_last_word_of_the_one_before_and_counts_on() -> None:
    parts = Parts()
    await parts.wait()
    assert parts.updated == ["the last word"]
    assert sum(parts.row) == 5, "3 and 1 of before, and this one"


async def test_one_that_could_not_serve_leaves_it_to_the_one_before() -> None:
    parts = Parts("pool p has no usable server")
    with pytest.raises(NotWanted, match="the process before was ready, and this one is not: pool p has no usable"):
        await parts.wait()
    parts.was_ready = False
    await parts.wait()


async def test_a_last_word_that_can_t_be_understood_ends_it() -> None:
    parts = Parts()
    parts.last = "nonsense"
    with pytest.raises(NotWanted, match="can't be understood: it is nonsense; restart instead"):
        await parts.wait()


@pytest.mark.parametrize(("path", "stops", "why"), [("-", False, "standard input"), ("lb.yaml", True, "is stopping")])
async def test_when_there_can_be_no_upgrade(path: str, stops: bool, why: str) -> None:
    parts = Parts(config_path=path)
    if stops:
        parts.stop.set()
    status, told = await parts.taking_over.call(Caller("", "192.0.2.1"))
    assert status == 409 and why in str(told)
    assert parts.taking_over.successor is None


async def test_a_process_that_waits_for_nobody_stays() -> None:
    parts = Parts()
    parts.taking_over.watch_place(1.0)
    assert not parts.stop.is_set()
