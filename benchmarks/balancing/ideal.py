"""The best that a first-come-first-served policy can do: one queue, no hop, no overhead. Pure.

It tells whether a missed figure is the proxy's doing or the trace's: a measured latency far above this one is
somebody's overhead, and one below it is either a better order or a defect of the harness.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from benchmarks.balancing.trace import Trace


def central_queue(trace: Trace, speeds: Sequence[float], slots: int) -> list[float]:
    """Latency of each request in seconds. Of the free slots the fastest is taken. speeds: one for each server."""
    free = [(-speed, number) for number, speed in enumerate(speed for speed in speeds for _ in range(slots))]
    heapify(free)
    busy: list[tuple[float, tuple[float, int]]] = []
    latencies = []
    for arrived, work in zip(trace.arrivals, trace.works, strict=True):
        while busy and busy[0][0] <= arrived:
            heappush(free, heappop(busy)[1])
        start, slot = (arrived, heappop(free)) if free else heappop(busy)
        done = start + work / -slot[0]
        heappush(busy, (done, slot))
        latencies.append(done - arrived)
    return latencies
