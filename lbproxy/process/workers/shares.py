"""What a worker may have of the limits that are those of all workers together, and that are divided."""

from __future__ import annotations

from lbproxy.config.model import Config


def share_of(config: Config, slot: int, n_workers: int) -> Config:
    """The config as one worker keeps to it. slot: 0 to n_workers - 1.

    `limits.connections` is not divided: workers lend each other places (domain/shared/places.py).
    """
    limits = config.limits
    own = max(1, part_of(limits.buffered_bytes, slot, n_workers))
    return config.model_copy(update={"limits": limits.model_copy(update={"buffered_bytes": own})})


def part_of(whole: int, slot: int, n_workers: int) -> int:
    """Whole parts that add up to the whole; the first ones get what is left over."""
    return whole // n_workers + (slot < whole % n_workers)
