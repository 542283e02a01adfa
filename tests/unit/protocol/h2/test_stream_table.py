"""Streams by their numbers: as a dictionary would have them, whatever numbers come."""

from __future__ import annotations

import random

import pytest

from lbproxy.protocol.h2.codes import MAX_STREAM_ID
from lbproxy.protocol.h2.stream_table import FEWEST, MOST, StreamTable


def made(*numbers: int) -> StreamTable[str]:
    table: StreamTable[str] = StreamTable()
    for number in numbers:
        table.put(number, str(number))
    return table


def test_what_was_put_in_is_found_until_it_is_taken_out() -> None:
    table = made(1, 3, 5)
    assert (table.get(3), table.get(7), table.get(0), table.get(2)) == ("3", None, None, None)
    assert (table.pop(3), table.pop(3), table.get(3), len(table)) == ("3", None, None, 2)
    assert table.items() == [(1, "1"), (5, "5")] and table.values() == ["1", "5"] and table.numbers() == [1, 5]
    table.clear()
    assert not table and table.items() == [] and table.get(1) is None


@pytest.mark.parametrize("first", [1, 2, 3, MAX_STREAM_ID - 2 * MOST - 1])
def test_any_number_of_them(first: int) -> None:
    numbers = list(range(first, first + 4 * MOST, 2))[: 2 * MOST]
    table = made(*numbers)
    assert table.numbers() == numbers and len(table) == len(numbers)
    assert len(table._places) == MOST
    for number in numbers:
        assert table.get(number) == str(number) and table.get(number - 2 * len(numbers)) is None
    for number in reversed(numbers):
        assert table.pop(number) == str(number)
    assert table.count == 0 and not table._others


def test_one_that_stays_open_costs_no_place_of_others() -> None:
    """Each takes the place of one that is still there sooner or later; that makes no larger table."""
    table = made(1)
    for number in range(3, 8 * FEWEST, 2):
        table.put(number, str(number))
        assert (table.get(1), table.get(number)) == ("1", str(number))
        assert table.pop(number) == str(number)
    assert len(table._places) == FEWEST and not table._others


def test_the_last_place_is_taken_twice() -> None:
    table = made(1, 1 + 2 * FEWEST)
    assert (table.get(1), table.get(1 + 2 * FEWEST)) == ("1", str(1 + 2 * FEWEST))
    assert table.pop(1) == "1"
    assert table.get(1 + 2 * FEWEST) == str(1 + 2 * FEWEST) and table.get(1) is None
    table.put(1 + 4 * FEWEST, "third")
    assert [table.pop(1 + 2 * at * FEWEST) for at in (0, 1, 2)] == [None, str(1 + 2 * FEWEST), "third"]
    assert table.count == 0


@pytest.mark.parametrize("seed", range(20))
def test_as_a_dictionary(seed: int) -> None:
    rng = random.Random(seed)
    table: StreamTable[object] = StreamTable()
    known: dict[int, object] = {}
    latest = 1
    most = rng.choice((3, 20, 400))
    for _ in range(3000):
        if len(known) < most and rng.random() < 0.6:
            latest += 2 * rng.choice((1, 1, 1, 1, 1, 40))
            table.put(latest, item := object())
            known[latest] = item
        else:
            number = rng.choice(list(known)) if known and rng.random() < 0.9 else rng.randrange(1, latest + 9)
            assert table.pop(number) is known.pop(number, None)
        number = rng.randrange(1, latest + 9)
        assert table.get(number) is known.get(number)
        assert len(table) == table.count == len(known)
    assert table.items() == list(known.items())
