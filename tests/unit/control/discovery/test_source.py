"""What all sources share."""

from __future__ import annotations

import asyncio

import pytest

from lbproxy.control.discovery import source
from lbproxy.control.discovery.source import Answer, Polled, Source


async def test_a_pause_ends_early_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MIN_GAP_S", 0.0)
    woken = asyncio.Event()
    woken.set()
    async with asyncio.timeout(5.0):
        await source.pause(woken, 3600.0)
    assert not woken.is_set()


async def test_a_pause_ends_when_its_time_is_over() -> None:
    woken = asyncio.Event()
    async with asyncio.timeout(5.0):
        await source.pause(woken, 0.0)


async def test_nobody_looks_more_often_than_the_gap_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    woken = asyncio.Event()
    woken.set()
    await source.pause(woken, 60.0)
    assert slept == [source.MIN_GAP_S]


async def test_what_is_polled_says_what_it_found_each_time() -> None:
    class Counting(Polled):
        n_looks = 0

        async def look(self) -> Answer | None:
            self.n_looks += 1
            self.wait_s = float(self.n_looks)
            return None if self.n_looks == 2 else []

    waits: list[float] = []

    async def pause(woken: asyncio.Event, wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 3:
            raise asyncio.CancelledError

    heard: list[Answer] = []
    with pytest.raises(asyncio.CancelledError):
        await Counting("c", "c", pause).watch(heard.append)
    assert (waits, heard) == ([1.0, 2.0, 3.0], [[], []])


def test_a_source_has_words_for_what_it_does() -> None:
    made = Source("x:1", "the source")
    assert made.failed("no answer") == "the source: no answer"
    assert made.stays() == "the source has it"
    made.wake()
    assert made.woken.is_set()


async def _rounds(woken: asyncio.Event) -> None:
    while True:
        await source.pause(woken, 1e6)


async def test_a_cancellation_that_comes_with_a_wake_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MIN_GAP_S", 0.0)
    for n_turns in range(6):
        woken = asyncio.Event()
        watching = asyncio.get_running_loop().create_task(_rounds(woken))
        for _ in range(5):
            await asyncio.sleep(0)
        woken.set()
        for _ in range(n_turns):
            await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait([watching], timeout=0.05)
        assert watching.cancelled(), f"{n_turns} turns after the wake"
