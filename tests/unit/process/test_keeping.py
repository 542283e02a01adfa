"""Who writes the state file while one process takes over from another: one of them, at any time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from lbproxy.control.kept_data import Unreadable
from lbproxy.control.kept_state import RESTART, UPGRADE, KeptState
from lbproxy.process.keeping import Keeping
from lbproxy.tasks import Tasks


class Known:
    """In place of KeptState: what is known is a word. restored: what was taken up, and as what."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.restored: list[object] = []

    def snapshot(self, *, with_well: bool = False) -> dict[str, object]:
        return {"pools": {self.word: {}}, "well": with_well}

    def restore(self, data: object, event: str = RESTART) -> None:
        if data == "nonsense":
            raise Unreadable("it is nonsense")
        self.restored += [data, event]

    def update(self, data: object) -> None:
        self.restored += [data, "update"]

    def settle(self) -> None:
        """Nothing is waited for."""


def keeping(known: Known, folder: Path, path: str | None = "state") -> Keeping:
    errors: list[BaseException] = []
    config = str(folder / "lb.yaml")
    return Keeping(cast(KeptState, known), path, config, Tasks(errors.append), lambda: 1.0, lambda: None)


def written(folder: Path) -> Any:
    state = folder / "state"
    return list(json.loads(state.read_text())["state"]["pools"]) if state.exists() else None


async def test_the_file_is_the_old_process_s_until_it_has_said_its_last_and_then_the_new_one_s(tmp_path: Path) -> None:
    known = Known("old")
    old, new = keeping(known, tmp_path), keeping(Known("new"), tmp_path)
    await old.start(None)
    old.serve()
    await new.start(old.snapshot())
    new.changed()
    await new.stop()
    assert written(tmp_path) is None, "it did not serve"
    assert (await old.last_snapshot())["well"] is True
    new.serve()
    await old.stop()
    assert written(tmp_path) is None, "it serves no more"
    await new.stop()
    assert written(tmp_path) == ["new"]


async def test_an_old_process_that_goes_on_has_the_file_again(tmp_path: Path) -> None:
    old = keeping(Known("old"), tmp_path)
    old.serve()
    await old.last_snapshot()
    old.use("other")
    old.use("state")
    await old.stop()
    assert written(tmp_path) is None
    old.serve()
    await old.stop()
    assert written(tmp_path) == ["old"]


async def test_a_process_that_takes_over_does_not_read_the_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(json.dumps({"config": str(tmp_path / "lb.yaml"), "state": "kept"}))
    upgraded, restarted = Known("new"), Known("new")
    await keeping(upgraded, tmp_path).start("handed over")
    await keeping(restarted, tmp_path).start(None)
    assert upgraded.restored == ["handed over", UPGRADE]
    assert restarted.restored == ["kept", RESTART]


async def test_a_file_of_nonsense_is_ignored_and_a_process_that_talks_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text(json.dumps({"config": str(tmp_path / "lb.yaml"), "state": "nonsense"}))
    await keeping(Known("new"), tmp_path).start(None)
    assert "is ignored: it is nonsense" in caplog.text
    with pytest.raises(Unreadable):
        await keeping(Known("new"), tmp_path).start("nonsense")


async def test_without_a_file_there_is_nothing_to_tell(tmp_path: Path) -> None:
    made = keeping(Known("word"), tmp_path, None)
    made.serve()
    made.changed()
    made.tick(1.0)
    await made.stop()
    assert made.told() is None and os.listdir(tmp_path) == []
    made.use("state")
    assert made.told() == {"path": str(tmp_path / "state"), "age": None, "error": None}
