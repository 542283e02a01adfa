"""A rehearsal finds what would end a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.model import Config
from lbproxy.process import rehearsal


def test_where_an_access_log_can_be(tmp_path: Path) -> None:
    present = tmp_path / "a.log"
    present.write_text("")
    assert [rehearsal.why_not_writable(path) for path in ("stdout", "stderr", str(present), str(tmp_path / "b"))] == [
        ""
    ] * 4
    assert rehearsal.why_not_writable(str(tmp_path)) == "it is a directory"
    assert rehearsal.why_not_writable(f"{tmp_path}/c/d") == f"there is no directory {tmp_path}/c"
    assert rehearsal.why_not_writable(f"{present}/x") == "Not a directory"
    assert "null" in rehearsal.why_not_writable("a\0b")


def test_a_file_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = tmp_path / "a.log"
    present.write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert rehearsal.why_not_writable(str(present)) == "Permission denied"
    assert rehearsal.why_not_writable(str(tmp_path / "b")) == f"no file can be made in {tmp_path}"


def test_a_state_file_that_could_not_be_written_is_a_doubt(tmp_path: Path) -> None:
    base = {"listeners": [{"bind": ":5000", "pool": "p"}], "pools": {"p": {"servers": ["127.0.0.1:1"]}}}
    path = str(tmp_path / "lb.yaml")

    def doubts(state_file: str) -> list[str]:
        config = Config.model_validate({**base, "state_file": state_file})
        return [str(doubt) for doubt in rehearsal.doubts(config, config_path=path)]

    assert doubts("off") == doubts("state.json") == []
    assert doubts("no/state.json") == [
        f"{tmp_path}/no/state.json cannot be written: there is no directory {tmp_path}/no"
    ]
