"""A server that gives errors which the others do not give."""

from __future__ import annotations

import random

import pytest

from lbproxy.address import Address
from lbproxy.domain.breaker import OUTLIER, BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.outliers import DISTINCT, IN_A_ROW
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create

ERROR, SUCCESS, BAD = Outcome.ERROR, Outcome.SUCCESS, Outcome.BAD_ANSWER


class Bench:
    """A pool whose servers answer as told, ten times a second."""

    def __init__(self, n: int = 4, strategy: str = "least_connections", **policy: float) -> None:
        servers = [Server(chr(97 + i), Address("10.0.0.1", 5001 + i)) for i in range(n)]
        rng = random.Random(1)
        made = BreakerPolicy(**{"open_s": 10.0, **policy})  # type: ignore[arg-type]
        self.pool = Pool("p", servers, create(strategy, {}, rng), create("random", {}, rng), breaker=made)
        self.bad, *self.others = servers
        self.now = 100.0

    def answer(self, server: Server, outcome: Outcome, key: int = 0) -> None:
        self.now += 0.01
        Lease(self.pool, server, self.now).release(outcome, self.now, request_key=key)

    def others_answer(self, rounds: int = 10, errors_every: int = 0) -> None:
        number = 0
        for _ in range(rounds):
            for server in self.others:
                number += 1
                self.answer(server, ERROR if errors_every and number % errors_every == 0 else SUCCESS, number)

    def errors(self, count: int, keys: int = 1000, outcome: Outcome = ERROR) -> int:
        """So many errors of the one server; returns after how many it was ejected, 0 = never."""
        for number in range(1, count + 1):
            self.answer(self.bad, outcome, number % keys)
            if self.bad.shown == "ejected":
                return number
        return 0


def test_errors_that_nobody_else_gives_eject() -> None:
    bench = Bench()
    bench.others_answer()
    assert bench.errors(50) == IN_A_ROW
    circuit = bench.bad.circuit
    assert circuit is not None
    assert (circuit.reason, circuit.what) == (OUTLIER, "8 of 8 answers within 10 s were errors, of the others' few")


def test_errors_that_all_give_are_the_requests_fault() -> None:
    bench = Bench()
    for _ in range(40):
        for server in bench.pool.servers:
            bench.answer(server, ERROR)
    assert {server.shown for server in bench.pool.servers} == {"up"}


@pytest.mark.parametrize(("errors_every", "ejected"), [(11, True), (9, False)])
def test_the_others_may_give_a_few(errors_every: int, ejected: bool) -> None:
    bench = Bench()
    bench.others_answer(rounds=30, errors_every=errors_every)
    assert bool(bench.errors(50)) is ejected


def test_half_of_its_answers_are_enough() -> None:
    bench = Bench()
    bench.others_answer()
    for number in range(60):
        bench.answer(bench.bad, ERROR if number % 2 else SUCCESS, number)
        if bench.bad.shown == "ejected":
            break
    assert number == 19, "the twentieth answer"
    bench = Bench()
    bench.others_answer()
    for number in range(90):
        bench.answer(bench.bad, SUCCESS if number % 3 else ERROR, number)
    assert bench.bad.shown == "up", "a third is not half"


def test_without_enough_answers_of_others_nothing_is_compared() -> None:
    bench = Bench()
    bench.others_answer(rounds=6)  # 18 answers
    assert bench.errors(50) == 0
    bench.others_answer(rounds=1)
    bench.now += 0.1  # comparisons are that far apart
    assert bench.errors(1) == 1


def test_what_the_others_did_long_ago_does_not_count() -> None:
    bench = Bench()
    bench.others_answer()
    bench.now += 30.0
    assert bench.errors(50) == 0


def test_a_single_server_is_never_ejected_and_not_too_many_of_several() -> None:
    alone = Bench(1)
    assert alone.errors(100) == 0
    bench = Bench(4)
    for _ in range(100):
        for server in bench.pool.servers[:3]:
            bench.answer(server, ERROR)
        for _ in range(40):
            bench.answer(bench.pool.servers[3], SUCCESS)
    assert sum(server.shown == "ejected" for server in bench.pool.servers) <= 2


def test_settings_that_ask_for_more_get_more() -> None:
    bench = Bench(failures=30, min_requests=500)
    bench.others_answer(rounds=200)
    assert bench.errors(100) == 30


def test_it_comes_back_by_a_good_answer_and_not_by_another_error() -> None:
    bench = Bench()
    bench.others_answer()
    assert bench.errors(50)
    bench.now += 10.0
    bench.pool.sweep(bench.now)
    assert bench.bad.shown == "probing"
    bench.others_answer()
    circuit = bench.bad.circuit
    assert circuit is not None

    def probe(outcome: Outcome) -> None:
        circuit.probe_started()
        bench.answer(bench.bad, outcome)

    probe(ERROR)
    assert (bench.bad.shown, circuit.what) == ("ejected", "the probe met another error")
    bench.now += 20.0
    bench.pool.sweep(bench.now)
    bench.others_answer()
    probe(ERROR)
    assert bench.bad.shown == "ejected", "what it is out for is remembered"
    bench.now += 40.0
    bench.pool.sweep(bench.now)
    probe(SUCCESS)
    assert bench.bad.shown == "up"


def test_an_error_of_a_probe_proves_nothing_while_all_give_errors() -> None:
    bench = Bench()
    bench.others_answer()
    assert bench.errors(50)
    bench.now += 10.0
    bench.pool.sweep(bench.now)
    bench.others_answer(errors_every=2)
    assert bench.bad.circuit is not None
    bench.bad.circuit.probe_started()
    bench.answer(bench.bad, ERROR)
    assert bench.bad.shown == "up"


@pytest.mark.parametrize(("keys", "ejected"), [(DISTINCT - 1, False), (DISTINCT, True)])
def test_where_clients_are_bound_to_servers_it_takes_several_sorts_of_requests(keys: int, ejected: bool) -> None:
    """With ip_hash one client's bad requests all meet one server, and no other gives the same answers."""
    bench = Bench(strategy="ip_hash")
    bench.others_answer()
    assert bool(bench.errors(60, keys=keys)) is ejected


# --- bad answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["least_connections", "ip_hash"])
def test_one_request_that_makes_answers_bad_ejects_nobody(strategy: str) -> None:
    """A thousand times, at every server in turn, with and without other traffic."""
    bench = Bench(strategy=strategy)
    for number in range(1000):
        bench.answer(bench.pool.servers[number % 4], BAD, 7)
    assert {server.shown for server in bench.pool.servers} == {"up"}
    assert all(server.penalty_s(bench.now) > 0 for server in bench.pool.servers), "but it is a penalty"


def test_one_request_at_one_server_ejects_it_nowhere_that_binds_clients() -> None:
    bench = Bench(strategy="ip_hash")
    for _ in range(100):
        bench.others_answer(rounds=2)
        for _ in range(10):
            bench.answer(bench.bad, BAD, 7)
    assert bench.bad.shown == "up"


def test_good_answers_in_between_make_the_same_request_no_news() -> None:
    bench = Bench(strategy="ip_hash")
    for number in range(1000):
        bench.answer(bench.bad, BAD if number % 2 else SUCCESS, 7)
    assert bench.bad.shown == "up"


def test_a_server_whose_answers_are_all_bad_is_ejected_quickly() -> None:
    bench = Bench()
    assert bench.errors(50, outcome=BAD) == 5


def test_a_server_whose_answers_are_all_bad_is_ejected_though_one_client_asks_for_one_thing() -> None:
    """A gateway in front, one path: the others answer the same request well."""
    bench = Bench()
    bench.others_answer()
    assert bench.errors(50, keys=1, outcome=BAD) == IN_A_ROW


def test_what_is_remembered_of_requests_is_bounded() -> None:
    bench = Bench(1)
    for number in range(10_000):
        bench.answer(bench.bad, BAD, number)
    assert bench.bad.circuit is not None and bench.bad.circuit.n_seen == 16


def test_the_same_request_as_a_probe_proves_nothing() -> None:
    bench = Bench()
    assert bench.errors(50, outcome=BAD) == 5
    bench.now += 10.0
    bench.pool.sweep(bench.now)
    circuit = bench.bad.circuit
    assert circuit is not None
    circuit.probe_started()
    bench.answer(bench.bad, BAD, 1)
    assert (bench.bad.shown, circuit.has_probes_out) == ("probing", False)
    circuit.probe_started()
    bench.answer(bench.bad, BAD, 77)
    assert bench.bad.shown == "ejected"
