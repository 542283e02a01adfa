"""A process that the supervisor has forked: it hears words, says that its loop runs, and notices a dead supervisor."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import cast

import pytest

from lbproxy.process.workers import station as module
from lbproxy.process.workers.board import SERVING, Board
from lbproxy.process.workers.lines import Line, Said, in_memory
from lbproxy.process.workers.station import Setup, Station


class Scene:
    def __init__(self) -> None:
        self.ours, self.theirs = Line.pair()
        self.board = Board(2, [0] * 24)
        self.heard: list[Said] = []
        self.orphaned = asyncio.Event()
        self.news = asyncio.Event()
        self.number, self.line = 2, self.theirs
        self.station = Station(cast("Setup", self), {"stop": self._hear}, self.orphaned.set)

    def _hear(self, said: Said) -> None:
        self.heard.append(said)
        self.news.set()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What would end this process."""
    found: list[float] = []
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: found.append(seconds))
    yield found
    signal.signal(signal.SIGALRM, before)


def test_it_hears_its_words_and_leaves_out_others() -> None:
    async def run() -> None:
        scene = Scene()
        loop = asyncio.get_running_loop()
        scene.station.start(loop)
        scene.ours.say("unknown", fds=[in_memory(b"nobody reads it")])
        scene.ours.say("stop", b"now")
        await scene.news.wait()
        assert scene.heard == [Said("stop", b"now")]
        scene.station.stop(loop)
        scene.close()

    asyncio.run(run())


def test_it_says_that_it_runs_and_that_it_serves() -> None:
    async def run() -> None:
        scene = Scene()
        loop = asyncio.get_running_loop()
        scene.board.started(2, 4711, 0.0)
        scene.station.start(loop)
        assert scene.board.silent_s(2, 0.5) == 0.0  # it has said so later than that
        scene.station.serving()
        assert scene.board.state(2) == SERVING
        assert scene.ours.hear() == Said("serving")
        scene.station.stop(loop)
        scene.close()

    asyncio.run(run())


def test_a_dead_supervisor_is_noticed_and_time_is_short(timers: list[float]) -> None:
    async def run() -> None:
        scene = Scene()
        loop = asyncio.get_running_loop()
        scene.station.start(loop)
        scene.ours.close()
        await scene.orphaned.wait()
        assert timers == [module.ORPHAN_S]
        scene.station.stop(loop)
        scene.close()

    asyncio.run(run())
