from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from lbproxy.config.loader import load_text
from lbproxy.process.applying import CannotApply
from lbproxy.process.workers import crew as module
from lbproxy.process.workers.board import SERVING, Board
from lbproxy.process.workers.channel import Channel
from lbproxy.process.workers.crew import Crew
from lbproxy.process.workers.lines import Line
from lbproxy.process.workers.messages import Commit, Committed, Hello, Prepare, Prepared, Welcome
from lbproxy.process.workers.usage import Usage
from lbproxy.tasks import Tasks

CONFIG = load_text("listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['127.0.0.1:2']}}\n", "lb.yaml", {}).config
OTHER = CONFIG.model_copy(update={"watch": True})


class Recorder:
    """The supervisor's line."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    def say(self, word: str, data: bytes = b"") -> bool:
        self.said.append((word, data))
        return True


class Worker:
    """What is sent to a worker, and what it answers to it."""

    def __init__(self, crew: Crew, number: int, answers: Callable[[object], object]) -> None:
        self.sent: list[object] = []
        self.is_closed = False
        self._crew = crew
        self._number = number
        self._answers = answers
        crew.join(number, cast("Channel", self))

    def send(self, message: object) -> None:
        self.sent.append(message)
        answer = self._answers(message)
        if answer is not None:
            asyncio.get_running_loop().call_soon(self._crew.heard, self._number, answer)

    def close(self) -> None:
        self.is_closed = True

    def leave(self) -> None:
        self._crew.left(self._number, cast("Channel", self))


def willing(message: object) -> object:
    match message:
        case Prepare(generation=generation):
            return Prepared(generation)
        case Commit(generation=generation, is_wanted=True):
            return Committed(generation)
    return None


def unwilling(message: object) -> object:
    return Prepared(message.generation, "no room") if isinstance(message, Prepare) else willing(message)


def silent(_message: object) -> object:
    return None


class Scene:
    def __init__(self) -> None:
        self.board = Board(2, [0] * 24)
        self.line = Recorder()
        self.others: list[tuple[int, object]] = []
        self.crew = Crew(
            self.board,
            cast("Line", self.line),
            CONFIG,
            1,
            lambda number, message: self.others.append((number, message)),
            Tasks(),
            lambda where, error: None,
        )


def test_who_begins_with_the_config_in_force_is_welcome() -> None:
    async def begin() -> None:
        scene = Scene()
        worker = Worker(scene.crew, 1, willing)
        scene.crew.heard(1, Hello(1))
        assert worker.sent == [Welcome()]

    asyncio.run(begin())


def test_who_begins_with_an_older_config_is_told_the_one_in_force() -> None:
    async def begin() -> None:
        scene = Scene()
        await scene.crew.commit(OTHER, 2)
        worker = Worker(scene.crew, 1, willing)
        scene.crew.heard(1, Hello(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert worker.sent == [Prepare(2, OTHER), Welcome(), Commit(2)]
        assert scene.line.said == []

    asyncio.run(begin())


def test_who_cannot_take_up_the_config_in_force_is_replaced() -> None:
    async def begin() -> None:
        scene = Scene()
        await scene.crew.commit(OTHER, 2)
        Worker(scene.crew, 1, unwilling)
        scene.crew.heard(1, Hello(1))
        await asyncio.sleep(0)
        assert scene.line.said == [("replace", b"1")]

    asyncio.run(begin())


def test_all_workers_prepare_and_then_commit() -> None:
    async def change() -> None:
        scene = Scene()
        workers = [Worker(scene.crew, number, willing) for number in (1, 2)]
        generation = await scene.crew.prepare(OTHER, ("door",))
        assert generation == 2
        assert scene.crew.generation == 1
        await scene.crew.commit(OTHER, generation)
        assert scene.crew.generation == 2
        assert [worker.sent for worker in workers] == [[Prepare(2, OTHER, ("door",)), Commit(2)]] * 2

    asyncio.run(change())


def test_one_that_cannot_keeps_all_from_it() -> None:
    async def change() -> None:
        scene = Scene()
        first, _ = Worker(scene.crew, 1, willing), Worker(scene.crew, 2, unwilling)
        with pytest.raises(CannotApply, match="worker 2: no room"):
            await scene.crew.prepare(OTHER, ())
        assert first.sent[-1] == Commit(2, is_wanted=False)
        assert scene.crew.generation == 1

    asyncio.run(change())


def test_one_that_does_not_answer_keeps_all_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE_S", 0.0)

    async def change() -> None:
        scene = Scene()
        Worker(scene.crew, 1, silent)
        with pytest.raises(CannotApply, match="worker 1 did not answer"):
            await scene.crew.prepare(OTHER, ())

    asyncio.run(change())


def test_nobody_waits_for_one_that_dies_meanwhile() -> None:
    async def change() -> None:
        scene = Scene()
        Worker(scene.crew, 1, willing)
        dying = Worker(scene.crew, 2, silent)
        asyncio.get_running_loop().call_soon(dying.leave)
        assert await scene.crew.prepare(OTHER, ()) == 2

    asyncio.run(change())


def test_one_that_does_not_confirm_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFIRM_S", 0.0)

    async def change() -> None:
        scene = Scene()
        Worker(scene.crew, 2, lambda message: willing(message) if isinstance(message, Prepare) else None)
        await scene.crew.commit(OTHER, await scene.crew.prepare(OTHER, ()))
        assert scene.line.said == [("replace", b"2")]

    asyncio.run(change())


def test_one_that_joins_between_the_two_steps_catches_up() -> None:
    async def change() -> None:
        scene = Scene()
        Worker(scene.crew, 1, willing)
        generation = await scene.crew.prepare(OTHER, ())
        newcomer = Worker(scene.crew, 2, willing)
        scene.crew.heard(2, Hello(1))
        await scene.crew.commit(OTHER, generation)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert newcomer.sent == [Welcome(), Prepare(2, OTHER), Commit(2)]
        assert scene.line.said == []

    asyncio.run(change())


def test_a_successor_takes_the_place_of_a_channel() -> None:
    scene = Scene()
    before = Worker(scene.crew, 1, silent)
    Worker(scene.crew, 1, silent)
    assert before.is_closed
    before.leave()  # late: it is not the one in use
    scene.crew.heard(1, "something else")
    assert scene.others == [(1, "something else")]


def test_one_worker_that_refuses_is_told_by_its_name() -> None:
    scene = Scene()
    assert scene.crew.overloaded() is None
    scene.board.started(2, 4711, 0.0)
    scene.board.refuses(2, 130 << 20)
    assert scene.crew.overloaded() == "overloaded: 130 MiB wait to be sent in worker 2 (limits.buffered_bytes)"
    scene.board.ended(2)
    assert scene.crew.overloaded() is None


def test_metrics_are_those_of_the_board() -> None:
    scene = Scene()
    scene.board.started(1, 4711, 0.0)
    scene.board.tell(1, SERVING)
    scene.board.restarted(2)
    assert list(scene.crew.up()) == [(("1",), 1.0), (("2",), 0.0)]
    assert list(scene.crew.restarts()) == [(("1",), 0.0), (("2",), 1.0)]


def test_what_each_worker_costs_is_told() -> None:
    scene = Scene()
    scene.crew.usage_of = {4711: Usage(1.254, 20 << 20)}.get
    scene.board.started(1, 4711, 10.0)
    scene.board.tell(1, SERVING)
    scene.board.restarted(2)
    assert list(scene.crew.cpu_seconds()) == [(("1",), 1.254)]
    assert list(scene.crew.memory()) == [(("1",), float(20 << 20))]
    first, second = scene.crew.told(10.5, {1: 7, 2: 0}.__getitem__)
    assert first == {
        "worker": 1,
        "pid": 4711,
        "state": "serving",
        "connections": 7,
        "cpu_seconds": 1.25,
        "memory_bytes": 20 << 20,
        "silent": 0.5,
        "restarts": 0,
    }
    assert second == {
        "worker": 2,
        "pid": None,
        "state": "down",
        "connections": 0,
        "cpu_seconds": None,
        "memory_bytes": None,
        "silent": None,
        "restarts": 1,
    }
