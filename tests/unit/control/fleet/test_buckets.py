"""Buckets of a fleet: what is asked, what is known without a question, and what happens without an answer."""

from __future__ import annotations

from collections.abc import Callable

from lbproxy.control.fleet.buckets import HAND_S, MOST_IN_BATCH, MOST_KEYS, FleetBuckets, Known
from lbproxy.dataplane.guard import Limit
from lbproxy.domain.buckets import own_buckets
from lbproxy.errors import RATE_LIMITED
from lbproxy.telemetry.slots import LIMIT

OPEN = LIMIT.column("rate_limit_open_total")
TIMEOUT_S = 0.005


class Rig:
    """A fleet's buckets without Redis: a test says what that answers. Its clock is `now`."""

    def __init__(self, *, is_up: bool = True, burst: int = 100) -> None:
        self.now = 1000.0
        self.n_woken = 0
        self.timers: list[tuple[Callable[[list[Known]], None], list[Known]]] = []
        self.limit = Limit("l", None, None, 1_000_000, burst, own_buckets(), RATE_LIMITED, [0] * LIMIT.width)
        self.buckets = FleetBuckets(self, TIMEOUT_S, lambda: self.now)
        self.told: list[tuple[bytes, int]] = []
        if is_up:
            self.buckets.up()

    def wake(self) -> None:
        self.n_woken += 1

    def later(self, delay_s: float, callback: Callable[[list[Known]], None], batch: list[Known]) -> object:
        assert delay_s == TIMEOUT_S
        self.timers.append((callback, batch))
        return None

    def overdue(self) -> None:
        timers, self.timers = self.timers, []
        for callback, batch in timers:
            callback(batch)

    def take(self, key: bytes = b"k") -> int:
        return self.buckets.take(self.limit, key, lambda wait: self.told.append((key, wait)))

    @property
    def n_open(self) -> int:
        return self.limit.row[OPEN]


def test_long_keys_are_kept_as_hashes() -> None:
    rig = Rig()
    assert [rig.take(bytes(30_000)), rig.take(bytes(30_000)), rig.take(bytes(30_001)), rig.take(bytes(64))] == [-1] * 4
    assert [known.wanted for known in rig.buckets.next_batch()] == [2, 1, 1]
    assert max(len(key) for _, key in rig.buckets._known) == 64


def test_what_comes_together_is_one_batch() -> None:
    rig = Rig()
    assert [rig.take(key) for key in (b"a", b"b", b"a")] == [-1, -1, -1]
    assert rig.n_woken == 1
    batch = rig.buckets.next_batch()
    assert [known.wanted for known in batch] == [2, 1]
    assert rig.take(b"a") == -1, "it comes too late for this one"
    rig.buckets.heard([1, 2_000_000, 1, 0])
    assert rig.told == [(b"a", 0), (b"a", 2_000_000_000), (b"b", 0)]
    assert rig.n_woken == 2 and [known.wanted for known in rig.buckets.next_batch()] == [1 + 1]
    assert not rig.n_open


def test_a_key_that_is_used_up_is_not_asked_for() -> None:
    rig = Rig()
    rig.take()
    rig.buckets.next_batch()
    rig.buckets.heard([0, 250_000])
    assert rig.told == [(b"k", 250_000_000)]
    rig.now += 0.125
    assert rig.take() == 125_000_000
    rig.now += 0.25
    assert rig.take() == -1


def test_tokens_are_taken_in_advance_where_many_ask() -> None:
    rig = Rig()
    for _ in range(10):
        rig.take()
    assert [known.wanted for known in rig.buckets.next_batch()] == [10], "nothing is known of it"
    rig.buckets.heard([10, 0])
    for _ in range(10):
        rig.take()
    assert [known.wanted for known in rig.buckets.next_batch()] == [10 + 5], "a 20th of the burst at most"
    rig.buckets.heard([15, 0])
    assert [rig.take() for _ in range(5)] == [0] * 5
    assert rig.take() == -1
    rig.buckets.next_batch()
    rig.buckets.heard([6, 0])
    rig.now += HAND_S
    assert rig.take() == -1, "those in hand are too old"
    assert [known.wanted for known in rig.buckets.next_batch()] == [1], "and it has been quiet"


def test_a_small_burst_has_nothing_in_advance() -> None:
    rig = Rig(burst=10)
    for _ in range(3):
        rig.take()
        [known] = rig.buckets.next_batch()
        assert known.wanted == 1
        rig.buckets.heard([1, 0])


def test_who_waited_for_long_enough_passes_and_nobody_waits_until_there_is_an_answer() -> None:
    rig = Rig()
    rig.take(b"a")
    rig.buckets.next_batch()
    rig.take(b"b")
    rig.overdue()
    assert rig.told == [(b"a", 0), (b"b", 0)] and rig.n_open == 2
    assert rig.take(b"c") == 0 and rig.n_open == 3
    rig.buckets.heard([0, 100_000])
    assert rig.told == [(b"a", 0), (b"b", 0)]
    assert rig.take(b"a") == 100_000_000, "what it says late is known all the same"
    assert rig.take(b"c") == -1, "and it is asked again"
    assert [known.wanted for known in rig.buckets.next_batch()] == [2], "it, and what passed"


def test_what_passes_while_redis_is_late_is_missing_later() -> None:
    rig = Rig(burst=10)
    rig.take()
    rig.buckets.next_batch()
    rig.overdue()
    assert [rig.take() for _ in range(3)] == [0] * 3 and rig.n_open == 4
    rig.buckets.heard([1, 0])  # that of the first one
    rig.now += 0.005
    assert [rig.take(), rig.take()] == [-1, -1]
    [known] = rig.buckets.next_batch()
    assert (known.owed, known.wanted) == (3, 5)
    rig.buckets.heard([4, 50_000])
    assert rig.told == [(b"k", 0), (b"k", 0), (b"k", 50_000_000)] and known.owed == 0
    assert 49_000_000 < rig.take() <= 50_000_000


def test_a_late_answer_pays_for_those_who_did_not_wait_for_it() -> None:
    rig = Rig()
    rig.take()
    rig.take()
    [known] = rig.buckets.next_batch()
    rig.overdue()
    assert known.owed == 2
    rig.buckets.heard([2, 0])
    assert (known.owed, known.in_hand) == (0, 0), "nothing is left of it for others"


def test_what_is_owed_is_bounded_and_ends() -> None:
    rig = Rig(burst=10)  # 1 ms a token: full after 10 ms

    def late() -> Known:
        rig.take()
        [known] = rig.buckets.next_batch()
        rig.overdue()
        for _ in range(100):
            rig.take()
        return known

    known = late()
    assert known.owed == 10
    rig.buckets.heard([0, 0])
    rig.now += 0.011
    rig.take()
    assert rig.buckets.next_batch() == [known] and (known.owed, known.wanted) == (0, 1), "it would be full by now"
    rig.buckets.heard([1, 0])
    known = late()
    assert known.owed == 10
    rig.buckets.down()
    assert rig.take() == 0 and known.owed == 10, "while it is away nothing more is owed"
    rig.now += 0.001
    rig.buckets.up()
    rig.take()
    assert rig.buckets.next_batch() == [known] and known.owed == 0, "it may have begun anew"


def test_who_was_never_asked_for_in_time_does_not_stop_the_next_ones() -> None:
    rig = Rig()
    rig.take(b"a")
    rig.overdue()  # before it could be asked
    assert rig.told == [(b"a", 0)] and rig.n_open == 1
    assert rig.buckets.next_batch() == []
    assert rig.take(b"a") == -1


def test_an_answer_in_time_leaves_nothing_to_the_timer() -> None:
    rig = Rig()
    rig.take()
    rig.buckets.next_batch()
    rig.buckets.heard([1, 0])
    rig.overdue()
    assert rig.told == [(b"k", 0)] and not rig.n_open and rig.take() == -1


def test_without_redis_everything_passes_and_is_counted() -> None:
    rig = Rig(is_up=False)
    assert rig.take() == 0 and rig.n_open == 1
    rig.buckets.up()
    assert rig.take(b"a") == -1
    rig.buckets.next_batch()
    assert rig.take(b"b") == -1
    rig.buckets.down()
    assert rig.told == [(b"a", 0), (b"b", 0)] and rig.n_open == 3
    assert rig.take(b"a") == 0
    rig.buckets.up()
    assert rig.take(b"a") == -1 and rig.buckets.next_batch()
    rig.buckets.heard([1, 0])
    assert rig.told[2:] == [(b"a", 0)]


def test_a_batch_has_a_most_and_so_has_what_is_known() -> None:
    rig = Rig()
    for number in range(MOST_IN_BATCH + 1):
        rig.take(b"%d" % number)
    assert len(rig.buckets.next_batch()) == MOST_IN_BATCH and rig.n_woken == 2
    rig.buckets.heard([1, 0] * MOST_IN_BATCH)
    assert len(rig.buckets.next_batch()) == 1
    rig.buckets.heard([1, 0])
    assert len(rig.told) == MOST_IN_BATCH + 1
    rig.buckets.down()
    for number in range(MOST_KEYS + 100):
        rig.take(b"x%d" % number)
    assert len(rig.buckets._known) == MOST_KEYS


def test_who_is_told_may_ask_again_at_once() -> None:
    rig = Rig()
    again: list[int] = []
    rig.buckets.take(rig.limit, b"k", lambda wait: again.append(rig.take()))
    rig.buckets.next_batch()
    rig.buckets.heard([1, 0])
    assert again == [-1] and len(rig.buckets.next_batch()) == 1
