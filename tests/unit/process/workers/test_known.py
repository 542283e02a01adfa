from __future__ import annotations

import asyncio
from typing import cast

from lbproxy.process.workers.known import RESTS, Known
from lbproxy.process.workers.lines import Line


class Recorder:
    """A line that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def say_all(self, word: str, whole: object) -> bool:
        assert word == "known"
        self.said.append(whole)
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_change_is_told_at_once() -> None:
    line, state = Recorder(), {"n": 1}
    known = Known(lambda: dict(state), cast("Line", line), lambda: 100.0)
    known.tell()
    state["n"] = 2
    known.changed()
    assert line.said == [{"n": 1}, {"n": 2}]


def test_where_telling_takes_long_changes_are_put_together() -> None:
    line, clock, state = Recorder(), Clock(), [0]

    def snapshot() -> object:
        clock.now += 0.1
        return state[0]

    async def change() -> None:
        known = Known(snapshot, cast("Line", line), clock)
        known.tell()
        rests_until = clock.now + 0.1 * RESTS
        state[0] = 1
        known.changed()
        state[0] = 2
        known.changed()
        assert line.said == [0]
        clock.now = rests_until
        known.tell()  # as the timer does
        assert line.said == [0, 2]
        clock.now += 10.0
        known.changed()
        assert line.said == [0, 2, 2]

    asyncio.run(change())
