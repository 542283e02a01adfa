"""Which pool takes a request of a split."""

from __future__ import annotations

import random

import pytest

from lbproxy.domain.splitting import MOST_POOLS, Split


def split(**given: int) -> Split:
    return Split(tuple(given), tuple(given.values()), None, [0] * (MOST_POOLS + 3), 3)


def owners(what: Split, n: int = 4000) -> list[int]:
    return [what.pick(b"user-%d" % number, 0.0) for number in range(n)]


def test_chance_decides_in_proportion() -> None:
    what = split(stable=95, canary=5)
    assert [what.pick(b"", chance) for chance in (0.0, 0.5, 0.9499, 0.95, 0.9999)] == [0, 0, 0, 1, 1]


def test_a_pool_with_no_share_gets_nothing() -> None:
    what = split(a=0, b=1, c=0)
    assert {what.pick(b"", number / 100) for number in range(100)} == {1}
    assert set(owners(what, 200)) == {1}
    assert split(a=1, b=0).pick(b"", 1.0 - 2**-53) == 0


def test_any_scale_of_shares_is_the_same() -> None:
    for number in range(100):
        assert split(a=95, b=5).pick(b"", number / 100) == split(a=19, b=1).pick(b"", number / 100)


@pytest.mark.parametrize("shares", [(50, 50), (95, 5), (1, 2, 3)])
def test_keys_are_shared_out_in_proportion(shares: tuple[int, ...]) -> None:
    what = Split([f"p{number}" for number in range(len(shares))], shares, None, [0] * 16, 0)
    found = owners(what, 20_000)
    for number, share in enumerate(shares):
        assert found.count(number) / len(found) == pytest.approx(share / sum(shares), abs=0.012)


def test_a_key_has_its_pool_whatever_chance_says() -> None:
    what = split(a=1, b=1)
    rng = random.Random(1)
    for number in range(50):
        assert len({what.pick(b"k%d" % number, rng.random()) for _ in range(5)}) == 1


def test_the_order_of_the_pools_and_the_process_do_not_matter() -> None:
    one, other = split(a=3, b=1), split(b=1, a=3)
    assert [one.names[number] for number in owners(one, 300)] == [other.names[number] for number in owners(other, 300)]
    assert owners(split(stable=1, canary=1), 8) == [0, 0, 1, 0, 1, 1, 1, 1]


def test_a_share_that_grows_only_draws_keys() -> None:
    what = split(a=50, b=40, c=10)
    before = owners(what)
    what.set((50, 40, 30))
    after = owners(what)
    moved = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {(0, 2), (1, 2)}


def test_what_an_operator_says_stands_over_the_file_until_it_is_taken_back() -> None:
    what = split(stable=95, canary=5)
    assert (what.live(), what.shares()) == ((), (95, 5))
    what.set((0, 1))
    assert (what.live(), what.shares()) == ((0, 1), (0, 1))
    assert what.pick(b"", 0.0) == 1
    what.set(())
    assert (what.live(), what.shares()) == ((), (95, 5))


def test_another_process_sees_it_in_the_same_cells() -> None:
    cells = [0] * 8
    one, other = (Split(("a", "b"), (1, 1), None, cells, 4) for _ in range(2))
    one.set((0, 7))
    assert other.shares() == (0, 7)
    assert cells[:4] == [0, 0, 0, 0]
    assert cells[6:] == [0, 0]


def test_what_is_only_half_written_is_not_in_force() -> None:
    cells = [0, 0]
    what = Split(("a", "b"), (1, 3), None, cells, 0)
    cells[0] = 5
    assert what.shares() == (1, 3)
    cells[1] = 1
    assert what.shares() == (4, 0)
    cells[0] = 1
    assert what.shares() == (1, 3)  # nobody at all is no split
