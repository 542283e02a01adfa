from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.process.access_log import AccessLogs
from lbproxy.process.applying import Applying, CannotApply
from lbproxy.process.upgrade.sockets import Inherited
from lbproxy.process.workers import messages
from lbproxy.process.workers.agent import Agent
from lbproxy.process.workers.board import Board
from lbproxy.process.workers.station import Setup
from lbproxy.tasks import Tasks

CONFIG = load_text(
    "limits: {connections: 10}\nlisteners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['127.0.0.1:2']}}\n",
    "lb.yaml",
    {},
).config
OTHER = CONFIG.model_copy(update={"watch": True})


class Parts:
    """Stands for Applying: what was done with configs."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.logs = AccessLogs(None, None)
        self.done: list[tuple[str, object]] = []

    async def prepare(self, old: Config, new: Config, inherited: Inherited) -> object:
        assert old.limits.buffered_bytes == new.limits.buffered_bytes == 128 << 20  # of a worker of two
        if self.problem:
            raise CannotApply(self.problem)
        self.done.append(("prepare", new.watch))
        return new

    def adopt(self, new: Config, prepared: object) -> None:
        assert new is prepared
        self.done.append(("adopt", new.watch))

    async def abandon(self, prepared: object) -> None:
        self.done.append(("abandon", cast("Config", prepared).watch))

    def is_stopping(self) -> bool:
        return False


class Scene:
    """A worker's agent, and what it says."""

    def __init__(self, problem: str = "") -> None:
        self.parts = Parts(problem)
        self.said: list[object] = []
        self.n_looks = 0
        self.board = Board(2, [0] * 24)
        setup = cast("Setup", SetupLike(self.board))
        self.tasks = Tasks()
        self.agent = Agent(setup, cast("Applying", self.parts), self._look, self.tasks, lambda where, error: None)
        self.agent.is_open.set()
        setattr(self.agent, "send", self.said.append)  # noqa: B010 - there is no channel here

    async def _look(self) -> None:
        self.n_looks += 1

    async def hear(self, *told: object) -> None:
        for message in told:
            self.agent.heard(message)
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


class SetupLike:
    """What an agent reads of a Setup."""

    def __init__(self, board: Board) -> None:
        self.number = 1
        self.name = "worker 1"
        self.board = board
        self.config = CONFIG
        self.generation = 1
        self.sockets = Inherited()


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    asyncio.run(main())


def test_a_config_is_made_at_one_word_and_in_force_at_another() -> None:
    async def change() -> None:
        scene = Scene()
        await scene.hear(messages.Prepare(2, OTHER))
        assert scene.parts.done == [("prepare", True)]
        assert (scene.agent.generation, scene.agent.config) == (1, CONFIG)
        await scene.hear(messages.Commit(2))
        assert scene.parts.done[1:] == [("adopt", True)]
        assert scene.said == [messages.Prepared(2), messages.Committed(2)]
        assert (scene.agent.generation, scene.agent.config, scene.board.generation(1)) == (2, OTHER, 2)
        assert scene.n_looks == 1

    run(change)


def test_a_config_that_cannot_be_had_is_told() -> None:
    async def change() -> None:
        scene = Scene("no room")
        await scene.hear(messages.Prepare(2, OTHER), messages.Commit(2))
        assert scene.said == [messages.Prepared(2, "no room")]
        assert scene.agent.generation == 1

    run(change)


def test_a_config_that_is_not_wanted_is_given_up() -> None:
    async def change() -> None:
        scene = Scene()
        await scene.hear(messages.Prepare(2, OTHER), messages.Commit(2, is_wanted=False), messages.Commit(2))
        assert scene.parts.done == [("prepare", True), ("abandon", True)]
        assert scene.agent.generation == 1

    run(change)


def test_another_config_takes_the_place_of_one_that_waits() -> None:
    async def change() -> None:
        scene = Scene()
        await scene.hear(messages.Prepare(2, OTHER), messages.Prepare(3, CONFIG), messages.Commit(2))
        assert scene.parts.done == [("prepare", True), ("abandon", True), ("prepare", False)]
        await scene.hear(messages.Commit(3))
        assert scene.agent.generation == 3

    run(change)


def test_without_a_log_no_request_is_found() -> None:
    async def change() -> None:
        scene = Scene()
        await scene.hear(messages.Find(3, "abc"))
        assert scene.said == [messages.Found(3, (), 0)]

    run(change)


def test_it_is_welcome_when_the_controller_says_so() -> None:
    async def change() -> None:
        scene = Scene()
        assert not scene.agent.welcomed.is_set()
        await scene.hear(messages.Welcome())
        assert scene.agent.welcomed.is_set()

    run(change)
