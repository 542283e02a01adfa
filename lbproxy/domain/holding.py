"""When a request waits although there is a slot: because the slot is one of a server that has just failed.

A penalty keeps requests away from such a server while others have room. When the others are full, its slots are the
only free ones, and each request that finds no other would be failed in a millisecond: with one such server of eight, 5
to 6 % of all. Better to wait for a slot of a sound server, which comes soon where the queue is short. Nobody waits like
this for longer than a usual penalty (5 s), half of the queue's time-out, or what the deadline leaves; and where so many
wait that the turn of the last would come later than that, the oldest take what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import PENALTY_S, Server

SWEEP_S: Final = 0.25  # a bound for the time between two looks at who waits
NO_SLOT: Final = 0
FREE_SLOT: Final = 1
HELD_SLOT: Final = 2


def slot_among(eligible: Sequence[Server], now: float) -> int:
    """Is there a slot for who waits? HELD_SLOT: only of servers that are held, while others are merely full."""
    has_held = is_anybody_sound = False
    for server in eligible:
        if server.is_held(now):
            has_held = has_held or server.inflight < server.limit
        elif server.inflight < server.limit:
            return FREE_SLOT
        else:
            is_anybody_sound = True
    if has_held:
        return HELD_SLOT if is_anybody_sound else FREE_SLOT
    return NO_SLOT


def sound_among(servers: Sequence[Server], tried: Sequence[Server], now: float) -> list[Server]:
    """Those that are not held and have not just failed this request."""
    return [
        server
        for server in servers
        if not server.is_held(now) and not (server in tried and server.penalty_s(now) > 0.0)
    ]


def is_worth_a_wait(
    queue: WaitQueue | None, eligible: Sequence[Server], tried: Sequence[Server], deadline_at: float, now: float
) -> bool:
    """Is a place in the queue better than a slot of a server that has just failed? Somebody sound must be there."""
    return (
        queue is not None
        and len(queue) < queue.size
        and now + needed_s(eligible) < deadline_at
        and bool(sound_among(eligible, tried, now))
    )


def needed_s(eligible: Sequence[Server]) -> float:
    """How long before its time is over a request must be on its way: what slow answers take, and a sweep."""
    return SWEEP_S + max((server.service_p95_s for server in eligible), default=0.0)


def longest_hold_s(queue: WaitQueue, now: float) -> float:
    """How long somebody waits beside a slot that is held, at most; 0 where the queue is longer than that."""
    longest_s = min(PENALTY_S, queue.timeout_s / 2)
    rate = queue.drain_rate(now)  # 0: nothing came for a second, which slow answers explain
    return longest_s if not rate or len(queue) <= rate * longest_s else 0.0
