from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbproxy.process.workers.stuck import BUSY_S, SILENT_S, START_S, Look, Watch, look


def looks(watch: Watch, *seen: tuple[float, str, float]) -> list[bool]:
    """seen: for how long it has been silent, its state, the CPU that it has used."""
    return [watch.is_stuck(silent_s, Look(state, cpu_s)) for silent_s, state, cpu_s in seen]


@pytest.mark.parametrize("state", ["T", "t", "S", "Z"])
def test_who_is_silent_and_does_not_want_to_run_is_stuck(state: str) -> None:
    assert looks(Watch(), (0.5, state, 1.0), (1.5, state, 1.0), (SILENT_S, state, 1.0)) == [False, False, True]


def test_who_waits_for_a_processor_is_not_stuck() -> None:
    assert looks(Watch(), (1.5, "R", 7.0), (SILENT_S, "R", 7.1), (10 * SILENT_S, "R", 7.2)) == [False] * 3


def test_who_has_used_a_processor_for_long_in_one_turn_is_stuck() -> None:
    assert looks(Watch(), (1.5, "R", 7.0), (SILENT_S, "R", 7.0 + BUSY_S)) == [False, True]


def test_what_was_used_before_it_became_silent_does_not_count() -> None:
    watch = Watch()
    assert looks(watch, (1.5, "R", 7.0), (0.1, "R", 50.0), (1.5, "R", 50.0), (SILENT_S, "R", 50.5)) == [False] * 4


def test_who_waits_for_a_disk_or_is_gone_is_left_alone() -> None:
    watch = Watch()
    assert looks(watch, (SILENT_S, "D", 1.0)) == [False]
    assert not watch.is_stuck(SILENT_S, None)


def test_who_starts_has_more_time() -> None:
    watch = Watch()
    assert not watch.is_stuck(START_S / 2, Look("R", 20.0), START_S)
    assert watch.is_stuck(START_S, Look("R", 40.0), START_S)


def test_a_process_is_looked_up_by_its_id(tmp_path: Path) -> None:
    mine = look(os.getpid())
    assert mine is not None
    assert mine.state == "R"
    (tmp_path / "17").mkdir()
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "17" / "stat").write_text(f"17 (a ) b) T 1 1 1 0 -1 0 0 0 0 0 {2 * ticks} {ticks} 0 0\n")
    assert look(17, tmp_path) == Look("T", 3.0)
    assert look(18, tmp_path) is None
