"""When listeners accept: below the limit, and not while too much is buffered. Who makes way is in test_room.py."""

from __future__ import annotations

import random

import pytest

from lbproxy.dataplane.client.gate import KEPT_PLACES, ConnectionGate, Gated, Neighbours
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.places import PLACE_CELLS, Places, clear_places
from tests.support.fake_transport import CONFIG, GET, FakeLb, ok

NOT_KEPT = CONFIG.replace("health_check: off", "health_check: off, keep_alive: off")


class FakeListener(Gated):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.services = FakeLb().services
        self.is_wanted = False

    @property
    def has_queued(self) -> bool:
        return self.is_wanted

    def pause(self) -> None:
        self.calls.append("pause")

    def wait_for_room(self) -> None:
        self.calls.append("wait")

    def resume(self) -> None:
        self.calls.append("resume")


def gate_of(limit: int) -> tuple[ConnectionGate, list[FakeListener]]:
    gate, listeners = ConnectionGate(limit), [FakeListener(), FakeListener()]
    for listener in listeners:
        gate.add(listener)
    return gate, listeners


def test_all_listeners_pause_at_the_limit_and_resume_below() -> None:
    gate, listeners = gate_of(2)
    gate.opened()
    assert listeners[0].calls == []
    gate.opened()
    gate.opened()  # an accept burst may go over
    assert [listener.calls for listener in listeners] == [["wait"], ["wait"]]
    gate.closed()
    assert listeners[0].calls == ["wait"]
    gate.closed()
    gate.closed()
    assert [listener.calls for listener in listeners] == [["wait", "resume"], ["wait", "resume"]]


def test_the_gate_stays_shut_while_too_much_is_buffered() -> None:
    gate, listeners = gate_of(10)
    listeners[1].services.pressure.is_refusing = True
    gate.sweep(0.0)
    gate.hold()
    gate.opened()
    gate.closed()
    gate.reconsider()
    assert listeners[0].calls == ["pause"]
    listeners[1].services.pressure.is_refusing = False
    gate.sweep(0.0)
    gate.sweep(0.0)
    assert listeners[0].calls == ["pause", "resume"]


def full_of_idle(lb: FakeLb, *, answered: int, waiting: int) -> None:
    lb.gate.limit = answered + waiting
    for _ in range(answered):
        client = lb.connect()
        client.send(GET)
        lb.accept().send(ok())
        lb.advance(0.1)
    for _ in range(waiting):
        lb.connect().send(GET)
        lb.accept()


def n_open(lb: FakeLb) -> int:
    return sum(client.is_open for client in lb.clients)


def test_at_the_limit_the_longest_idle_one_makes_way_for_each_newcomer() -> None:
    with FakeLb(NOT_KEPT) as lb:
        full_of_idle(lb, answered=3, waiting=1)
        lb.advance(2.0)
        for left in (2, 1, 0):
            assert not lb.gate.is_open
            lb.gate.make_room()
            lb.loop.run()
            assert [client.is_open for client in lb.clients[:4]] == [False] * (3 - left) + [True] * (left + 1)
            assert lb.gate.is_open
            lb.connect().send(GET)
        lb.gate.make_room()
        assert lb.of_listener("client_connections_evicted_total", "answered") == 1
        assert lb.of_listener("client_connections_evicted_total", "idle") == 3


def test_below_the_limit_nobody_is_asked() -> None:
    with FakeLb(NOT_KEPT) as lb:
        full_of_idle(lb, answered=2, waiting=0)
        lb.gate.limit = 3
        lb.advance(2.0)
        lb.gate.make_room()
        lb.loop.run()
        assert n_open(lb) == 2


def test_the_sweep_looks_after_who_could_not_be_helped() -> None:
    """Nobody was idle long enough when the newcomer came, which is told once."""
    with FakeLb(NOT_KEPT) as lb:
        full_of_idle(lb, answered=2, waiting=0)
        for client in lb.clients:
            client.transport._inbox.append(b"unread")
        lb.advance(2.0)
        lb.gate.make_room()
        assert n_open(lb) == 2
        for client in lb.clients:
            client.transport._inbox.clear()
        lb.gate.sweep(lb.clock.now)
        assert n_open(lb) == 2, "nobody waits"
        listener = FakeListener()
        listener.services = lb.services
        listener.is_wanted = True
        lb.gate.add(listener)
        lb.advance(1.0)
        lb.gate.sweep(lb.clock.now)
        lb.gate.sweep(lb.clock.now)  # one is on its way
        lb.loop.run()
        assert n_open(lb) == 1


class Crew:
    """Gates of workers that have one limit, each with a listener."""

    def __init__(self, n_workers: int, whole: int, most: int = 1000) -> None:
        self.rung: list[int] = []
        self.cells = [0] * (n_workers * PLACE_CELLS)
        self.gates: list[ConnectionGate] = []
        self.listeners: list[FakeListener] = []
        for worker in range(n_workers):
            gate = ConnectionGate(0, Places(self.cells, 0, n_workers, worker, Guard(), self.rung.append))
            listener = FakeListener()
            gate.add(listener)
            gate.limit_to(whole, most)
            self.gates.append(gate)
            self.listeners.append(listener)

    def settle(self) -> None:
        """Everybody answers its bell."""
        while self.rung:
            self.gates[self.rung.pop(0)].rung()

    def come(self, worker: int, count: int = 1) -> int:
        """So many want to come in; how many could."""
        gate, listener = self.gates[worker], self.listeners[worker]
        for number in range(count):
            listener.is_wanted = True
            if gate.n_connections >= gate.limit:
                gate.make_room()
                self.settle()
            if gate.n_connections >= gate.limit:
                return number
            listener.is_wanted = False
            gate.opened()
            self.settle()
        return count

    @property
    def n_here(self) -> list[int]:
        return [gate.n_connections for gate in self.gates]


@pytest.mark.parametrize("whole", [1, 2, 7, 100, 1000])
def test_one_worker_may_have_all_that_all_may_have_and_not_one_more(whole: int) -> None:
    crew = Crew(3, whole)
    assert crew.come(2, whole + 5) == whole
    assert (crew.come(0), crew.n_here) == (0, [0, 0, whole])
    crew.gates[2].closed()
    crew.settle()
    assert (crew.come(0), crew.come(1), crew.n_here) == (1, 0, [1, 0, whole - 1])


def test_whoever_comes_and_goes_at_random_finds_a_place_if_there_is_one() -> None:
    crew, rng = Crew(3, 40), random.Random(5)
    for _ in range(4000):
        worker = rng.randrange(3)
        if rng.random() < 0.55:
            n_before = sum(crew.n_here)
            assert crew.come(worker) == (n_before < 40)
        elif crew.n_here[worker]:
            crew.gates[worker].closed()
            crew.settle()
        assert all(gate.is_open == (gate.n_connections < gate.limit) for gate in crew.gates)
        for listener in crew.listeners:
            listener.is_wanted = False


def test_what_each_can_have_by_itself_holds_too() -> None:
    crew = Crew(2, 10, most=4)
    assert (crew.come(0, 9), crew.come(1, 9)) == (4, 4)


def test_places_that_nobody_uses_are_given_up() -> None:
    crew = Crew(2, 10_000)
    crew.come(0, 500)
    for _ in range(500):
        crew.gates[0].closed()
    assert crew.gates[0].limit <= KEPT_PLACES


def test_a_lowered_limit_holds_for_all_and_sends_nobody_away() -> None:
    crew = Crew(2, 100)
    assert (crew.come(0, 30), crew.come(1, 30)) == (30, 30)
    for gate in crew.gates:
        gate.limit_to(40, 1000)
    for _ in range(19):
        crew.gates[0].closed()
        crew.settle()
    assert (crew.come(0), crew.come(1), sum(crew.n_here)) == (0, 0, 41)
    for _ in range(2):
        crew.gates[0].closed()
        crew.settle()
    assert (crew.come(1), crew.come(0), sum(crew.n_here)) == (1, 0, 40)


def test_the_places_of_a_dead_worker_are_free_again() -> None:
    crew = Crew(2, 20)
    crew.come(0, 15)
    crew.come(1, 5)
    assert crew.come(1) == 0
    clear_places(crew.cells, 0, 0, Guard())
    crew.gates[1].rung()
    assert crew.come(1, 20) == 15


def test_at_the_limit_an_idle_client_of_another_worker_makes_way() -> None:
    rung: list[int] = []
    cells = [0] * (2 * PLACE_CELLS)
    with FakeLb(NOT_KEPT) as lb:
        full, other = (ConnectionGate(0, Places(cells, 0, 2, worker, Guard(), rung.append)) for worker in range(2))
        lb.gate = full
        lb.listener._gate = full
        full.add(lb.listener)
        full.limit_to(2, 100)
        listener = FakeListener()
        listener.services = FakeLb().services
        other.add(listener)
        for _ in range(2):
            lb.connect().send(GET)
            lb.accept().send(ok())
        other.limit_to(2, 100)
        assert (full.n_connections, full.is_open, other.limit) == (2, False, 0)
        lb.advance(2.0)
        other.make_room()
        assert set(rung) == {0}
        full.rung()
        lb.loop.run()
        assert full.n_connections == 1
        other.rung()
        assert (other.limit, other.is_open, listener.calls[-1]) == (1, True, "resume")


class Mail(Neighbours):
    def __init__(self) -> None:
        self.sent: list[tuple[int, str, int]] = []
        self.is_full = False
        self.idle = True

    def hand(self, worker: int, listener: str, fd: int, peer: object) -> bool:
        if not self.is_full:
            self.sent.append((worker, listener, fd))
        return not self.is_full

    def is_idle(self) -> bool:
        return self.idle


def test_who_has_more_than_its_share_hands_the_next_one_over_with_its_place() -> None:
    crew, mail = Crew(2, 8), Mail()
    gate, other = crew.gates
    crew.come(0, 3)
    assert not gate.passes_on("web", 5, None), "it knows nobody"
    gate.neighbours = mail
    assert gate.passes_on("web", 5, None)
    assert mail.sent == [(1, "web", 5)]
    before = other.limit
    other.receives()
    other.opened()
    assert (other.limit, crew.n_here) == (before + 1, [3, 1])
    assert (crew.come(0, 9), crew.come(1, 9), sum(crew.n_here)) == (4, 0, 8)


def test_a_full_mailbox_leaves_it_here() -> None:
    crew, mail = Crew(2, 8), Mail()
    gate = crew.gates[0]
    gate.neighbours = mail
    crew.come(0, 3)
    mail.is_full = True
    limit = gate.limit
    assert not gate.passes_on("web", 5, None)
    assert (gate.limit, crew.come(0, 9)) == (limit, 5)


def test_a_place_whose_connection_never_comes_is_free_again() -> None:
    crew, mail = Crew(2, 4), Mail()
    gate, other = crew.gates
    crew.come(0, 3)
    gate.neighbours = mail
    other.neighbours = its = Mail()
    assert gate.passes_on("web", 5, None)
    clear_places(crew.cells, 0, 0, Guard())
    its.idle = False
    for _ in range(3):
        other.sweep(0.0)
    assert crew.come(1, 9) == 3, "it may still be on its way"
    its.idle = True
    for _ in range(2):
        other.sweep(0.0)
    assert crew.come(1, 9) == 1
