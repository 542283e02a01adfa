"""When listeners accept: below the limit, and not while too much is buffered. Who makes way is in test_room.py."""

from __future__ import annotations

from lbproxy.dataplane.client.gate import ConnectionGate, Gated
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
