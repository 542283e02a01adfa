"""How evenly several workers balance that share their books, against one that has its own.

    python -m benchmarks.simulation [--seconds 600] [--seeds 3]

The same requests come to 1, 2 and 4 workers, by chance; the bound is the 99th percentile within 5 % of one's.
"""

from __future__ import annotations

import argparse
import sys
from statistics import fmean
from typing import Final

from benchmarks.simulation.simulator import QueueSpec, Simulation

WORKERS: Final = (0, 1, 2, 4)
WARM_UP_S: Final = 10.0
MOST: Final = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of virtual time, for each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each number of workers")
    args = parser.parse_args()
    alone: list[float] = []
    is_met = True
    print("4 servers, 1 slot, load 0.9")
    for workers in WORKERS:
        p99 = [p99_s(workers, seed, args.seconds) for seed in range(1, args.seeds + 1)]
        alone = alone or p99
        ratio = sum(p99) / sum(alone)
        is_met = is_met and ratio <= MOST
        print(f"{describe(workers):>10}: p99 {fmean(p99):.3f} s, {ratio:.3f} of one worker's")
    return 0 if is_met else 1


def describe(workers: int) -> str:
    return f"{workers} shared" if workers else "1 alone"


def p99_s(workers: int, seed: int, seconds: float) -> float:
    """Raises ArithmeticError if a limit did not hold, or a slot was left behind."""
    queue = QueueSpec(100_000, 60.0)
    simulation = Simulation(n=4, slots=1, seed=seed, max_inflight=1, queue=queue, workers=workers)
    report = simulation.run(0.9, seconds)
    if report.most_at_once != 1 or not simulation.is_everything_back():
        raise ArithmeticError(f"{describe(workers)}: {report.most_at_once} at once, or something was left behind")
    return report.p99(WARM_UP_S)


if __name__ == "__main__":
    sys.exit(main())
