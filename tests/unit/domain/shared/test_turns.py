"""Turns in shared memory are those of the model, and nothing is left of who does not wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.fairness import weights_of
from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import CLASSES, HEADER_WORDS, PLACE_FLOW, Plan
from lbproxy.domain.shared.repair import repair
from lbproxy.domain.shared.turns import mark_of
from tests.support.shared_world import audit
from tests.support.turns_model import Model, Place

LATE_NS = 1 << 40


class Site:
    """A line of so many places, and the model of it."""

    def __init__(self, n_classes: int, n_places: int = 100) -> None:
        self.plan = Plan(3, n_workers=2, n_servers=0, n_rows=0, n_places=n_places)
        self.cells = [0] * self.plan.end
        self.line = Line(self.cells, self.plan)
        self.line.turns.weights = weights_of(n_classes)
        self.model = Model(weights_of(n_classes))
        self.places: dict[Place, int] = {}
        self.n_joined = 0

    def join(self, rank: int, share: str, worker: int = 0, expires_ns: int = LATE_NS) -> Place:
        self.n_joined += 1
        known = rank, share.encode(), self.n_joined
        key = mark_of(share.encode())
        self.places[known] = self.line.join(worker, self.n_joined, self.n_joined, expires_ns, rank, key)
        assert self.places[known]
        self.model.add(known)
        return known

    def next(self, *, is_newest_first: bool = False, now_ns: int = 0) -> Place | None:
        place = self.line.turns.next(now_ns, is_newest_first=is_newest_first)
        return next((known for known, other in self.places.items() if other == place), None)

    def serve(self, known: Place) -> None:
        self.line.serve(self.places.pop(known))

    def leave(self, known: Place) -> None:
        self.line.leave(self.places.pop(known))
        self.model.drop(known)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "next", "next", "newest", "drop", "room", "out", "resort"]),
        st.integers(0, 2),
        st.sampled_from("abcd"),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 3))
def test_turns_are_those_of_the_model(steps: list[tuple[str, int, str, int]], n_classes: int) -> None:
    site = Site(n_classes)
    line, model = site.line, site.model
    for what, rank, share, at in steps:
        rank %= n_classes
        if what == "add":
            site.join(rank, share, worker=at % 2)
        elif what in ("next", "newest"):
            is_newest_first = what == "newest"
            found = site.next(is_newest_first=is_newest_first)
            assert site.next(is_newest_first=is_newest_first) == found, "to look changes nothing"
            assert found == model.next(is_newest_first=is_newest_first)
            if found is not None:
                site.serve(found)
                model.drop(found)
        elif what == "drop" and model.waiting:
            site.leave(model.waiting[at % len(model.waiting)])
        elif what == "resort" and model.waiting:
            known = model.waiting[-1]
            line.sort(site.places[known], -1, 0)
            line.sort(site.places[known], known[0], mark_of(known[1]))
            model.drop(known)
            model.add(known)
        elif what in ("room", "out"):
            crowded = line.turns.who_makes_room(rank, mark_of(share.encode()))
            may_be = model.making_room(rank, share.encode())
            assert crowded in [site.places[known] for known in may_be] if may_be else not crowded
            if crowded and what == "out":
                (known,) = (known for known in may_be if site.places[known] == crowded)
                line.crowd_out(site.places.pop(known))
                model.drop(known)
        audit(site.cells, site.plan)
        assert [line.turns.n_of(rank) for rank in range(n_classes)] == [
            len(model.in_class(r)) for r in range(n_classes)
        ]
        assert line.turns.n_keys == len({key for ring in model.rings for key in ring})


def test_who_was_crowded_out_is_found_by_its_worker_and_its_place_is_free_then() -> None:
    site = Site(1, n_places=3)
    for worker in (0, 1, 1):
        site.join(0, "a", worker)
    for _ in range(2):
        site.line.crowd_out(site.line.turns.who_makes_room(0, mark_of(b"b")))
    assert not site.line.turns.who_makes_room(0, mark_of(b"b")), "there is one left"
    assert not site.line.join(0, 9, 9, LATE_NS), "they have their places still"
    assert site.line.next_crowded_out(0) == 0
    assert sorted(site.line.next_crowded_out(1) for _ in range(3)) == [0, 2, 3]
    audit(site.cells, site.plan)
    assert site.line.join(0, 9, 9, LATE_NS, 0, 5)


def test_after_a_repair_all_are_there_in_order_of_arrival() -> None:
    site = Site(2)
    for number, share in enumerate("aabacb"):
        site.join(number % 2, share, worker=number % 2)
    site.line.crowd_out(site.places.pop((0, b"a", 1)))
    before = [site.line.turns.n_of(rank) for rank in range(2)]
    for at in range(site.plan.class_at(0), site.plan.class_at(2)):
        site.cells[at] = 77
    for place in range(1, 7):
        site.cells[site.plan.place(place) + PLACE_FLOW] = 3
    repair(site.cells, site.plan)
    audit(site.cells, site.plan)
    assert [site.line.turns.n_of(rank) for rank in range(2)] == before
    assert site.line.next_crowded_out(0) == 1
    repair(site.cells, site.plan, dead=0)
    audit(site.cells, site.plan)
    assert [site.line.turns.n_of(rank) for rank in range(2)] == [0, 3]


def test_who_is_late_has_no_turn() -> None:
    site = Site(1)
    site.join(0, "a", expires_ns=5)
    site.join(0, "a", expires_ns=LATE_NS)
    assert site.next(now_ns=5) == (0, b"a", 2)
    assert site.line.turns.n_of(0) == 1
    audit(site.cells, site.plan)


def test_who_is_put_back_is_the_next() -> None:
    site = Site(1)
    first = site.join(0, "a")
    for share in "bab":
        site.join(0, share)
    site.serve(first)
    site.places[first] = site.line.rejoin(0, 1, 1, LATE_NS, 0, mark_of(b"a"))
    assert site.next() == first
    audit(site.cells, site.plan)


def test_unsorted_places_cost_nothing_and_have_no_turns() -> None:
    site = Site(1)
    place = site.line.join(0, 1, 1, LATE_NS)
    assert site.line.turns.next(0, is_newest_first=False) == 0
    assert site.line.turn(0, -1, is_newest_first=False) == place
    assert not any(site.cells[site.plan.first + CLASSES : site.plan.first + HEADER_WORDS])
    site.line.serve(place)
    audit(site.cells, site.plan)


def test_nothing_is_kept_of_who_does_not_wait() -> None:
    site = Site(3, n_places=4)
    for number in range(500):
        site.leave(site.join(number % 3, f"k{number}"))
    assert site.line.turns.n_keys == 0
    assert not any(site.cells[site.plan.buckets : site.plan.end])
