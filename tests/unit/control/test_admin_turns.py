"""What anybody may have waits when it is too much, in order, and few do."""

from __future__ import annotations

import asyncio

import pytest

from lbproxy.control.admin_turns import BURST_S, CALL_S, FULL, SHARE, STEP_S, WAITING, Turns
from lbproxy.tasks import Tasks

WORK_S = 0.005


class Bench:
    """Time passes where somebody sleeps; work takes WORK_S of the processor."""

    def __init__(self) -> None:
        self.now = 10.0
        self.spent_s = 0.0
        self.turns = Turns(lambda: self.now, self.cpu, self.sleep)
        self.served: list[int] = []
        self.tasks = Tasks()

    def cpu(self) -> float:
        return self.spent_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds

    def do(self) -> bytes:
        self.spent_s += WORK_S
        return b"text"

    async def call(self, number: int = 0) -> bool:
        paid_s = self.turns.work_s
        if not await self.turns.come(paid_s):
            return False
        assert self.turns.work(self.do, paid_s) == b"text"
        self.served.append(number)
        return True


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_scrapes_each_five_seconds_and_a_browser_never_wait(bench: Bench) -> None:
    for _ in range(100):
        for _ in range(3):
            assert await bench.call()
        for _ in range(10):  # the page and its files
            assert await bench.turns.come(0.0)
        bench.now += 5.0
    assert bench.now == 510.0, "somebody slept"


async def test_who_calls_all_the_time_gets_a_share_of_it(bench: Bench) -> None:
    began = bench.now
    while bench.now - began < 100.0:
        assert await bench.call()
        bench.now += 1e-4
    took_s = len(bench.served) * (WORK_S + CALL_S)
    least, most = SHARE * 100.0, SHARE * 100.0 + BURST_S + 2 * (WORK_S + CALL_S)
    assert least * 0.9 <= took_s <= most


async def test_they_have_their_turns_in_order_and_few_wait(bench: Bench) -> None:
    bench.turns.budget.spend(BURST_S)
    waiting = [bench.tasks.spawn(bench.call(number), "a call") for number in range(WAITING)]
    await asyncio.sleep(0)
    assert bench.turns.refusal() == FULL
    assert not await bench.call(99)
    assert all(await asyncio.gather(*waiting))
    assert bench.served == [*range(WAITING)]
    assert bench.turns.refusal() is None and bench.turns.n_waiting == 0


async def test_who_leaves_while_it_waits_makes_room(bench: Bench) -> None:
    bench.turns.budget.spend(BURST_S)
    waiting = [bench.tasks.spawn(bench.call(number), "a call") for number in range(WAITING)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert bench.turns.refusal() is None
    await asyncio.gather(*waiting, return_exceptions=True)
    assert bench.served == [*range(1, WAITING)]


async def test_several_at_once_have_paid_before_they_are_served(bench: Bench) -> None:
    """Between their coming and their work others may have to be asked."""
    assert await bench.call()
    n_came = 0
    while not bench.turns.budget.wait_s:
        assert await bench.turns.come(bench.turns.work_s)
        n_came += 1
    assert n_came <= BURST_S / WORK_S


async def test_work_that_fails_is_paid(bench: Bench) -> None:
    def fail() -> bytes:
        bench.spent_s += 2 * BURST_S
        raise RuntimeError

    assert await bench.turns.come(0.0)
    with pytest.raises(RuntimeError):
        bench.turns.work(fail, 0.0)
    assert bench.turns.budget.wait_s == pytest.approx((BURST_S + CALL_S + STEP_S) / SHARE)
