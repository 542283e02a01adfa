"""All orders in which workers can act on shared books, and all steps at which one can die: the limit holds, nobody
waits beside a free slot, turns are kept, nothing is lost or given twice, and the books are whole.

That the checker would see a breach is proven by taking the lock away."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.lease import Lease, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.shared import seats
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import SEAT, Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.turns import SharedTurns
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.strategies.base import PickContext
from tests.support.interleaving import Schedule, explore
from tests.support.seated_world import SeatedCase, SeatedWorld
from tests.support.shared_world import Case, Step, World, Wrong

pytestmark = pytest.mark.simulation

ASK_AND_END = (("ask", 1), ("end", 1))
TWO_IN_A_ROW = (("ask", 1), ("ask", 2), ("end", 1), ("end", 2))
STICKS = (("stick", 1), ("stick", 2), ("end", 1), ("end", 2))
IMPATIENT = (("ask", 1), ("ask", 2), ("leave", 2), ("end", 1))

FLOOD = (("ask", 2), ("ask", 4), ("ask", 6), ("ask", 8), ("end", 2), ("end", 4), ("end", 6), ("end", 8))
LIGHT = (("ask", 1), ("ask", 3), ("end", 1), ("leave", 3))

CASES = {
    "one slot, two workers": Case([ASK_AND_END, ASK_AND_END]),
    "one slot, two each": Case([TWO_IN_A_ROW, TWO_IN_A_ROW]),
    "one slot, three workers": Case([ASK_AND_END] * 3),
    "two slots": Case([TWO_IN_A_ROW, TWO_IN_A_ROW], limit=2),
    "two servers": Case([TWO_IN_A_ROW, TWO_IN_A_ROW], n_servers=2),
    "a client leaves": Case([ASK_AND_END, IMPATIENT, IMPATIENT]),
    "two whose clients stick to one server": Case([STICKS, STICKS]),
    "one whose client sticks, and others": Case([TWO_IN_A_ROW, STICKS, TWO_IN_A_ROW], n_servers=2),
    "the line is short": Case([TWO_IN_A_ROW, TWO_IN_A_ROW], queue_size=1),
    "keys have turns": Case([FLOOD, LIGHT], n_keys=2),
    "keys of three workers": Case([FLOOD, LIGHT, (("ask", 5), ("ask", 8), ("end", 5))], n_keys=3),
    "classes have turns": Case([FLOOD, LIGHT], n_keys=1, n_classes=2),
    "a flood makes room": Case([FLOOD, LIGHT], n_keys=2, queue_size=2),
    "a flood of both": Case([FLOOD, (*LIGHT, ("ask", 10), ("ask", 5))], n_keys=2, queue_size=3, order="adaptive"),
}


def run(case: Case) -> list[Schedule]:
    return list(explore(lambda choices: World(case, choices).run(), most_detours=2, most_runs=150))


@pytest.mark.parametrize("name", CASES)
def test_whatever_the_order(name: str) -> None:
    assert len(run(CASES[name])) > 20


@pytest.mark.parametrize(
    "case",
    [
        Case([TWO_IN_A_ROW, TWO_IN_A_ROW]),
        Case([ASK_AND_END, IMPATIENT, TWO_IN_A_ROW]),
        Case([TWO_IN_A_ROW, TWO_IN_A_ROW], n_servers=2),
        Case([FLOOD, LIGHT], n_keys=2, n_classes=2, queue_size=2),
    ],
    ids=["one slot", "a client leaves", "two servers", "a flood makes room"],
)
def test_whoever_dies_at_whatever_step(case: Case) -> None:
    """Each step, in some orders."""
    for worker in range(len(case.scripts)):
        step, has_died = 0, True
        while has_died:
            step += 1
            dying = replace(case, dies=(worker, step))
            runs = [World(dying, choices).run() for choices in by_chance(2, most=2, length=60)]
            has_died = any(done.actors[worker].is_dead for done in runs)
        assert step > 20


def by_chance(number: int, *, most: int, length: int) -> Iterator[list[int]]:
    for seed in range(number):
        rng = random.Random(seed)
        yield [rng.randrange(most) for _ in range(length)]


def complaints(case: Case) -> set[str]:
    """Others may act between any two accesses, by chance."""
    found = set()
    for choices in by_chance(40, most=2, length=1000):
        try:
            World(case, choices).run()
        except Wrong as error:
            found.add(str(error))
    return found


def test_without_the_lock_the_checker_finds_the_race() -> None:
    case = Case([TWO_IN_A_ROW, TWO_IN_A_ROW], is_fine=True)
    assert complaints(case) == set()
    assert "server s0 has 2 requests at once" in complaints(replace(case, has_lock=False))


def no_second_look(pool: SharedPool, ticket: Ticket, now: float) -> bool:
    assert pool._line is not None
    return pool._line.push(ticket, now)


def no_thought_of_others(pool: SharedPool, ctx: PickContext, tried: Sequence[Server], now: float) -> Lease | Refusal:
    pool._shared.enter(now)
    pool._shared.look()
    lease = Pool.acquire(pool, ctx, tried, now)
    pool._shared.leave()
    return lease


@pytest.mark.parametrize(
    ("name", "instead", "complaint"),
    [
        ("enqueue", no_second_look, "wait for ever"),
        ("acquire", no_thought_of_others, "came after"),
    ],
)
def test_the_checker_finds_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., object], complaint: str
) -> None:
    """Who joins the line looks again whether a slot is free; who arrives while others wait takes none."""
    if not inspect.isfunction(getattr(SharedPool, name)):
        pytest.skip("compiled classes can't be changed")
    monkeypatch.setattr(SharedPool, name, instead)
    with pytest.raises(Wrong, match=complaint):
        run(Case([TWO_IN_A_ROW, TWO_IN_A_ROW, ASK_AND_END]))


@pytest.mark.parametrize(
    ("kind", "name", "case", "complaint"),
    [
        (SharedTurns, "serve", "keys have turns", "others have two turns"),
        (SharedQueue, "find_crowded_out", "a flood makes room", "wait for ever"),
    ],
)
def test_the_checker_finds_turns_that_nobody_pays_for_and_who_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, case: str, complaint: str
) -> None:
    if not inspect.isfunction(getattr(kind, name)):
        pytest.skip("compiled classes can't be changed")
    monkeypatch.setattr(kind, name, lambda *args: None)
    with pytest.raises(Wrong, match=complaint):
        run(CASES[case])


def is_one_of_each(steps: list[Step]) -> bool:
    """A request arrives once, in one way or the other."""
    return not {n for what, n in steps if what == "ask"} & {n for what, n in steps if what == "stick"}


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "stick", "end", "leave", "sweep"]), st.integers(1, 3)),
    max_size=7,
    unique=True,
).filter(is_one_of_each)


@given(
    scripts=st.lists(STEPS, min_size=2, max_size=3),
    n_servers=st.integers(1, 2),
    limit=st.integers(1, 2),
    queue_size=st.integers(1, 8),
    dies=st.tuples(st.integers(0, 2), st.integers(0, 120)),
    choices=st.lists(st.integers(0, 3), max_size=60),
    order=st.sampled_from(["fifo", "adaptive"]),
    n_keys=st.integers(0, 3),
    n_classes=st.integers(1, 2),
)
def test_whatever_comes(
    scripts: list[list[Step]],
    n_servers: int,
    limit: int,
    queue_size: int,
    dies: tuple[int, int],
    choices: list[int],
    order: str,
    n_keys: int,
    n_classes: int,
) -> None:
    case = Case(
        scripts,
        n_servers=n_servers,
        limit=limit,
        queue_size=queue_size,
        dies=dies,
        order=order,
        n_keys=n_keys,
        n_classes=n_classes,
    )
    done = World(case, choices).run()
    assert all(actor.is_over for actor in done.actors)


THREE_IN_A_ROW = (("ask", 1), ("ask", 2), ("end", 1), ("ask", 3), ("end", 2), ("end", 3))
MOVING = {
    "one joins": SeatedCase([TWO_IN_A_ROW, TWO_IN_A_ROW], n_servers=2, moves=[("join", 1)]),
    "one leaves": SeatedCase([TWO_IN_A_ROW, TWO_IN_A_ROW], n_servers=2, first=2, moves=[("go", 0)]),
    "a seat is taken again": SeatedCase(
        [THREE_IN_A_ROW, TWO_IN_A_ROW], n_servers=2, first=2, moves=[("go", 0), ("join", 2), ("go", 1), ("join", 3)]
    ),
}


def run_seated(case: SeatedCase) -> list[Schedule]:
    return list(explore(lambda choices: SeatedWorld(case, choices).run(), most_detours=2, most_runs=120))


@pytest.mark.parametrize("name", MOVING)
def test_servers_join_and_leave_in_whatever_order(name: str) -> None:
    assert len(run_seated(MOVING[name])) > 20


@pytest.mark.parametrize("who", ["controller", "w0"])
def test_servers_join_and_leave_and_somebody_dies_at_whatever_step(who: str) -> None:
    case = MOVING["a seat is taken again"]
    step, has_died = 0, True
    while has_died:
        step += 1
        dying = replace(case, controller_dies=step) if who == "controller" else replace(case, dies=(0, step))
        done = SeatedWorld(dying, [(step * 7 + number) % 3 for number in range(40)]).run()
        has_died = any(actor.is_dead for actor in done.actors)
    assert step > 20


def no_thought_of_who_knows_it(cells: Cells, plan: Plan, seat: int) -> bool:
    return cells[plan.server(seat) + SEAT] <= 0


def test_the_checker_finds_a_seat_that_is_given_away_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    if not inspect.isfunction(seats.is_free):
        pytest.skip("compiled functions can't be changed")
    monkeypatch.setattr(seats, "is_free", no_thought_of_who_knows_it)
    with pytest.raises(Wrong, match="whose seat is another's"):
        for choices in by_chance(100, most=3, length=200):
            SeatedWorld(MOVING["a seat is taken again"], choices).run()
