"""Memory for the books of all workers."""

from __future__ import annotations

import errno
import os

import pytest

from lbproxy.shared.segment import MAX_CELLS, Segment, SegmentError


def test_cells_are_numbers_of_64_bits_and_0_at_first() -> None:
    cells = Segment(1000).cells
    assert len(cells) == 1000 and not any(cells)
    cells[999] = -(1 << 63)
    cells[998] = (1 << 63) - 1
    assert (cells[998], cells[999]) == ((1 << 63) - 1, -(1 << 63))


def test_no_descriptor_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    segment = Segment(10)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # the map has one of its own
    assert len(segment.cells) == 10


@pytest.mark.parametrize("n_cells", [0, -1, MAX_CELLS + 1])
def test_how_much_there_can_be(n_cells: int) -> None:
    with pytest.raises(SegmentError, match="the most"):
        Segment(n_cells)


def test_memory_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SegmentError, match="8 KiB of memory for the books of all workers: No space left"):
        Segment(1024)
