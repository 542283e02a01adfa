"""Who waits for one server: in order, counted with those who wait for any, and not for ever."""

from __future__ import annotations

from lbproxy.domain.kept_line import KeptLine
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.strategies.base import PickContext
from tests.unit.domain.strategies.helpers import make_servers


def ticket(until: float) -> Ticket:
    made = Ticket(PickContext("192.0.2.1"), enqueued_at=0.0)
    made.expires_at = until
    return made


def test_first_come_first_served_at_each_server() -> None:
    a, b = make_servers([1, 1])
    line, queue = KeptLine(), WaitQueue(size=9)
    tickets = [ticket(9.0) for _ in range(3)]
    assert line.is_empty
    assert all(line.push(server, item, queue) for server, item in zip((a, b, a), tickets, strict=True))
    assert len(queue) == 3 and line.servers() == [a, b]
    assert line.first(a) is tickets[0] and line.first(b) is tickets[1]
    line.take(a, queue)
    assert line.first(a) is tickets[2] and not tickets[0].is_waiting
    line.take(a, queue)
    assert line.first(a) is None and line.servers() == [b] and len(queue) == 1


def test_no_more_than_the_queue_may_have() -> None:
    (a,) = make_servers([1])
    line, queue = KeptLine(), WaitQueue(size=1)
    assert queue.push(ticket(9.0), 0.0)
    assert not line.push(a, ticket(9.0), queue)
    assert line.is_empty


def test_who_left_is_passed_over() -> None:
    (a,) = make_servers([1])
    line, queue = KeptLine(), WaitQueue()
    gone, other = ticket(9.0), ticket(9.0)
    line.push(a, gone, queue)
    line.push(a, other, queue)
    queue.remove(gone)
    assert line.first(a) is other and len(queue) == 1
    queue.remove(other)
    assert line.late(0.0, queue) == [] and line.is_empty and len(queue) == 0


def test_who_is_late_is_told_once() -> None:
    a, b = make_servers([1, 1])
    line, queue = KeptLine(), WaitQueue()
    early, late, other = ticket(1.0), ticket(5.0), ticket(2.0)
    for server, item in ((a, late), (a, early), (b, other)):
        line.push(server, item, queue)
    assert line.late(2.0, queue) == [early, other]
    assert line.late(2.0, queue) == [] and len(queue) == 1 and line.servers() == [a]
