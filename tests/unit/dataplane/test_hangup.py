"""Seeing a peer leave on a descriptor that nobody reads. A pipe's end hangs up as a socket's does."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from typing import cast

import pytest

from lbproxy.dataplane.hangup import HangupWatch
from tests.support.fake_transport import FakeClock, FakeLoop, FakeSocket


class Rig:
    def __init__(self) -> None:
        self.loop = FakeLoop(FakeClock())
        self.watch = HangupWatch(cast(asyncio.AbstractEventLoop, self.loop))
        self.sockets = [FakeSocket(), FakeSocket()]
        self.calls: list[int] = []

    def add(self, index: int) -> int:
        return self.watch.watch(self.sockets[index].fileno(), lambda: self.calls.append(index))


@pytest.fixture
def rig() -> Iterator[Rig]:
    before = len(os.listdir("/proc/self/fd"))
    rig = Rig()
    yield rig
    rig.watch.close()
    for sock in rig.sockets:
        sock.close()
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor is left open"


def close(rig: Rig, *tokens: int) -> None:
    for token in tokens:
        rig.watch.unwatch(token)


def test_a_peer_that_leaves_is_told_once(rig: Rig) -> None:
    rig.add(0)
    rig.add(1)
    rig.loop.run()
    assert rig.calls == []
    rig.sockets[1].hang_up()
    rig.loop.run()
    rig.loop.run()
    assert rig.calls == [1]


def test_nobody_is_told_after_unwatch(rig: Rig) -> None:
    token = rig.add(0)
    close(rig, token, token, -1)
    rig.sockets[0].hang_up()
    rig.loop.run()
    assert rig.calls == []


def test_a_callback_may_unwatch_the_next_one(rig: Rig) -> None:
    tokens: list[int] = []
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        close(rig, *tokens)

    tokens += [rig.watch.watch(sock.fileno(), first) for sock in rig.sockets]
    for sock in rig.sockets:
        sock.hang_up()
    rig.loop.run()
    assert calls == ["first"]


def test_out_of_descriptors_means_no_watch(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", dup)
    assert rig.add(0) == -1
    rig.watch.unwatch(-1)
