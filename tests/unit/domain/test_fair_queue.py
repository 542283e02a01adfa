"""A queue with rules: turns by key and class, room for who has little, and what a reload does to who waits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import INTERVAL_S, TARGET_S, Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.request_key import read_key
from tests.support.tickets import CallingTicket

BY_CLIENT = FairRules(read_key("client_ip"))


def ticket(client: str, at: float = 0.0, deadline_at: float = float("inf")) -> Ticket:
    return CallingTicket(
        PickContext(client), lambda lease, now: None, lambda why: None, enqueued_at=at, deadline_at=deadline_at
    )


def pushed(queue: WaitQueue, client: str, at: float = 0.0) -> Ticket:
    item = ticket(client, at)
    assert queue.push(item, at)
    return item


def clients(queue: WaitQueue, now: float) -> str:
    found = ""
    while (item := queue.pop(now)) is not None:
        found += item.ctx.client_ip
    return found


def filled(queue: WaitQueue, letters: str) -> WaitQueue:
    for number, client in enumerate(letters):
        pushed(queue, client, number / 1000)
    return queue


def test_keys_take_turns() -> None:
    assert clients(filled(WaitQueue(rules=BY_CLIENT), "aaaabbc"), 0.01) == "abcabaa"


def test_a_queue_without_rules_has_no_turns() -> None:
    queue = filled(WaitQueue(), "aab")
    assert (queue.by_class(), queue.n_keys(), queue._turns) == ([], None, None)
    assert clients(queue, 0.01) == "aab"


def test_who_waits_is_told_by_class_and_key() -> None:
    queue = filled(WaitQueue(rules=FairRules(read_key("client_ip"), "x-p", ("high", "low"))), "aab")
    assert queue.by_class() == [("high", 0), ("low", 3)]
    assert queue.n_keys() == 2
    assert filled(WaitQueue(rules=FairRules(None, "x-p", ("high", "low"))), "a").n_keys() is None


def test_a_flood_pushes_out_its_own_newest() -> None:
    queue = filled(WaitQueue(size=4, rules=BY_CLIENT), "aaa")
    last = pushed(queue, "a", 0.01)
    light = pushed(queue, "b", 0.02)
    assert queue.take_crowded_out() is last and queue.take_crowded_out() is None
    assert not last.is_waiting and light.is_waiting and len(queue) == 4
    assert not queue.push(ticket("a", 0.03), 0.03)
    assert clients(queue, 0.04) == "abaa"


def test_who_left_before_it_heard_that_it_was_pushed_out_hears_nothing() -> None:
    queue = filled(WaitQueue(size=2, rules=BY_CLIENT), "a")
    last = pushed(queue, "a")
    pushed(queue, "b")
    queue.remove(last, 0.1)
    assert queue.take_crowded_out() is None


@pytest.mark.parametrize("size", [0, 1])
def test_a_queue_that_is_longer_than_it_may_be_takes_nobody(size: int) -> None:
    queue = filled(WaitQueue(size=4, rules=BY_CLIENT), "aaa")
    queue.reconfigure(size, 10.0, "fifo", BY_CLIENT)
    assert not queue.push(ticket("b"), 0.1)
    assert len(queue) == 3 and not queue.crowded_out


def test_the_newest_of_each_key_goes_first_while_the_queue_stands() -> None:
    queue = WaitQueue(timeout_s=60.0, rules=BY_CLIENT)
    for number in range(3):
        pushed(queue, "a", number / 1000)
    now = TARGET_S + 0.1
    queue.client_left(now)
    now += INTERVAL_S + 0.01
    newest, light = pushed(queue, "a", now), pushed(queue, "b", now)
    queue.client_left(now)
    assert queue.is_newest_first
    assert [queue.pop(now), queue.pop(now)] == [newest, light]


def test_whoever_is_late_is_told_and_has_no_turn() -> None:
    queue = WaitQueue(timeout_s=1.0, rules=BY_CLIENT)
    late = pushed(queue, "a", 0.0)
    good = pushed(queue, "a", 0.5)
    assert queue.pop(1.2) is good
    assert queue.expire(1.2) == [late]
    assert (len(queue), queue.n_keys()) == (0, 0)


def test_the_oldest_is_taken_out_of_turn_where_only_a_held_slot_is_free() -> None:
    queue = filled(WaitQueue(rules=BY_CLIENT), "aab")
    first = queue.pop_urgent(3.0, longest_s=2.0, needed_s=0.1)
    assert first is not None and first.ctx.client_ip == "a"
    assert clients(queue, 3.0) == "ba"


@pytest.mark.parametrize("before", [None, BY_CLIENT, FairRules(read_key("path"))])
def test_who_waits_stays_when_the_rules_come_change_or_go(before: FairRules | None) -> None:
    queue = filled(WaitQueue(rules=before), "aaab")
    queue.reconfigure(100, 10.0, "adaptive", BY_CLIENT)
    assert (len(queue), queue.n_keys()) == (4, 2)
    first = queue.pop(0.01)
    assert first is not None and first.ctx.client_ip == "a"
    queue.reconfigure(100, 10.0, "adaptive", None)
    assert clients(queue, 0.01) == "aab"


def test_the_same_rules_leave_the_turns_as_they_are() -> None:
    queue = filled(WaitQueue(rules=BY_CLIENT), "aab")
    queue.pop(0.01)
    queue.reconfigure(100, 10.0, "adaptive", FairRules(read_key("client_ip")))
    assert clients(queue, 0.01) == "ba"


def test_what_is_certainly_ahead_of_a_newcomer() -> None:
    queue = filled(WaitQueue(rules=BY_CLIENT), "aaaab")
    assert queue.n_ahead == 2
    queue = filled(WaitQueue(rules=FairRules(None, "x-p", ("high", "low"))), "aaaab")
    assert queue.n_ahead == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pop", "urgent", "remove", "expire", "left", "rules"]),
        st.integers(0, 50),
        st.sampled_from("abc"),
    ),
    max_size=100,
)


@given(STEPS, st.sampled_from(["adaptive", "fifo"]), st.integers(0, 9))
def test_every_ticket_leaves_exactly_once(steps: list[tuple[str, int, str]], order: str, size: int) -> None:
    """And a full queue has no more of anybody than it must."""
    all_rules = [None, BY_CLIENT, FairRules(read_key("client_ip"), "x-p", ("high", "low"))]
    queue = WaitQueue(size, 2.0, order, BY_CLIENT)
    now = 0.0
    inside: list[Ticket] = []
    for what, number, client in steps:
        now += number / 100
        if what == "push":
            item = ticket(client, now, now + number / 10 if number % 3 == 0 else float("inf"))
            if queue.push(item, now):
                inside.append(item)
            while (gone := queue.take_crowded_out()) is not None:
                assert gone is not item
                inside.remove(gone)
        elif what in ("pop", "urgent"):
            popped = queue.pop(now) if what == "pop" else queue.pop_urgent(now, 0.5, 0.1)
            in_time = [item for item in inside if item.expires_at > now]
            assert popped in in_time if popped is not None else what == "urgent" or not in_time
            if popped is not None:
                inside.remove(popped)
        elif what == "remove" and inside:
            queue.remove(inside.pop(number % len(inside)), now)
        elif what == "expire":
            late = queue.expire(now)
            assert set(late) == {item for item in inside if item.expires_at <= now}
            inside = [item for item in inside if item not in late]
        elif what == "left":
            queue.client_left(now)
        elif what == "rules":
            queue.reconfigure(size, 2.0, order, all_rules[number % 3])
        assert len(queue) == len(inside) <= size
        assert all(item.is_waiting for item in inside)
        if queue._turns is not None:
            assert sum(queue._turns.by_class()) <= len(inside)


# --- in a pool ------------------------------------------------------------------------------------------------------


class Site:
    """One server with one slot. heard: what was said to whom."""

    def __init__(self, size: int) -> None:
        rng = random.Random(1)
        server = Server("s", Address("10.0.0.1", 1), max_inflight=1)
        queue = WaitQueue(size, 10.0, "fifo", BY_CLIENT)
        self.pool = Pool("p", [server], create("least_connections", {}, rng), create("random", {}, rng), queue=queue)
        self.heard: list[str] = []
        self.leases: list[Lease] = []
        self.again: list[str] = []

    def ask(self, client: str, now: float) -> None:
        found = self.pool.acquire(PickContext(client), (), now)
        if isinstance(found, Lease):
            self.granted(client, found)
            return
        assert found is Refusal.FULL
        item = CallingTicket(
            PickContext(client),
            lambda lease, at: self.granted(client, lease),
            lambda why: self.refused(client, why, now),
            enqueued_at=now,
        )
        if self.pool.enqueue(item, now):
            self.pool.tell_crowded_out()
        else:
            self.heard.append(f"{client} full")

    def granted(self, client: str, lease: Lease) -> None:
        self.heard.append(client)
        self.leases.append(lease)

    def refused(self, client: str, why: str, now: float) -> None:
        self.heard.append(f"{client} {why}")
        if self.again:
            self.ask(self.again.pop(0), now)


def test_who_is_pushed_out_hears_so_and_may_ask_again_at_once() -> None:
    site = Site(3)
    for client in "aaaa":
        site.ask(client, 0.0)
    site.again = ["a", "c"]
    site.ask("b", 0.1)
    assert site.heard == ["a", "a crowded", "a full"]
    site.ask("c", 0.2)
    assert site.heard[3:] == ["a crowded", "c full"]  # all have one each
    for _ in range(3):
        site.leases[-1].release(Outcome.SUCCESS, 1.0)
    assert site.heard[5:] == ["a", "b", "c"]


def test_a_chain_of_such_does_not_recurse() -> None:
    site = Site(2000)
    for _ in range(2001):
        site.ask("a", 0.0)
    site.again = [f"c{number}" for number in range(1500)]
    site.ask("b", 0.1)
    assert site.heard.count("a crowded") == 1501


def test_the_sweep_tells_who_was_not_told() -> None:
    site = Site(1)
    site.ask("a", 0.0)
    queue = site.pool.queue
    assert queue is not None
    heard: list[str] = []
    for client in ("a", "b"):
        item = CallingTicket(PickContext(client), lambda lease, now: None, heard.append, enqueued_at=0.1)
        site.pool.enqueue(item, 0.1)
    assert not queue.crowded_out  # one each
    queue.reconfigure(2, 10.0, "fifo", BY_CLIENT)
    for client in ("a", "b"):
        item = CallingTicket(PickContext(client), lambda lease, now: None, heard.append, enqueued_at=0.1)
        site.pool.enqueue(item, 0.1)
    site.pool.sweep(0.2)
    assert heard == ["crowded"] and not queue.crowded_out
