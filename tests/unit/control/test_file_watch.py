"""Changed files are loaded; what can't be is left alone until the files change again, and said once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lbproxy.control.file_watch import FileWatch, Signature, WatchedFiles, signature


class Target:
    renew_s: float | None = 100.0

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.loads = 0
        self.used: list[int] = []

    def load(self) -> int:
        self.loads += 1
        if self.error is not None:
            raise self.error
        return self.loads

    def use(self, loaded: int) -> None:
        self.used.append(loaded)


class Bench:
    """A watch over files whose signature the test sets."""

    def __init__(self) -> None:
        self.target = Target()
        self.now: Signature = ((1, 1, 1),)
        self.clock = 0.0
        self.watch = self.make()

    def make(self) -> FileWatch:
        return FileWatch(
            [WatchedFiles("listener in", ("a.pem",), self.target)],
            in_thread=self.in_thread,
            look=self.look,
            clock=lambda: self.clock,
        )

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return function(*args)

    def look(self, paths: Sequence[str]) -> Signature:
        assert tuple(paths) == ("a.pem",)
        return self.now

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            await self.watch.look()


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


async def test_unchanged_files_are_left_alone(bench: Bench) -> None:
    await bench.rounds(5)
    assert bench.target.loads == 0


async def test_unchanged_files_are_loaded_again_after_a_while(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What is made of them wears out: keys of session tickets. Nobody needs to read of that."""
    for at, loads in ((99.0, 0), (100.0, 1), (199.0, 1), (200.0, 2)):
        bench.clock = at
        await bench.rounds(2)
        assert bench.target.used == list(range(1, loads + 1))
    assert caplog.messages == []


async def test_what_does_not_wear_out_is_not_loaded_again(bench: Bench) -> None:
    bench.target.renew_s = None
    bench.watch = bench.make()
    bench.clock = 1e9
    await bench.rounds(2)
    assert bench.target.loads == 0


async def test_files_that_can_t_be_loaded_again_are_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.clock, bench.target.error = 100.0, PermissionError("no permission")
    await bench.rounds(5)
    assert len(caplog.messages) == 1 and bench.target.used == []
    bench.target.error = None
    await bench.rounds(2)
    assert bench.target.used == []
    bench.clock = 160.0
    await bench.rounds(2)
    assert len(bench.target.used) == 1


async def test_changed_files_are_used_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.now = ((2, 1, 1),)
    await bench.rounds(5)
    assert bench.target.used == [1]
    assert caplog.messages == ["listener in: certificate files changed and are in use"]


async def test_broken_files_are_said_once_when_they_have_come_to_rest(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.target.error = ValueError("not PEM")
    bench.now = ((2, 1, 1),)
    await bench.rounds(1)
    assert caplog.messages == []  # perhaps somebody is still writing
    await bench.rounds(5)
    assert caplog.messages == ["listener in: its new certificate files are not used, the old ones stay: not PEM"]
    assert bench.target.used == []
    bench.target.error = None
    bench.now = ((3, 1, 1),)
    await bench.rounds(5)
    assert len(bench.target.used) == 1


async def test_a_renewal_in_two_steps_is_no_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.target.error = ValueError("mismatch")
    bench.now = ((2, 1, 1),)
    await bench.rounds(1)
    bench.target.error = None
    bench.now = ((3, 1, 1),)
    await bench.rounds(3)
    assert caplog.messages == ["listener in: certificate files changed and are in use"]


async def test_a_second_fault_is_said_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in (2, 3):
        bench.target.error = ValueError(f"fault {number}")
        bench.now = ((number, 1, 1),)
        await bench.rounds(4)
    assert [message[-7:] for message in caplog.messages] == ["fault 2", "fault 3"]


async def test_what_comes_back_as_it_was_is_in_use_already(bench: Bench) -> None:
    bench.target.error = ValueError("gone")
    bench.now = (None,)
    await bench.rounds(3)
    loads = bench.target.loads
    bench.now = ((1, 1, 1),)
    await bench.rounds(3)
    assert bench.target.loads == loads
    assert bench.target.used == []


def test_signatures(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_text("one")
    before = signature([str(path), str(tmp_path / "nothing")])
    assert before[1] is None
    assert signature([str(path)]) == before[:1]
    other = tmp_path / "b.pem"
    other.write_text("two")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)  # same time, same size: another file
    assert signature([str(path)]) != before[:1]


def test_nothing_to_watch() -> None:
    assert not FileWatch([]).has_files


async def test_other_files_are_called_what_they_are(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.watch.watch([WatchedFiles("api_keys", ("a.pem",), type(bench.target)(), "API keys")])
    bench.now = ((2, 1, 1),)
    await bench.rounds(5)
    assert caplog.messages == ["api_keys: API keys changed and are in use"]


async def test_what_changed_while_it_was_loaded_is_loaded_again(bench: Bench) -> None:
    files = WatchedFiles("listener in", ("a.pem",), bench.target, seen=((0, 1, 1),))
    bench.watch = FileWatch([files], in_thread=bench.in_thread, look=bench.look, clock=lambda: bench.clock)
    await bench.rounds(3)
    assert len(bench.target.used) == 1
    other = type(bench.target)()
    bench.watch.watch([WatchedFiles("listener in", ("a.pem",), other, seen=((0, 1, 1),))])
    await bench.rounds(3)
    assert len(other.used) == 1
