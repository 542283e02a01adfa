"""A file is read again when other content has come to rest in it, however it came there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbproxy.process.config_watch import LOOK_S, QUIET_S, ConfigWatch, digest


class Watched:
    """A file that is looked at; `acts` happen one at each pause, and count how often it was to be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("one")
        self.known = digest(str(path))
        self.n_read = 0
        self.pauses: list[float] = []
        self.acts: list[Callable[[], object]] = []
        self.watch = ConfigWatch(
            str(path), lambda: self.known, self._changed, in_thread=self._in_thread, sleep=self._sleep
        )

    async def _changed(self) -> None:
        self.n_read += 1
        self.known = digest(str(self.path))

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return function(*args)

    async def _sleep(self, delay_s: float) -> None:
        self.pauses.append(delay_s)
        if self.acts:
            self.acts.pop(0)()

    def replace(self, text: str) -> None:
        """As editors do."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "lb.yaml")


async def test_what_is_known_is_not_read_again(watched: Watched) -> None:
    for _ in range(3):
        await watched.watch.look()
    watched.replace("one")
    await watched.watch.look()
    assert watched.n_read == 0


@pytest.mark.parametrize("way", ["write", "rename", "link"])
async def test_other_content_is_read_once(watched: Watched, way: str, tmp_path: Path) -> None:
    await watched.watch.look()
    if way == "write":
        watched.path.write_text("three")
    elif way == "rename":
        watched.replace("two")
    else:  # Kubernetes
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "lb.yaml").write_text("two")
        os.symlink(tmp_path / "data" / "lb.yaml", tmp_path / "link")
        (tmp_path / "link").replace(watched.path)
    for _ in range(3):
        await watched.watch.look()
    assert watched.n_read == 1


async def test_a_file_that_is_being_written_is_left_alone(watched: Watched) -> None:
    await watched.watch.look()
    watched.pauses.clear()
    watched.path.write_text("tw")
    watched.acts = [lambda: watched.path.write_text("two,"), lambda: watched.path.write_text("two, three")]
    await watched.watch.look()
    assert watched.pauses == [QUIET_S] * 3 and watched.n_read == 1


async def test_a_file_that_goes_for_a_moment(watched: Watched) -> None:
    await watched.watch.look()
    watched.path.unlink()
    await watched.watch.look()
    assert watched.n_read == 0
    watched.path.write_text("two")
    await watched.watch.look()
    assert watched.n_read == 1


async def test_it_goes_on(watched: Watched) -> None:
    def stop() -> None:
        raise InterruptedError

    watched.acts = [lambda: None, lambda: watched.replace("two"), lambda: None, stop]
    with pytest.raises(InterruptedError):
        await watched.watch.run()
    assert watched.n_read == 1 and LOOK_S in watched.pauses
