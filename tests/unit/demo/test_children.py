"""How children are ended: who gets which signal, and when. Real processes: tests/scenarios/demo/test_demo.py."""

from __future__ import annotations

import os
import signal
from subprocess import Popen
from typing import cast

import pytest

from lbproxy.demo import children
from lbproxy.demo.children import Child


class FakeProcess:
    """A process that ends `slow` looks after SIGTERM, or only by SIGKILL."""

    def __init__(self, pid: int, slow: int | None = 0) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.signals: list[int] = []
        self._slow = slow

    def poll(self) -> int | None:
        if self.signals and self._slow is not None and self.returncode is None:
            if self._slow == 0:
                self.returncode = 0
            self._slow -= 1
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def wait(self) -> int:
        assert self.returncode is not None, "wait() would hang: the process was neither ended nor killed"
        return self.returncode


class Killed:
    """Stands for os.killpg: ends the fake process that leads the group."""

    def __init__(self, *processes: FakeProcess) -> None:
        self.groups: list[int] = []
        self._processes = {process.pid: process for process in processes}

    def __call__(self, group: int, number: int) -> None:
        assert number == signal.SIGKILL
        self.groups.append(group)
        process = self._processes[group]
        if process.returncode is not None:
            raise ProcessLookupError
        process.returncode = -number


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return False


def child(process: FakeProcess) -> Child:
    return Child(f"child {process.pid}", cast("Popen[bytes]", process))


def test_children_that_obey_get_sigterm_and_their_groups_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = FakeProcess(1), FakeProcess(2, slow=3)
    killed, clock = Killed(one, two), Clock()
    monkeypatch.setattr(os, "killpg", killed)
    children.stop([child(one), child(two)], 5.0, clock=clock, pause=clock.pause)
    assert (one.signals, two.signals) == ([signal.SIGTERM], [signal.SIGTERM])
    assert (one.returncode, two.returncode) == (0, 0)
    assert killed.groups == [1, 2]  # workers may have outlived the child itself
    assert clock.now < 1.0


def test_a_child_that_does_not_obey_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn, clock = FakeProcess(1, slow=None), Clock()
    monkeypatch.setattr(os, "killpg", Killed(stubborn))
    children.stop([child(stubborn)], 5.0, clock=clock, pause=clock.pause)
    assert stubborn.returncode == -signal.SIGKILL
    assert clock.now == pytest.approx(5.0, abs=0.05)


def test_an_impatient_user_ends_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn, clock = FakeProcess(1, slow=None), Clock()
    monkeypatch.setattr(os, "killpg", Killed(stubborn))
    children.stop([child(stubborn)], 5.0, clock=clock, pause=lambda seconds: True)
    assert (stubborn.returncode, clock.now) == (-signal.SIGKILL, 0.0)


def test_the_group_of_a_child_that_died_is_ended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = FakeProcess(1)
    dead.returncode = -9
    killed, clock = Killed(dead), Clock()
    monkeypatch.setattr(os, "killpg", killed)
    died = child(dead)
    died.end_group()
    children.stop([died], 5.0, clock=clock, pause=clock.pause)
    assert (dead.signals, killed.groups) == ([], [1])


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "runs"), (0, "ended with status 0"), (3, "ended with status 3"), (-9, "was killed by SIGKILL")],
)
def test_how_it_ended(code: int | None, words: str) -> None:
    process = FakeProcess(1)
    process.returncode = code
    assert child(process).how_it_ended == words
