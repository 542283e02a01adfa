"""Blocking calls in threads that the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lbproxy.process.threads import DaemonThreads, new_loop


def test_results_and_errors_come_back() -> None:
    threads = DaemonThreads()
    assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
    assert threads.submit(int, "z", base=36).result(10) == 35
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(10)
    with pytest.raises(SystemExit):
        threads.submit(exit_, 3).result(10)
    assert threads.submit(threading.current_thread).result(10).daemon


def exit_(status: int) -> None:
    raise SystemExit(status)


@pytest.mark.parametrize("most", [1, 3])
def test_so_many_are_at_work_and_the_others_have_their_turn_in_order(most: int) -> None:
    threads, release, begun = DaemonThreads(most), threading.Event(), threading.Semaphore(0)
    order: list[int] = []

    def hang() -> bool:
        begun.release()
        return release.wait(10)

    hanging = [threads.submit(hang) for _ in range(most)]
    assert all(begun.acquire(timeout=10) for _ in hanging)
    later = [threads.submit(order.append, number) for number in range(4)]
    assert (len(threads._waiting), order) == (4, [])
    release.set()
    for done in later:
        done.result(10)
    assert [done.result(10) for done in hanging] == [True] * most
    assert sorted(order) == [0, 1, 2, 3]
    if most == 1:
        assert order == [0, 1, 2, 3]


def test_who_has_left_does_not_wait_on() -> None:
    """However often somebody asks while all threads hang."""
    threads, release = DaemonThreads(most=1), threading.Event()
    hangs = threads.submit(release.wait, 10)
    for _ in range(100):
        threads.submit(print).cancel()
    assert len(threads._waiting) <= 2
    release.set()
    assert hangs.result(10) is True


def test_the_shutdown_waits_for_nobody() -> None:
    threads, release = DaemonThreads(most=1), threading.Event()
    begun = threading.Event()

    def call() -> str:
        begun.set()
        release.wait(10)
        return "late"

    hangs = threads.submit(call)
    assert begun.wait(10)
    waits = threads.submit(print)
    threads.shutdown(wait=True)
    assert waits.cancelled() and not hangs.done()
    with pytest.raises(RuntimeError, match="about to end"):
        threads.submit(print)
    release.set()
    assert hangs.result(10) == "late"


def test_a_loop_ends_although_a_call_hangs() -> None:
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(60)

    async def run() -> str:
        hanging = asyncio.get_running_loop().create_task(asyncio.to_thread(hang))
        await asyncio.to_thread(begun.wait, 10)
        hanging.cancel()
        return await asyncio.to_thread("done".upper)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == "DONE"
    assert not release.is_set()
    release.set()
