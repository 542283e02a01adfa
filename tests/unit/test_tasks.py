"""Tasks with an owner: crashes are told at once, and the end cancels what is left and waits for it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lbproxy.tasks import Tasks


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def crash() -> None:
    raise ZeroDivisionError("on purpose")


async def test_a_task_is_kept_while_it_runs() -> None:
    tasks = Tasks()
    event = asyncio.Event()
    task = tasks.spawn(event.wait(), "waiting")
    assert (len(tasks), task.get_name()) == (1, "waiting")
    event.set()
    await task
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_crash_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[BaseException] = []
    tasks = Tasks(crashes.append)
    with caplog.at_level(logging.ERROR, "lbproxy"), pytest.raises(ZeroDivisionError):
        await tasks.spawn(crash(), "the name")
    await asyncio.sleep(0)
    assert [type(error) for error in crashes] == [ZeroDivisionError]
    assert caplog.messages == ["task the name crashed"]
    assert caplog.records[0].exc_info is not None
    assert len(tasks) == 0


async def test_the_end_cancels_and_waits_even_for_one_that_cleans_up() -> None:
    crashes: list[BaseException] = []
    tasks = Tasks(crashes.append)
    done: list[str] = []

    async def careful() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    tasks.spawn(careful(), "careful")
    tasks.spawn(forever(), "forever")
    await asyncio.sleep(0)
    await tasks.cancel_all()
    assert done == ["cleaned up"] and crashes == []
    await asyncio.sleep(0)
    assert len(tasks) == 0
    await tasks.cancel_all()


async def test_one_that_loses_its_cancellation_is_named_and_cancelled_again(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    lost: list[str] = []

    async def deaf() -> None:
        while len(lost) < 3:
            try:
                await forever()
            except asyncio.CancelledError:
                lost.append("a cancellation")
        await forever()

    task = tasks.spawn(deaf(), "deaf")
    await asyncio.sleep(0)
    await tasks.cancel_all(patience_s=0.001)
    assert task.cancelled() and len(lost) == 3
    assert caplog.messages == ["task deaf still runs 0.001 s after it was cancelled; again"] * 3


async def test_a_crash_does_not_cancel_the_others() -> None:
    tasks = Tasks(lambda error: None)
    other = tasks.spawn(forever(), "other")
    with pytest.raises(ZeroDivisionError):
        await tasks.spawn(crash(), "crash")
    assert not other.done()
    await tasks.cancel_all()
