"""Memory that a process and those that it forks have in common: no file, no name, gone with the last of them."""

from __future__ import annotations

import mmap
import os
from typing import Final

CELL_BYTES: Final = 8
MAX_CELLS: Final = (1 << 30) // CELL_BYTES


class SegmentError(OSError):
    """The memory can't be had; says what to do."""


class Segment:
    """n_cells: whole numbers of 64 bits, 0 at first, 1 to 134,217,728 (1 GiB). cells: to read and write them; they are
    there as long as any process uses them.

    Raises SegmentError.
    """

    __slots__ = ("cells",)

    def __init__(self, n_cells: int) -> None:
        if not 0 < n_cells <= MAX_CELLS:
            raise SegmentError(f"the books of all workers would take {n_cells} cells; {MAX_CELLS} are the most")
        size = n_cells * CELL_BYTES
        try:
            fd = os.memfd_create("lbproxy-books", os.MFD_CLOEXEC)
            try:
                os.posix_fallocate(fd, 0, size)  # now, and not by a SIGBUS when somebody writes
                memory = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise SegmentError(f"{size >> 10} KiB of memory for the books of all workers: {error.strerror}") from error
        self.cells = memoryview(memory).cast("q")
