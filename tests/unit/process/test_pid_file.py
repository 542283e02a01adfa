"""The pid file: whole, of who serves, and removed by its owner only."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.process.pid_file import PidFile


def test_it_appears_when_the_process_serves_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lb.pid"
    file = PidFile(str(path), 7)
    file.prepare()
    assert not path.exists()
    file.take()
    assert path.read_text() == "7\n" and [item.name for item in tmp_path.iterdir()] == ["lb.pid"]
    assert path.stat().st_mode & 0o777 == 0o644
    file.remove()
    assert list(tmp_path.iterdir()) == []
    file.remove()


def test_the_next_process_has_it_then_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lb.pid"
    old, new = PidFile(str(path), 7), PidFile(str(path), 8)
    old.take()
    new.prepare()
    assert path.read_text() == "7\n"
    new.take()
    old.remove()
    assert path.read_text() == "8\n", "it is not the old one's any more"
    old.take()
    new.remove()
    assert path.read_text() == "7\n"


def test_one_that_never_served_leaves_nothing(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path / "lb.pid"), 7)
    file.prepare()
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_it_can_t_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (tmp_path, tmp_path / "missing" / "lb.pid"):
        file = PidFile(str(path), 7)
        with pytest.raises(OSError):
            file.prepare()
        file.take()
        file.remove()
    assert len(caplog.messages) >= 2 and all("pid file" in message for message in caplog.messages)
