"""What gives way when memory for data on its way runs short, and in which order."""

from __future__ import annotations

import logging

import pytest

from lbproxy.dataplane.pressure import COUNTED_FROM, Pressure
from lbproxy.telemetry.slots import PROCESS, Slots

LIMIT = 1000 << 10
KIB = 1 << 10
GIVEN_UP = PROCESS.column("replay_copies_dropped_total")


class Holder:
    """The body of one request; `kept` of it is needed."""

    def __init__(self, pressure: Pressure, size: int, kept: int = 0) -> None:
        self.pressure = pressure
        self.size = 0
        self.kept = kept
        self.grow(size)

    def grow(self, size: int) -> None:
        self.size += size
        self.pressure.copy_grew(self, self.size)

    def spare_bytes(self) -> int:
        return self.size - self.kept

    def give_up_spare(self) -> None:
        self.size = 0
        self.pressure.copy_gone(self)


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.row = Slots().allocate(PROCESS)
        self.pressure = Pressure(LIMIT, self.row, lambda: self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_below_three_quarters_nothing_happens(bench: Bench) -> None:
    holders = [Holder(bench.pressure, 100 * KIB) for _ in range(7)]
    bench.pressure.settle(749 * KIB)
    assert all(holder.size for holder in holders)
    assert not bench.pressure.is_holding and not bench.pressure.is_refusing and bench.pressure.reason is None


def test_the_largest_copies_go_first_and_no_more_than_needed(bench: Bench) -> None:
    sizes = [50, 200, 90, 160, 40, 100, 60]
    holders = [Holder(bench.pressure, size * KIB) for size in sizes]  # 700 in all
    bench.pressure.count(60 * KIB)
    assert [holder.size // KIB for holder in holders] == [50, 0, 90, 160, 40, 100, 60]
    assert bench.row[GIVEN_UP] == 1 and bench.pressure.buffered == 560 * KIB


def test_a_body_that_grows_is_counted_at_once(bench: Bench) -> None:
    """Uploads of a second can be more than the limit, and the sweep comes five times in it."""
    holders = [Holder(bench.pressure, COUNTED_FROM) for _ in range(3)]
    for _ in range(200):
        for holder in holders:
            holder.grow(32 * KIB)
            assert bench.pressure.buffered < LIMIT * 0.8
    assert bench.pressure.buffered == sum(holder.size for holder in holders)
    assert not bench.pressure.is_refusing


def test_a_body_that_no_server_has_yet_is_kept(bench: Bench) -> None:
    needed = [Holder(bench.pressure, 200 * KIB, kept=200 * KIB) for _ in range(4)]
    assert all(holder.size for holder in needed) and bench.row[GIVEN_UP] == 0
    bench.pressure.count(60 * KIB)
    assert bench.pressure.is_holding and not bench.pressure.is_refusing
    bench.pressure.count(100 * KIB)
    assert bench.pressure.is_refusing
    assert bench.pressure.reason is not None and "limits.buffered_bytes" in bench.pressure.reason


def test_refusing_ends_well_below_where_it_begins(bench: Bench) -> None:
    for in_use, is_holding, is_refusing in (
        (840, False, False),
        (860, True, False),
        (949, True, False),
        (951, True, True),
        (900, True, True),
        (860, True, True),
        (849, False, False),
        (900, True, False),
    ):
        bench.pressure.settle(in_use * KIB)
        assert (bench.pressure.is_holding, bench.pressure.is_refusing) == (is_holding, is_refusing), in_use


def test_what_cannot_be_given_up_is_not_looked_through_for_each_piece(bench: Bench) -> None:
    """Sorting all bodies for each of their pieces would be quadratic."""
    looks = 0

    class Counting(Holder):
        def spare_bytes(self) -> int:
            nonlocal looks
            looks += 1
            return 0

    holders = [Counting(bench.pressure, 17 * KIB) for _ in range(40)]  # 680 KiB
    for _ in range(250):
        holders[0].grow(1 * KIB)
    assert bench.pressure.is_holding
    assert 40 <= looks <= 40 * 12


def test_it_says_so_once_a_second(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            for holder in [Holder(bench.pressure, 100 * KIB) for _ in range(8)]:
                holder.give_up_spare()
            bench.now += 0.1
    assert 1 < len(caplog.records) <= 3
    assert all("limits.buffered_bytes" in record.getMessage() for record in caplog.records)
    caplog.clear()
    bench.pressure.settle(2 * LIMIT)
    bench.pressure.settle(0)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "503" in caplog.records[0].getMessage() and "no longer" in caplog.records[1].getMessage()
