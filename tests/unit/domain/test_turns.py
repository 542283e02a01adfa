"""Whose turn it is: shares of classes, turns of keys, and who makes room for whom."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.fairness import weights_of
from lbproxy.domain.queue import Ticket
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.turns import Turns
from tests.support.tickets import CallingTicket
from tests.support.turns_model import Model, Place

CTX = PickContext("192.0.2.1")


def ticket(share: str, rank: int = 0, expires_at: float = inf) -> Ticket:
    made = CallingTicket(CTX, lambda lease, now: None, lambda why: None, enqueued_at=0.0)
    made.rank, made.share, made.expires_at = rank, share.encode(), expires_at
    return made


def served(turns: Turns, count: int, *, is_newest_first: bool = False, now: float = 0.0) -> list[Ticket]:
    found = []
    for _ in range(count):
        item = turns.next(now, is_newest_first=is_newest_first)
        assert item is not None
        turns.drop(item)
        found.append(item)
    return found


def shares(tickets: list[Ticket]) -> str:
    return "".join(item.share.decode() for item in tickets)


def test_keys_take_turns_and_their_tickets_go_in_order() -> None:
    turns = Turns([1])
    waiting = [ticket(share) for share in "aaaabbc"]
    for item in waiting:
        turns.add(item)
    assert served(turns, 7) == [waiting[n] for n in (0, 4, 6, 1, 5, 2, 3)]
    assert turns.next(0.0, is_newest_first=False) is None


def test_newest_first_is_within_a_key() -> None:
    turns = Turns([1])
    waiting = [ticket(share) for share in "aaabb"]
    for item in waiting:
        turns.add(item)
    assert served(turns, 5, is_newest_first=True) == [waiting[n] for n in (2, 4, 1, 3, 0)]


def test_who_comes_new_waits_for_one_round_at_most() -> None:
    turns = Turns([1])
    for share in "abc" * 10:
        turns.add(ticket(share))
    served(turns, 4)
    turns.add(ticket("n"))
    assert "n" in shares(served(turns, 4))


def test_classes_have_their_shares_and_the_last_one_never_starves() -> None:
    turns = Turns(weights_of(3))
    for rank in range(3):
        for _ in range(200):
            turns.add(ticket("k", rank))
    first = Counter(item.rank for item in served(turns, 120))
    assert first == {0: 80, 1: 30, 2: 10}


def test_a_class_that_always_has_one_more_takes_no_more_than_its_share() -> None:
    """Its credit begins anew each time; that of those who wait does not."""
    turns = Turns(weights_of(3))
    for rank in (1, 2):
        for _ in range(100):
            turns.add(ticket("k", rank))
    counted: Counter[int] = Counter()
    turns.add(ticket("k", 0))
    for _ in range(120):
        (item,) = served(turns, 1)
        counted[item.rank] += 1
        if item.rank == 0:
            turns.add(ticket("k", 0))
    assert counted[2] >= 10 and counted[1] >= 30 and counted[0] >= 75


def test_a_key_in_two_classes_counts_once() -> None:
    turns = Turns([1, 1])
    both = [ticket("k", 0), ticket("k", 1)]
    for item in (*both, ticket("other", 1)):
        turns.add(item)
    assert turns.n_keys == 2
    turns.drop(both[0])
    assert turns.n_keys == 2
    turns.drop(both[1])
    assert turns.n_keys == 1


def test_what_is_late_is_passed_over_and_costs_no_turn() -> None:
    turns = Turns([1])
    late, good, other = ticket("a", expires_at=1.0), ticket("a"), ticket("b")
    for item in (late, good, other):
        turns.add(item)
    assert served(turns, 2, now=1.0) == [good, other]
    turns.drop(late)  # by who tells it
    assert turns.n_keys == 0


def test_who_was_served_out_of_turn_has_had_its_turn() -> None:
    turns = Turns([1])
    first, second, other = ticket("a"), ticket("a"), ticket("b")
    for item in (first, second, other):
        turns.add(item)
    turns.served(first)
    turns.drop(first)
    assert served(turns, 2) == [other, second]


def test_a_flood_makes_room_and_who_has_little_is_let_in() -> None:
    turns = Turns([1])
    waiting = [ticket(share) for share in "aaaab"]
    for item in waiting:
        turns.add(item)
    assert turns.who_makes_room(0, b"b") is waiting[3]
    assert turns.who_makes_room(0, b"new") is waiting[3]
    assert turns.who_makes_room(0, b"a") is None


def test_among_equals_nobody_makes_room() -> None:
    turns = Turns([1])
    for share in "aabb":
        turns.add(ticket(share))
    assert turns.who_makes_room(0, b"a") is None
    assert turns.who_makes_room(0, b"c") is not None  # it would have one, and they have two
    turns = Turns([1])
    for share in "abcd":
        turns.add(ticket(share))
    assert turns.who_makes_room(0, b"e") is None


def test_a_class_above_its_share_makes_room_for_another_in_both_directions() -> None:
    turns = Turns(weights_of(3))
    for _ in range(24):
        turns.add(ticket("k", 2))
    assert turns.who_makes_room(0, b"k") is not None and turns.who_makes_room(2, b"k") is None
    turns = Turns(weights_of(3))
    for _ in range(24):
        turns.add(ticket("k", 0))
    found = turns.who_makes_room(2, b"k")
    assert found is not None and found.rank == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "next", "newest", "drop", "room"]),
        st.integers(0, 2),
        st.sampled_from("abcd"),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 3))
def test_turns_are_those_of_the_model(steps: list[tuple[str, int, str, int]], n_classes: int) -> None:
    turns, model = Turns(weights_of(n_classes)), Model(weights_of(n_classes))
    known: dict[Place, Ticket] = {}
    for number, (what, rank, share, at) in enumerate(steps):
        rank %= n_classes
        if what == "add":
            place = rank, share.encode(), number
            known[place] = ticket(share, rank)
            turns.add(known[place])
            model.add(place)
        elif what in ("next", "newest"):
            found = turns.next(0.0, is_newest_first=what == "newest")
            expected = model.next(is_newest_first=what == "newest")
            assert found is (None if expected is None else known[expected])
            if expected is not None and found is not None:
                turns.drop(found)
                model.drop(expected)
        elif what == "drop" and model.waiting:
            gone = model.waiting[at % len(model.waiting)]
            turns.drop(known[gone])
            model.drop(gone)
        elif what == "room":
            crowded = turns.who_makes_room(rank, share.encode())
            may_be = [known[place] for place in model.making_room(rank, share.encode())]
            assert crowded in may_be if may_be else crowded is None
        assert turns.by_class() == [len(model.in_class(rank)) for rank in range(n_classes)]
        assert turns.n_keys == len({key for ring in model.rings for key in ring})


@pytest.mark.parametrize("n_classes", [1, 3])
def test_nothing_is_kept_of_who_does_not_wait(n_classes: int) -> None:
    turns = Turns(weights_of(n_classes))
    for number in range(5000):
        item = ticket(f"k{number}", number % n_classes)
        turns.add(item)
        turns.drop(item)
    assert all(not ring.flows and not ring.by_length and not ring.n for ring in turns._rings)
