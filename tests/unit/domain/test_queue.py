from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.queue import INTERVAL_S, TARGET_S, Ticket, WaitQueue
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")


def ticket(at: float, deadline_at: float = float("inf")) -> Ticket:
    return CallingTicket(CTX, lambda lease, now: None, lambda reason: None, enqueued_at=at, deadline_at=deadline_at)


def pushed(queue: WaitQueue, at: float, deadline_at: float = float("inf")) -> Ticket:
    item = ticket(at, deadline_at)
    assert queue.push(item, at)
    return item


def standing(queue: WaitQueue, until: float = 2.0) -> list[Ticket]:
    """A queue that has stood since 0, with a client that gave up at the end. One ticket every tenth of a second."""
    tickets = [pushed(queue, i / 10) for i in range(int(until * 10))]
    for i in range(int(until * 10)):
        queue.expire(i / 10)
    queue.client_left(until)
    return tickets


def test_first_come_first_served() -> None:
    queue = WaitQueue()
    a, b, c = (pushed(queue, i / 100) for i in range(3))
    assert [queue.pop(0.1) for _ in range(4)] == [a, b, c, None]
    assert not a.is_waiting


def test_full() -> None:
    queue = WaitQueue(size=2)
    first = pushed(queue, 0.0)
    pushed(queue, 0.0)
    late = ticket(0.0)
    assert not queue.push(late, 0.0)
    assert not late.is_waiting
    queue.remove(first)
    assert queue.push(late, 0.0)


def test_a_size_of_0_is_always_full() -> None:
    assert not WaitQueue(size=0).push(ticket(0.0), 0.0)


def test_who_left_is_passed_over_and_not_counted() -> None:
    queue = WaitQueue()
    a, b = pushed(queue, 0.0), pushed(queue, 0.0)
    queue.remove(a)
    queue.remove(a)
    assert len(queue) == 1
    assert queue.pop(0.0) is b
    assert len(queue) == 0


def test_removing_a_served_ticket_changes_nothing() -> None:
    queue = WaitQueue()
    a, b = pushed(queue, 0.0), pushed(queue, 0.0)
    assert queue.pop(0.0) is a
    queue.remove(a)
    assert len(queue) == 1
    assert b.is_waiting


def test_late_tickets_are_refused_and_never_served() -> None:
    queue = WaitQueue(timeout_s=10.0)
    slow, hasty = pushed(queue, 0.0), pushed(queue, 0.0, deadline_at=3.0)
    third = pushed(queue, 5.0)
    assert queue.expire(2.9) == []
    assert queue.pop(10.0) is third
    assert queue.expire(10.0) == [hasty, slow]
    assert queue.pop(10.0) is None
    assert len(queue) == 0


def test_newest_first_while_a_standing_queue_persists() -> None:
    queue = WaitQueue()
    tickets = standing(queue)
    assert queue.pop(2.0) is tickets[-1]
    newer = pushed(queue, 2.1)
    assert queue.pop(2.1) is newer
    assert queue.pop(2.1) is tickets[-2]


def test_first_come_first_served_is_back_when_the_wait_is_short() -> None:
    queue = WaitQueue()
    for item in standing(queue):
        queue.remove(item, 2.0)
    a, b = pushed(queue, 2.0), pushed(queue, 2.05)
    assert queue.pop(2.1) is a
    assert queue.pop(2.1) is b


def test_fifo_stays_fifo() -> None:
    queue = WaitQueue(order="fifo")
    tickets = [pushed(queue, i / 10) for i in range(20)]
    for i in range(20):
        queue.expire(i / 10)
    queue.client_left(2.0)
    assert queue.pop(2.0) is tickets[0]


def test_a_wait_alone_does_not_change_the_order() -> None:
    """Everybody is served in time: the order could only make the tail longer."""
    queue = WaitQueue()
    tickets = [pushed(queue, i / 10) for i in range(20)]
    for i in range(20):
        queue.expire(i / 10)
    assert queue.pop(2.0) is tickets[0]


def test_a_burst_is_no_standing_queue() -> None:
    queue = WaitQueue()
    a, b = pushed(queue, 0.0), pushed(queue, TARGET_S)
    queue.client_left(TARGET_S + 0.01)  # above the target since now
    assert queue.pop(TARGET_S + 0.9 * INTERVAL_S) is a
    assert queue.pop(TARGET_S + 0.9 * INTERVAL_S) is b


def test_unknown_order() -> None:
    with pytest.raises(ValueError, match="adaptive or fifo, not 'lifo'"):
        WaitQueue(order="lifo")


def test_retry_after_follows_the_drain_rate() -> None:
    queue = WaitQueue(timeout_s=30.0, order="fifo")
    for i in range(130):
        pushed(queue, i / 1000)
    for i in range(50):
        queue.pop(0.2 * (i + 1))  # 5 a second for 10 seconds
    assert queue.retry_after_s(10.0) == 16  # 80 wait
    for _ in range(50):
        queue.pop(10.1)
    assert queue.retry_after_s(10.1) in range(1, 7)


def test_retry_after_is_within_1_and_60() -> None:
    queue = WaitQueue(timeout_s=1000.0)
    assert queue.retry_after_s(0.0) == 1
    pushed(queue, 0.0)
    assert queue.retry_after_s(0.1) == 60  # nothing known yet: the time-out, at most 60
    assert queue.retry_after_s(20.0) == 60  # nothing drains
    assert WaitQueue(timeout_s=7.0).retry_after_s(0.0) == 1


def test_retry_after_of_a_fresh_queue_is_its_time_out() -> None:
    queue = WaitQueue(timeout_s=7.0)
    pushed(queue, 0.0)
    assert queue.retry_after_s(0.1) == 7


def test_a_queue_that_got_stuck_does_not_promise_the_rate_of_better_days() -> None:
    queue = WaitQueue(timeout_s=1000.0, order="fifo")
    for _ in range(100):
        pushed(queue, 0.0)
    for i in range(60):
        queue.pop(i / 10)
    assert queue.retry_after_s(6.0) == 4
    assert queue.retry_after_s(300.0) == 60


def test_tickets_that_left_do_not_pile_up() -> None:
    queue = WaitQueue(timeout_s=1e9)
    stays = pushed(queue, 0.0)
    for i in range(10_000):
        queue.remove(pushed(queue, i / 1000), i / 1000)
    assert len(queue._by_expiry) < 200
    assert len(queue._arrivals) < 200
    assert queue.pop(10.0) is stays


STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "push", "pop", "remove", "expire", "left"]), st.integers(0, 50)), max_size=120
)


@given(STEPS, st.sampled_from(["adaptive", "fifo"]), st.integers(0, 12))
def test_every_ticket_leaves_exactly_once(steps: list[tuple[str, int]], order: str, size: int) -> None:
    queue = WaitQueue(size, 2.0, order)
    now = 0.0
    inside: list[Ticket] = []
    for what, number in steps:
        now += number / 100
        if what == "push":
            item = ticket(now, now + number / 10 if number % 3 == 0 else float("inf"))
            assert queue.push(item, now) == (len(inside) < size)
            if item.is_waiting:
                inside.append(item)
        elif what == "pop":
            popped = queue.pop(now)
            in_time = [item for item in inside if item.expires_at > now]
            assert (popped is None) == (not in_time)
            if popped is not None:
                assert popped in ((in_time[0],) if order == "fifo" else (in_time[0], in_time[-1]))
                inside.remove(popped)
        elif what == "remove" and inside:
            queue.remove(inside.pop(number % len(inside)), now)
        elif what == "expire":
            late = queue.expire(now)
            assert set(late) == {item for item in inside if item.expires_at <= now}
            inside = [item for item in inside if item not in late]
        elif what == "left":
            queue.client_left(now)
        assert len(queue) == len(inside)
        assert all(item.is_waiting for item in inside)
        assert 1 <= queue.retry_after_s(now) <= 60
