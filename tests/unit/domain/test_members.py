"""Who may take a request, and what a change of state brings with it. More of it, with requests: test_pool.py."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from lbproxy.address import Address
from lbproxy.domain.members import Members
from lbproxy.domain.picker import Picker
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Breaker, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.least_connections import LeastConnections


def make(names: str = "abc", *, slow_start_s: float = 0.0, passive_retry_s: float | None = None) -> Members:
    rng = random.Random(1)
    picker = Picker(create("least_connections", {}, rng), create("random", {}, rng), print)
    servers = [Server(name, Address("10.0.0.1", ord(name))) for name in names]
    return Members(servers, picker, fail_open=None, passive_retry_s=passive_retry_s, slow_start_s=slow_start_s)


def fast(members: Members) -> str:
    members.eligible()
    return "".join(server.name for server in members.fast)


def test_a_change_takes_a_server_out_of_both_tuples_at_once() -> None:
    members = make()
    assert fast(members) == "abc"
    members.set_admin(members.servers[1], Admin.DRAIN, "said the test", 1.0, keep_sticky=False)
    assert members.fast == (), "the next request is placed with more care, and asks anew"
    assert fast(members) == "ac" and len(members.eligible()) == 2


def test_while_a_server_is_probed_no_request_takes_the_fast_way() -> None:
    members = make()
    a = members.servers[0]
    members.ejected(a, a.shown, "the test", 1.0)
    assert members.out == [a] and fast(members) == "bc" and not members.probing
    a.breaker = Breaker.PROBING
    members.changed(a, "ejected", "", 2.0)
    assert fast(members) == "" and members.probing == (a,)
    members.closed(a, "probing", "", 3.0)
    assert members.out == [] and fast(members) == "abc"


@pytest.mark.parametrize("breaker", [Breaker.EJECTED, Breaker.PROBING])
def test_who_was_out_when_it_left_is_out_when_it_joins_again(breaker: Breaker) -> None:
    members = make()
    a = members.servers[0]
    a.breaker = breaker
    members.leave(a)
    assert a not in members.out and a not in members.servers
    members.join(a, is_new=True)
    assert members.out == [a] and members.servers[-1] is a


def test_flips_are_told_with_both_states_and_only_if_they_show() -> None:
    members = make()
    told: list[tuple[str, str, str]] = []
    members.on_flip(lambda server, old, new: told.append((server.name, old, new)))
    a = members.servers[0]
    assert members.set_health(a, Health.UP, "", "", 1.0), "it was unknown, which is shown as up"
    assert told == []
    assert members.set_health(a, Health.DOWN, "check", "no answer", 2.0)
    assert not members.set_health(a, Health.DOWN, "check", "no answer still", 3.0)
    assert told == [("a", "up", "down")] and (a.why, a.changed_at) == ("no answer still", 2.0)


def test_a_server_that_came_back_is_forgiven_and_ramped() -> None:
    members = make(slow_start_s=10.0)
    a = members.servers[0]
    members.set_health(a, Health.DOWN, "check", "", 1.0)
    a.penalise(30.0, 1.0)
    members.set_health(a, Health.UP, "", "", 5.0)
    assert a.penalty_until == 0.0 and a.effective_weight == pytest.approx(0.1)
    members.sweep(10.0)
    assert a.effective_weight == pytest.approx(0.5)
    members.sweep(15.0)
    assert a.effective_weight == 1.0


def test_without_checks_a_refused_server_is_tried_again() -> None:
    members = make(passive_retry_s=10.0)
    a = members.servers[0]
    members.set_health(a, Health.DOWN, "refused", "", 1.0)
    members.sweep(10.9)
    assert fast(members) == "bc"
    members.sweep(11.0)
    assert fast(members) == "abc" and a.why == "trying again; no health checks"


def test_many_who_join_are_one_change_to_the_strategy() -> None:
    sizes = []

    class Counting(LeastConnections):
        def rebuild(self, servers: Sequence[Server]) -> None:
            sizes.append(len(servers))
            super().rebuild(servers)

    rng = random.Random(1)
    picker = Picker(Counting({}, rng), create("random", {}, rng), print)
    members = Members([], picker, fail_open=None, passive_retry_s=None, slow_start_s=0.0)
    for number in range(100):
        members.join(Server(str(number), Address("10.0.0.1", number + 1)), is_new=True)
    assert len(members.eligible()) == 100 and sizes == [100]
    members.leave(members.servers[0])
    assert len(members.eligible()) == 99 and sizes == [100, 99]
