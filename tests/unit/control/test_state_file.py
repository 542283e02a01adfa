"""A file on disk that is either the last state or the one before, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from lbproxy.control import state_file
from lbproxy.control.kept_state import Json
from lbproxy.control.state_file import (
    AGAIN_S,
    GAP_S,
    MAX_BYTES,
    QUIET_S,
    REFRESH_S,
    Disk,
    Ignored,
    StateFile,
    identity,
    read_file,
    replace_file,
    why_not_kept,
)
from lbproxy.tasks import Tasks

CONFIG = "/etc/lbproxy/lb.yaml"


class Killed(BaseException):
    """kill -9: nothing of the process runs any more."""


class Trouble(Disk):
    """Fails at the call of this number, before it or right after it; every call after a kill is none."""

    def __init__(self, at: int = -1, error: BaseException | None = None, *, is_after: bool = False) -> None:
        self.at = at
        self.error = error
        self.is_after = is_after
        self.calls: list[str] = []

    def _do(self, name: str, call: Any, *given: Any) -> Any:
        is_here = len(self.calls) == self.at and self.error is not None
        if isinstance(self.error, Killed) and len(self.calls) > self.at >= 0:
            raise self.error
        self.calls.append(name)
        if is_here and not self.is_after:
            assert self.error is not None
            raise self.error
        found = call(*given)
        if is_here:
            assert self.error is not None
            raise self.error
        return found

    def create(self, path: str) -> int:
        return int(self._do("create", super().create, path))

    def write(self, descriptor: int, data: bytes) -> int:
        return int(self._do("write", super().write, descriptor, data[:20]))

    def sync(self, descriptor: int) -> None:
        self._do("sync", super().sync, descriptor)

    def close(self, descriptor: int) -> None:
        self._do("close", super().close, descriptor)

    def rename(self, path: str, to: str) -> None:
        self._do("rename", super().rename, path, to)

    def sync_folder(self, path: str) -> None:
        self._do("sync_folder", super().sync_folder, path)


OLD, NEW = b"the state before" * 2, b"the last state .." * 2
CALLS = ["create", "write", "write", "sync", "close", "rename", "sync_folder"]


def test_a_write_is_these_system_calls(tmp_path: Path) -> None:
    disk = Trouble()
    replace_file(str(tmp_path / "state"), NEW, disk)
    assert disk.calls == CALLS
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("at", range(len(CALLS)))
def test_who_is_killed_at_any_step_leaves_the_last_state_or_the_one_before(
    tmp_path: Path, at: int, *, is_after: bool
) -> None:
    path = tmp_path / "state"
    replace_file(str(path), OLD, Disk())
    with pytest.raises(Killed):
        replace_file(str(path), NEW, Trouble(at, Killed(), is_after=is_after))
    is_renamed = (at, is_after) >= (CALLS.index("rename"), True)
    assert path.read_bytes() == (NEW if is_renamed else OLD)
    replace_file(str(path), NEW, Disk())  # what was left does not stand in the way
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize("at", range(CALLS.index("sync_folder")))
def test_a_disk_that_is_full_keeps_the_state_before_and_no_part_of_the_new_one(tmp_path: Path, at: int) -> None:
    path = tmp_path / "state"
    replace_file(str(path), OLD, Disk())
    with pytest.raises(OSError, match="full"):
        replace_file(str(path), NEW, Trouble(at, OSError(28, "full")))
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["state"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real" / "state")
    replace_file(str(tmp_path / "state"), NEW, Disk())
    assert (tmp_path / "state").is_symlink()
    assert (tmp_path / "real" / "state").read_bytes() == NEW


# --- reading --------------------------------------------------------------------------------------------------------


def envelope(**other: object) -> bytes:
    return json.dumps({"config": CONFIG, "state": {"version": 1}, **other}).encode()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(envelope())
    assert read_file(str(tmp_path / "state"), CONFIG) == {"version": 1}


def test_no_file_is_no_news(tmp_path: Path) -> None:
    assert read_file(str(tmp_path / "state"), CONFIG) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"{", "it is damaged: no JSON"),
        (b"\xff\xfe\x00", "it is damaged: no JSON"),
        (b"[" * 200_000, "it is damaged: no JSON"),
        (b"[]", "it is no state of lbproxy"),
        (b'{"config": 1, "state": {}}', "it is no state of lbproxy"),
        (envelope(config="/other.yaml"), "it belongs to the config /other.yaml"),
        (b" " * (MAX_BYTES + 1), "it is larger than 8 MiB"),
    ],
)
def test_what_can_not_be_used_is_ignored_for_a_reason(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(Ignored) as caught:
        read_file(str(tmp_path / "state"), CONFIG)
    assert str(caught.value) == why


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "pipe", "it is no file")):
        with pytest.raises(Ignored, match=why):
            read_file(str(path), CONFIG)
    with pytest.raises(Ignored, match="null"):
        read_file("a\0b", CONFIG)


def test_every_part_of_a_state_is_no_state(tmp_path: Path) -> None:
    whole = envelope()
    for length in range(len(whole)):
        (tmp_path / "state").write_bytes(whole[:length])
        with pytest.raises(Ignored):
            read_file(str(tmp_path / "state"), CONFIG)


def test_configs_are_told_apart_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert identity("lb.yaml") == str(tmp_path / "lb.yaml")
    assert (identity("-"), identity("")) == ("-", "")


def test_where_it_could_not_be_kept_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_kept(str(tmp_path / "state")) == ""
    assert why_not_kept(str(tmp_path)) == "it is a directory"
    assert why_not_kept(str(tmp_path / "no" / "state")) == f"there is no directory {tmp_path / 'no'}"
    assert "null" in why_not_kept("a\0b")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert why_not_kept(str(tmp_path / "state")) == f"no file can be made in {tmp_path}"


# --- writing when it is due -----------------------------------------------------------------------------------------


class Bench:
    """A state file whose time is moved by who waits. slept: for how long it was waited, in order."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self.now = 100.0
        self.pools: Json = {}
        self.n_errors = 0
        self.slept: list[float] = []
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(self.crashes.append)
        self.turn = asyncio.Event()
        self.file = StateFile(
            str(path),
            CONFIG,
            lambda: {"version": 1, "saved_at": self.now, "pools": dict(self.pools)},
            self.tasks,
            lambda: self.now,
            self.count,
            disk=disk,
            sleep=self.sleep,
        )

    def count(self) -> None:
        self.n_errors += 1

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(round(wait_s, 3))
        await asyncio.sleep(0)
        self.now += wait_s

    async def change(self, **pools: object) -> None:
        """Something changes, and all that comes of it happens."""
        self.pools = pools
        self.file.changed()
        await self.settled()

    async def settled(self) -> None:
        task = self.file._task
        if task is not None:
            await asyncio.wait([task])

    @property
    def kept(self) -> Any:
        state: Any = read_file(str(self.path), CONFIG)
        return state["pools"]


async def test_a_change_is_written_soon_and_changes_that_come_together_once(tmp_path: Path) -> None:
    disk = Trouble()
    bench = Bench(tmp_path / "state", disk)
    bench.pools = {"p": {"n": 1}}
    bench.file.changed()
    bench.file.changed()
    await bench.change(p={"n": 2})
    assert bench.kept == {"p": {"n": 2}}
    assert disk.calls.count("rename") == 1
    assert bench.slept == [QUIET_S]
    await bench.change(p={"n": 3})
    assert bench.slept == [QUIET_S, GAP_S]
    await bench.change(p={"n": 3})  # nothing differs
    assert disk.calls.count("rename") == 2
    assert bench.file.told() == {"path": str(tmp_path / "state"), "age": 1.0, "error": None}


async def test_a_change_while_it_is_written_is_written_too(tmp_path: Path) -> None:
    class Slow(Disk):
        def rename(self, path: str, to: str) -> None:
            super().rename(path, to)
            loop.call_soon_threadsafe(again)

    def again() -> None:
        if not bench.pools.get("q"):
            bench.pools = {"q": {"n": 2}}
            bench.file.changed()

    loop = asyncio.get_running_loop()
    bench = Bench(tmp_path / "state", Slow())
    await bench.change(p={"n": 1})
    await bench.settled()
    assert bench.kept == {"q": {"n": 2}}


async def test_what_can_not_be_written_is_counted_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    bench = Bench(folder / "state")
    bench.pools = {"p": {"n": 1}}
    tries = 0

    async def sleep(wait_s: float) -> None:
        nonlocal tries
        await Bench.sleep(bench, wait_s)
        tries += wait_s in AGAIN_S
        if tries == 7:
            folder.mkdir(exist_ok=True)

    bench.file._sleep = sleep
    with caplog.at_level(logging.INFO, "lbproxy"):
        bench.file.changed()
        await bench.settled()
    assert bench.kept == {"p": {"n": 1}}
    assert bench.n_errors == 7
    waits = [wait_s for wait_s in bench.slept if wait_s != QUIET_S]
    assert waits == [1.0, 5.0, 15.0, 60.0, 60.0, 60.0, 60.0]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 4  # at once, and once a minute after the first one
    assert warnings[0].startswith(f"state_file {folder / 'state'} cannot be written: No such file or directory; ")
    assert caplog.messages[-1] == f"state_file {folder / 'state'} is written again"
    assert not bench.crashes


async def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "a\0b")
    bench.pools = {"p": {"n": 1}}
    await bench.file.stop()
    assert "null" in bench.file.error


async def test_the_status_says_what_is_wrong(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "folder" / "state")
    bench.pools = {"p": {"n": 1}}
    await bench.file.stop()
    assert bench.file.told()["error"] == "No such file or directory"


async def test_a_disk_that_hangs_holds_one_thread_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    release, has_begun, begun = threading.Event(), asyncio.Event(), list[int]()

    class Hanging(Disk):
        def sync(self, descriptor: int) -> None:
            begun.append(descriptor)
            loop.call_soon_threadsafe(has_begun.set)
            release.wait()

    monkeypatch.setattr(state_file, "WRITE_S", 0.0)
    monkeypatch.setattr(state_file, "STOP_S", 0.01)
    bench = Bench(tmp_path / "state", Hanging())
    bench.pools = {"p": {"n": 1}}
    try:
        await bench.file._write()
        await has_begun.wait()
        monkeypatch.setattr(state_file, "WRITE_S", 10.0)
        await bench.file._write()
        assert bench.file.error == "a write before this one has not ended yet"
        await bench.file.stop()
    finally:
        release.set()
    assert len(begun) == 1
    assert "it takes longer than 0 s" in caplog.messages[0]


async def test_verdicts_are_kept_fresh(tmp_path: Path) -> None:
    disk = Trouble()
    bench = Bench(tmp_path / "state", disk)
    await bench.change(p={"servers": [{"name": "a", "health": {}}]})
    bench.now += REFRESH_S - 1
    bench.file.tick(bench.now)
    await bench.settled()
    assert disk.calls.count("rename") == 1
    bench.now += 1.1
    bench.file.tick(bench.now)
    await bench.settled()
    assert disk.calls.count("rename") == 2
    await bench.change(p={"servers": [{"name": "a", "live": {}}]})
    bench.now += 10 * REFRESH_S
    bench.file.tick(bench.now)
    await bench.settled()
    assert disk.calls.count("rename") == 3  # an operator's word does not age


async def test_the_end_writes_what_is_known_then_and_nothing_after_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state")
    bench.pools = {"p": {"n": 1}}
    await bench.file.stop()
    assert bench.kept == {"p": {"n": 1}}
    await bench.change(p={"n": 2})
    assert bench.kept == {"p": {"n": 1}}


async def test_a_file_that_was_let_go_is_somebody_elses(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state")
    bench.pools = {"p": {"n": 1}}
    bench.file.changed()
    bench.file.let_go()
    await bench.settled()
    await bench.file.stop()
    await bench.change(p={"n": 2})
    assert os.listdir(tmp_path) == []


async def test_what_was_let_go_and_is_taken_back_is_written_then(tmp_path: Path) -> None:
    """An upgrade that failed: what was about to be written, and what changed meanwhile, gets there."""
    bench = Bench(tmp_path / "state")
    bench.pools = {"p": {"n": 1}}
    bench.file.changed()
    await bench.file.pause()
    await bench.change(p={"n": 2})
    assert os.listdir(tmp_path) == []
    bench.file.begin()
    await bench.settled()
    assert bench.kept == {"p": {"n": 2}}


async def test_one_that_is_another_process_s_is_written_from_the_moment_it_is_ours(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state")
    bench.file._is_ours = False
    await bench.change(p={"n": 1})
    assert os.listdir(tmp_path) == []
    bench.file.begin()
    await bench.settled()
    assert bench.kept == {"p": {"n": 1}}


async def test_a_write_that_hangs_does_not_hold_up_a_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "STOP_S", 0.01)
    bench = Bench(tmp_path / "state")
    with bench.file._gate:
        await bench.file.pause()
    assert "a write takes longer than 0.01 s and may come too late" in caplog.text


async def test_what_would_be_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state")
    bench.pools = {"p": {"x": "x" * MAX_BYTES}}
    await bench.file.stop()
    assert bench.file.error == "it would be larger than 8 MiB"
    assert os.listdir(tmp_path) == []


async def test_a_file_of_no_use_is_told_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path / "state")
    assert await bench.file.read() is None
    (tmp_path / "state").write_text("{")
    assert await bench.file.read() is None
    path = tmp_path / "state"
    assert caplog.messages == [
        f"state_file {path} is ignored: it is damaged: no JSON; it is replaced with the next change"
    ]
