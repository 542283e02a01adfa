"""What anybody may have of the admin address and costs more than a probe (/metrics, the page), on a budget of time.

A scrape is milliseconds of the loop that serves requests. All such calls together take SHARE of the time; who comes
when it is spent waits for a turn, in the order of arrival, and where WAITING do, the next is told to come again. SHARE
leaves requests the other half; a script that polls with a pause of some milliseconds does not notice it. Who shows a
token waits for nobody, nor does who comes over the unix socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from lbproxy.control.admin_budget import Budget

SHARE: Final = 0.5
BURST_S: Final = 1.0
STEP_S: Final = 0.0001
CALL_S: Final = 0.0004  # what aiohttp does for a call
WAITING: Final = 8
FULL: Final = "There are more such calls than there is time for. Try again in a moment, or send a token, if one is set."


class Turns:
    """clock: monotonic seconds. cpu: seconds of this thread's processor time."""

    def __init__(
        self,
        clock: Callable[[], float],
        cpu: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.budget = Budget(SHARE, BURST_S, STEP_S, clock)
        self.n_waiting = 0
        self._cpu = cpu
        self._sleep = sleep
        self._line = asyncio.Lock()
        self.work_s = 0.0  # what the last piece of work took

    def refusal(self) -> str | None:
        """Why nobody else may wait, None if somebody may."""
        return FULL if self.n_waiting >= WAITING else None

    async def come(self, work_s: float) -> bool:
        """Wait for a turn, and pay for the call and for what its work may take. False: too many wait."""
        if self.n_waiting or self.budget.wait_s:
            if self.n_waiting >= WAITING:
                return False
            self.n_waiting += 1
            try:
                async with self._line:
                    while wait_s := self.budget.wait_s:
                        await self._sleep(wait_s)
                    self.budget.spend(CALL_S + work_s)
            finally:
                self.n_waiting -= 1
        else:
            self.budget.spend(CALL_S + work_s)
        return True

    def work(self, do: Callable[[], bytes], paid_s: float) -> bytes:
        """What it takes beyond that is paid, too; what it does not take is given back."""
        began = self._cpu()
        try:
            return do()
        finally:
            self.work_s = self._cpu() - began
            self.budget.spend(self.work_s - paid_s)
