"""When a direction is left to the kernel, and when it is taken back. What an end does is seen in test_relay.py."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.exchange.relay_end import BULK_READ, NOT_SOON, longer_run, more_small_moves


@pytest.mark.parametrize(
    ("run", "size", "longer"),
    [
        (0, BULK_READ - 1, 0),
        (0, BULK_READ, BULK_READ),
        (BULK_READ, BULK_READ, 2 * BULK_READ),
        (10 * BULK_READ, 1, 0),
        (-NOT_SOON, 1, 1 - NOT_SOON),  # there was no pipe: every byte copied since brings the next attempt nearer
    ],
)
def test_when_is_a_direction_bulk(run: int, size: int, longer: int) -> None:
    assert longer_run(run, size) == longer


def test_when_is_it_no_longer() -> None:
    assert more_small_moves(3, BULK_READ - 1) == 4
    assert more_small_moves(3, BULK_READ) == 0
