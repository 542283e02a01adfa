"""Waiting for a condition instead of for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0  # twenty processes that want two cores have taken 12 s; what takes longer will never come true
POLL_S = 0.004
REST = 2.0  # looks ask daemons for pages, and who looks all the time takes the processor from what it waits for
LATE = 0.1  # what takes long is noticed later by that part of it: 40 looks at a second instead of 250
LONGEST_REST_S = 0.05


def rest_s(look_s: float, waited_s: float = 0.0) -> float:
    """How long to sleep after a look that took so long, at something that was waited for so long."""
    return min(max(POLL_S, REST * look_s, LATE * waited_s), LONGEST_REST_S)


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `condition`; raise AssertionError with `what` and the last value when late."""
    since = time.monotonic()
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now - since > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(rest_s(now - began, now - since))
