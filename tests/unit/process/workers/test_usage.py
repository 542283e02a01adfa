from __future__ import annotations

import os
from pathlib import Path

from lbproxy.process.workers.usage import Usage, usage_of


def test_the_fields_are_found_behind_any_name(tmp_path: Path) -> None:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "7").mkdir()
    fields = f"S 1 2 3 4 5 6 7 8 9 10 {3 * ticks} {2 * ticks} 13 14 15 16 17 18 19 20 1000 22"
    (tmp_path / "7/stat").write_text(f"7 (lb) S (2) {fields}\n")
    assert usage_of(7, tmp_path) == Usage(5.0, 1000 * page)


def test_this_process_costs_something() -> None:
    used = usage_of(os.getpid())
    assert used is not None
    assert used.rss > 1 << 20
    assert used.cpu_s > 0


def test_nothing_is_known_of_a_process_that_is_gone(tmp_path: Path) -> None:
    assert usage_of(0, tmp_path) is None
