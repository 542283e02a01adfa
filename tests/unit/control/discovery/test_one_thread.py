import asyncio
import threading

import pytest

from lbproxy.control.discovery.one_thread import OneThread


async def test_work_is_done_in_another_thread() -> None:
    thread = OneThread("work", 60.0)
    assert await thread(threading.current_thread) is not threading.current_thread()
    assert await thread(lambda: 5) == 5


async def test_what_it_raises_is_raised() -> None:
    def work() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await OneThread("work", 60.0)(work)


async def test_a_time_out_of_the_work_itself_is_told_as_it_is() -> None:
    def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await OneThread("work", 60.0)(work)


async def test_who_hangs_holds_one_thread() -> None:
    thread, end = OneThread("work", 0.0), threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        await thread(end.wait)
    with pytest.raises(TimeoutError, match="what was asked before"):
        await thread(end.wait)
    assert [item.name for item in threading.enumerate()].count("work") == 1
    end.set()
    thread._timeout_s = 60.0
    for item in threading.enumerate():
        if item.name == "work":
            await asyncio.to_thread(item.join)
    await asyncio.sleep(0)
    assert await thread(lambda: "well") == "well"
