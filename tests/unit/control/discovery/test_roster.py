import logging
import random

import pytest

from lbproxy.address import parse_address
from lbproxy.control.discovery.roster import SPARE_S, Member, Roster, Share
from lbproxy.control.discovery.source import Found, Source
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.least_connections import LeastConnections


class Fake(Source):
    def __init__(self, name: str, rank: int) -> None:
        super().__init__(name, name)
        self.rank = rank

    def gone(self) -> str:
        return f"{self.name} lost it"


def found(*addresses: str, weight: int = 1, **more: object) -> dict[str, Found]:
    return {text: Found(parse_address(text), f"s-{text}", weight, **more) for text in addresses}  # type: ignore[arg-type]


class Bench:
    """A roster whose membership is the pool alone."""

    def __init__(self, *, is_checked: bool = True, limit: int = 0) -> None:
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("p", [], strategy, strategy)
        self.now = 100.0
        self.given: list[str] = []
        self.known: dict[Server, Member] = {}
        self.roster = Roster(self.pool, self, lambda: self.now, self.known, is_checked=is_checked, limit=limit)
        self.config, self.blue, self.green = (
            Share(Fake(*facts)) for facts in (("config", 0), ("blue", 2), ("green", 2))
        )

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server, self.now)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server, self.now)

    def give(self, pool: Pool, server: Server, key: str, value: int) -> None:
        if getattr(server, key) != value:
            setattr(server, key, value)
            self.given.append(f"{server.name} {key} {value}")

    def apply(self, share: Share, *addresses: str, weight: int = 1) -> list[str]:
        self.roster.apply(share, found(*addresses, weight=weight))
        return self.members()

    def members(self) -> list[str]:
        return [f"{server.key} {server.shown}" for server in self.pool.servers]

    def server(self, key: str) -> Server:
        return next(server for server in self.pool.servers if server.key == key)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_removed_address_leaves_when_it_is_drained(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80")
    bench.pool.servers[0].inflight = 1
    assert bench.apply(bench.blue, "10.0.0.2:80") == ["10.0.0.1:80 drain", "10.0.0.2:80 up"]
    assert bench.roster.has_leaving
    bench.pool.servers[0].inflight = 0
    bench.roster.remove_drained()
    assert bench.members() == ["10.0.0.2:80 up"] and not bench.roster.has_leaving
    assert len(bench.known) == 1


def test_an_address_that_comes_back_while_draining_is_ready_again(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80")
    server = bench.pool.servers[0]
    server.inflight = 1
    bench.apply(bench.blue, "10.0.0.2:80")
    assert server.admin is Admin.DRAIN and server.why == "blue lost it"
    assert bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80") == ["10.0.0.1:80 up", "10.0.0.2:80 up"]
    assert bench.pool.servers[0] is server


def test_what_an_operator_wants_outlives_the_loss_of_an_address(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80")
    server = bench.pool.servers[0]
    server.inflight = 1
    bench.pool.set_admin(server, Admin.MAINT, "", bench.now)
    bench.apply(bench.blue, "10.0.0.2:80")
    assert bench.roster.has_leaving and server.admin is Admin.MAINT
    bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80")
    assert not bench.roster.has_leaving and server.admin is Admin.MAINT


def test_an_address_that_is_configured_too_is_one_server(bench: Bench) -> None:
    bench.pool.add(Server("mine", parse_address("10.0.0.1:80")))
    bench.apply(bench.config, "10.0.0.1:80")
    assert bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80") == ["10.0.0.1:80 up", "10.0.0.2:80 up"]
    assert bench.apply(bench.blue, "10.0.0.2:80") == ["10.0.0.1:80 up", "10.0.0.2:80 up"]
    assert bench.pool.servers[0].name == "mine"


def test_an_address_of_two_sources_stays_while_one_has_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """In either order; and the one that has it says what it weighs."""
    for first, second in ((bench.blue, bench.green), (bench.green, bench.blue)):
        bench.apply(first, "10.0.0.1:80", weight=2)
        bench.apply(second, "10.0.0.1:80", weight=3)
        server = bench.server("10.0.0.1:80")
        server.inflight = 1
        assert (server.weight, bench.known[server].last) == (2, first.source)
        with caplog.at_level(logging.INFO):
            bench.apply(first)
        assert (server.weight, bench.known[server].last) == (3, second.source)
        assert caplog.messages[-1] == (
            f"pool p: server s-10.0.0.1:80 stays: {first.source.name} lost it, {second.source.name} has it"
        )
        assert bench.apply(second) == ["10.0.0.1:80 drain"]
        server.inflight = 0
        bench.roster.remove_drained()
        assert bench.members() == [] and bench.known == {}


def test_the_lowest_rank_says_what_a_server_is(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80", weight=2)
    bench.apply(bench.config, "10.0.0.1:80", weight=7)
    assert bench.given == ["s-10.0.0.1:80 weight 7"]
    bench.apply(bench.blue, "10.0.0.1:80", weight=4)
    assert bench.given == ["s-10.0.0.1:80 weight 7"]
    bench.apply(bench.config)
    assert bench.given[1:] == ["s-10.0.0.1:80 weight 4"]


def test_a_change_of_a_server_is_applied_to_it_where_it_is() -> None:
    bench = Bench(limit=9)
    bench.roster.apply(bench.blue, found("10.0.0.1:80"))
    server = bench.pool.servers[0]
    assert server.max_inflight == 9
    bench.roster.apply(bench.blue, found("10.0.0.1:80", weight=3, max_inflight=2, backup=True, host="h"))
    assert bench.pool.servers == [server]
    assert (server.weight, server.max_inflight, server.backup, server.host) == (3, 2, True, "h")
    bench.roster.limit = 5
    bench.roster.settle_all()
    assert server.max_inflight == 2, "its own stands over the pool's"
    bench.roster.apply(bench.blue, found("10.0.0.1:80"))
    assert (server.max_inflight, server.backup, server.host) == (5, False, "10.0.0.1")


def test_what_replaces_every_server_is_checked_before_they_go(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """In between nobody could take a request."""
    bench.apply(bench.blue, "10.0.0.1:80")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            bench.apply(bench.blue, "10.0.0.2:80")
    assert caplog.messages == [
        "pool p: server s-10.0.0.2:80 joins",
        "pool p: blue lost every usable server; they stay until a new one passes a check, for 5 s at most",
    ]
    assert not bench.roster.apply(bench.blue, found("10.0.0.2:80"))
    assert bench.members() == ["10.0.0.1:80 up", "10.0.0.2:80 down"]
    bench.pool.set_health(bench.server("10.0.0.2:80"), Health.UP, "", "", bench.now)
    assert bench.roster.apply(bench.blue, found("10.0.0.2:80"))
    assert bench.members() == ["10.0.0.2:80 up"]


def test_who_is_replaced_is_not_kept_for_ever(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80")
    bench.apply(bench.blue, "10.0.0.2:80")
    bench.now += SPARE_S - 0.1
    assert bench.apply(bench.blue, "10.0.0.2:80") == ["10.0.0.1:80 up", "10.0.0.2:80 down"]
    bench.now += 0.2
    assert bench.apply(bench.blue, "10.0.0.2:80") == ["10.0.0.2:80 down"]


def test_who_another_source_has_needs_not_be_kept(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80")
    bench.apply(bench.green, "10.0.0.1:80")
    assert bench.roster.apply(bench.blue, found("10.0.0.2:80"))
    assert bench.members() == ["10.0.0.1:80 up", "10.0.0.2:80 down"]
    assert bench.blue.found.keys() == {"10.0.0.2:80"}


def test_who_is_down_is_not_kept(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80")
    bench.pool.server_refused(bench.pool.servers[0], bench.now)
    assert bench.apply(bench.blue, "10.0.0.2:80") == ["10.0.0.2:80 down"]


def test_an_empty_answer_empties_the_pool_at_once(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80")
    assert bench.apply(bench.blue) == []


def test_what_an_operator_added_is_his(bench: Bench) -> None:
    """No source but the config takes it over; when he removes it, a source that has the address has its turn."""
    own = Server("own", parse_address("10.0.0.1:80"))
    bench.pool.add(own)
    bench.apply(bench.blue, "10.0.0.1:80", "10.0.0.2:80", weight=5)
    assert own not in bench.known and own.weight == 1
    bench.pool.remove(own)
    bench.roster.left(own, [bench.blue])
    assert [server.name for server in bench.pool.servers] == ["s-10.0.0.2:80", "s-10.0.0.1:80"]


def test_what_an_operator_removed_comes_back_with_a_change_only(bench: Bench) -> None:
    bench.apply(bench.config, "10.0.0.1:80", "10.0.0.2:80")
    removed = bench.pool.servers[0]
    bench.pool.remove(removed)
    bench.roster.left(removed, [])
    assert bench.apply(bench.config, "10.0.0.1:80", "10.0.0.2:80") == ["10.0.0.2:80 up"]
    bench.apply(bench.config, "10.0.0.2:80")
    assert bench.apply(bench.config, "10.0.0.1:80", "10.0.0.2:80") == ["10.0.0.2:80 up", "10.0.0.1:80 down"]


def test_two_servers_never_share_a_name(bench: Bench) -> None:
    wanted = {text: Found(parse_address(text), "gpu") for text in ("10.0.0.1:80", "10.0.0.2:80")}
    bench.roster.apply(bench.blue, wanted)
    assert [server.name for server in bench.pool.servers] == ["gpu", "gpu/10.0.0.2:80"]


def test_a_pool_that_is_forgotten_has_no_members(bench: Bench) -> None:
    bench.apply(bench.blue, "10.0.0.1:80")
    bench.roster.forget()
    assert bench.known == {} and bench.members() == ["10.0.0.1:80 up"]


def test_zones_are_what_the_source_says() -> None:
    bench = Bench(is_checked=False)
    bench.roster.apply(bench.blue, found("10.0.0.1:80", "10.0.0.2:80"))
    bench.roster.apply(bench.blue, {**found("10.0.0.1:80"), **found("10.0.0.2:80", zone="eu-central-1b", far=True)})
    server = bench.server("10.0.0.2:80")
    assert (server.zone, server.far) == ("eu-central-1b", True)
    assert [item.key for item in bench.pool.eligible()] == ["10.0.0.1:80"]
    bench.roster.apply(bench.blue, found("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", zone="eu-central-1b"))
    assert [item.zone for item in bench.pool.servers] == ["eu-central-1b"] * 3
    assert len(bench.pool.eligible()) == 3
