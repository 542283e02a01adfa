"""What a build that was killed left in the temporary directory goes with the next one; what a running one has stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import hatch_build


def made(place: Path, name: str, age_s: float) -> Path:
    path = place / f"{hatch_build.SCRATCH}{name}"
    (path / "c").mkdir(parents=True)
    (path / "c" / "a.c").write_text("int a;")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    old = 2 * hatch_build.DEAD_S
    dead, alive, young = made(tmp_path, "dead", old), made(tmp_path, "alive", old), made(tmp_path, "young", 0.0)
    other = tmp_path / "lbproxy-other"
    other.mkdir()
    os.utime(other, (0, 0))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / f"{hatch_build.SCRATCH}link"
    link.symlink_to(elsewhere)
    os.utime(link, (0, 0), follow_symlinks=False)
    held = hatch_build.hold(alive)
    assert held is not None
    assert hatch_build.hold(alive) is None, "one holds it"
    hatch_build.clear_up(tmp_path)
    assert not dead.exists()
    assert alive.exists() and young.exists() and other.exists() and elsewhere.exists()
    os.close(held)  # as when it is killed
    hatch_build.clear_up(tmp_path)
    assert not alive.exists() and young.exists()


def test_what_others_own_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, me = made(tmp_path, "theirs", 2 * hatch_build.DEAD_S), os.getuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: me + 1)
        hatch_build.clear_up(tmp_path)
    assert path.exists()
