"""What a process that serves asks of its runtime: the collector of Python, and the C library's memory."""

from __future__ import annotations

import gc


def tune_gc() -> None:
    """Spare the collector: what exists now lives as long as the process, and what is over is freed without it.

    With the default threshold of 700 allocations it ran for every few dozen requests and cost up to 10 us of each. No
    request and no connection leaves a cycle behind (tests/scenarios/resilience/test_no_cycles.py).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def tune_malloc() -> None:
    """Let the C library keep the memory of a large read for the next one.

    glibc returns blocks over 128 KiB to the kernel when they are freed, so each next one is a page fault for every 4
    KiB. Some processes did that all their life, 250 us of the 850 that 1 MiB over TLS then took. The limits follow the
    largest block ever returned (mallopt(3), M_MMAP_THRESHOLD): after one of 512 KiB, up to 1 MiB is kept.
    """
    bytearray(1 << 19)
