import json
import logging
import random

import pytest

from lbproxy.address import parse_address
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.dns import NameSource
from lbproxy.control.discovery.source import Source
from lbproxy.control.event_log import EventLog
from lbproxy.control.live import MAX_ADDRESSES, Conflict, LiveControl, NotThere, hosts_in
from lbproxy.control.live_values import Change, Refused
from lbproxy.control.status import Json
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.least_connections import LeastConnections
from tests.support.tickets import CallingTicket

CI = Caller("ci", "192.0.2.1")
HERE = Caller("", "127.0.0.1")


class Bench:
    """A pool of two servers, and the live control of it; the clock is moved by hand."""

    def __init__(self, *, is_checked: bool = True) -> None:
        self.now = 100.0
        strategy = LeastConnections({}, random.Random(1))
        servers = [Server(text, parse_address(text)) for text in ("10.0.0.1:80", "unix:/run/app.sock")]
        self.pool = Pool(
            "predict", servers, strategy, strategy, passive_retry_s=None if is_checked else 10.0, queue=WaitQueue()
        )
        self.a, self.b = servers
        self.sources_of: dict[Server, Source] = {}
        self.lost: set[Server] = set()
        self.kicked: list[Server] = []
        self.events = EventLog(lambda: self.now)
        self.live = LiveControl(
            {"predict": self.pool},
            self,
            self,
            lambda pool, server: self.kicked.append(server),
            lambda: self.now,
            self.events,
        )

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server, self.now)
        self.live.joined(server)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server)
        self.live.left(server)

    def source_of(self, server: Server) -> Source | None:
        return self.sources_of.get(server)

    def keeper_of(self, server: Server) -> Source | None:
        return self.sources_of.get(server)

    def is_leaving(self, server: Server) -> bool:
        return server in self.lost

    def change(self, server: Server, caller: Caller = CI, **wanted: object) -> dict[str, Change]:
        return self.live.change(self.pool, server, wanted, caller)

    def take(self) -> Lease:
        lease = self.pool.acquire(PickContext("192.0.2.7"), (), self.now)
        assert isinstance(lease, Lease)
        return lease

    def wait(self) -> list[Lease]:
        """The lease of one who waits, once it has one."""
        leases: list[Lease] = []
        ticket = CallingTicket(
            PickContext("192.0.2.7"), lambda lease, now: leases.append(lease), pytest.fail, enqueued_at=self.now
        )
        assert self.pool.enqueue(ticket, self.now)
        return leases

    def sources(self, server: Server) -> dict[str, Json]:
        told = self.live.told(server, self.now)["sources"]
        assert isinstance(told, dict)
        return told


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_change_says_what_was_and_what_is(bench: Bench) -> None:
    assert bench.change(bench.a, admin="drain", weight=5, max_inflight=3) == {
        "admin": Change("ready", "drain"),
        "weight": Change(1, 5),
        "max_inflight": Change(None, 3),
    }
    assert (bench.a.admin, bench.a.weight, bench.a.max_inflight) == (Admin.DRAIN, 5, 3)
    assert bench.change(bench.a, admin="drain", weight=6) == {"weight": Change(5, 6)}
    assert bench.a.why == "drained by ci from 192.0.2.1"


@pytest.mark.parametrize("off", [None, "off", False])
def test_a_limit_can_be_taken_away(bench: Bench, off: object) -> None:
    bench.change(bench.a, max_inflight=2)
    assert bench.change(bench.a, max_inflight=off) == {"max_inflight": Change(2, None)}
    assert bench.a.max_inflight == 0


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"admin": "drained"}, "admin: expected ready, drain, maint, got 'drained'"),
        ({"admin": None}, "admin: expected ready, drain, maint, got None"),
        ({"admin": ["drain"]}, "admin: expected ready, drain, maint, got ['drain']"),
        ({"weight": -1}, "weight: expected a whole number from 0 to 65535, got -1"),
        ({"weight": "5"}, "weight: expected a whole number from 0 to 65535"),
        ({"weight": True}, "weight: expected a whole number from 0 to 65535, got true"),
        ({"weight": 1.5}, "weight: expected a whole number from 0 to 65535"),
        ({"max_inflight": 0}, "max_inflight: expected a whole number from 1 to 1000000, got 0; null or"),
        ({"max_inflight": {}}, "max_inflight: expected a whole number from 1 to 1000000, got a mapping"),
        ({"wieght": 1}, "wieght: unknown key; did you mean weight?"),
        ({"x": 1}, "x: unknown key; known keys: admin, weight, max_inflight"),
        ({}, "nothing to change"),
    ],
)
def test_what_is_wrong_changes_nothing(bench: Bench, wanted: dict[str, object], said: str) -> None:
    right: dict[str, object] = {"weight": 7, "max_inflight": 7, "admin": "maint"} if wanted else {}
    with pytest.raises(Refused) as refused:
        bench.live.change(bench.pool, bench.a, right | wanted, CI)
    assert [problem.startswith(said) for problem in refused.value.problems] == [True], refused.value.problems
    assert (bench.a.admin, bench.a.weight, bench.a.max_inflight) == (Admin.READY, 1, 0)


def test_every_problem_is_told_at_once(bench: Bench) -> None:
    with pytest.raises(Refused) as refused:
        bench.change(bench.a, admin="off", weight="x", more=1)
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ({"max_inflight": 1}, {"max_inflight": 2}),
        ({"max_inflight": 1}, {"max_inflight": None}),
        ({"max_inflight": 1}, {"max_inflight": "file"}),
        ({"admin": "drain", "max_inflight": 2}, {"admin": "ready"}),
        ({"max_inflight": 2, "weight": 0}, {"weight": 1}),
    ],
)
def test_what_lets_more_in_wakes_who_waits(bench: Bench, before: dict[str, object], change: dict[str, object]) -> None:
    bench.change(bench.b, admin="maint")
    bench.take()
    bench.live.change(bench.pool, bench.a, before, CI)
    waiting = bench.wait()
    assert waiting == []
    bench.live.change(bench.pool, bench.a, change, CI)
    assert [lease.server for lease in waiting] == [bench.a]


def test_nobody_gets_a_slot_that_the_same_call_takes_away(bench: Bench) -> None:
    bench.change(bench.b, admin="maint")
    bench.change(bench.a, admin="drain", max_inflight=5)
    waiting = [bench.wait() for _ in range(3)]
    bench.change(bench.a, admin="ready", max_inflight=2)
    assert [len(leases) for leases in waiting] == [1, 1, 0]
    bench.change(bench.a, max_inflight=None, admin="drain")
    assert waiting[2] == []


def test_a_drained_server_gets_nothing_and_keeps_what_it_has(bench: Bench) -> None:
    bench.change(bench.b, admin="drain")
    lease = bench.take()
    assert lease.server is bench.a and bench.a.inflight == 1
    bench.change(bench.a, admin="drain")
    bench.change(bench.b, admin="ready")
    assert {bench.take().server for _ in range(5)} == {bench.b}
    assert bench.a.inflight == 1


def test_a_server_that_leaves_maintenance_is_checked_at_once(bench: Bench) -> None:
    bench.change(bench.a, admin="drain")
    bench.change(bench.a, admin="ready")
    assert bench.kicked == []
    bench.change(bench.a, admin="maint")
    bench.change(bench.a, admin="ready")
    assert bench.kicked == [bench.a]


def test_each_change_is_one_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lbproxy.control.live")
    bench.change(bench.a, weight=5, admin="drain")
    bench.change(bench.a, weight=5, admin="drain")
    bench.change(bench.a, Caller("", "unix"), max_inflight=2)
    assert caplog.messages == [
        "pool predict: server 10.0.0.1:80: weight: 1 -> 5, admin: ready -> drain, by ci from 192.0.2.1",
        "pool predict: server 10.0.0.1:80: max_inflight: off -> 2, by the unix socket",
    ]


def test_the_status_says_who_set_a_value_and_what_the_file_has(bench: Bench) -> None:
    bench.now = 130.0
    in_file = {"source": "file", "by": None, "since": 30.0, "given": None}
    assert bench.live.told(bench.a, bench.now) == {
        "source": "file",
        "leaving": False,
        "sources": dict.fromkeys(("admin", "weight", "max_inflight"), in_file),
    }
    bench.change(bench.a, HERE, weight=3, max_inflight=9)
    bench.now = 140.0
    assert bench.sources(bench.a) == {
        "admin": {**in_file, "since": 40.0},
        "weight": {"source": "live", "by": "127.0.0.1", "since": 10.0, "given": 1},
        "max_inflight": {"source": "live", "by": "127.0.0.1", "since": 10.0, "given": None},
    }


@pytest.mark.parametrize("value", ["file", 1])
def test_a_value_is_given_back_to_the_file(bench: Bench, value: object) -> None:
    bench.change(bench.a, weight=3)
    bench.change(bench.a, weight=4)
    assert bench.sources(bench.a)["weight"]["given"] == 1
    assert bench.change(bench.a, weight=value) == {"weight": Change(4, 1)}
    assert bench.sources(bench.a)["weight"]["source"] == "file"
    assert bench.change(bench.a, weight="file") == {}


def test_names_that_are_not_there_bring_those_that_may_be_meant(bench: Bench) -> None:
    with pytest.raises(NotThere, match=r"there is no pool predcit; did you mean predict\?"):
        bench.live.pool("predcit")
    with pytest.raises(NotThere, match="there is no pool x; pools: predict"):
        bench.live.pool("x")
    with pytest.raises(NotThere, match=r"there is no server 10\.0\.0\.2:80; did you mean 10\.0\.0\.1:80\?"):
        bench.live.server(bench.pool, "10.0.0.2:80")
    known = Name("app.example", 1.0)
    known.servers = ("app.example:80",)
    bench.pool.names.append(known)
    with pytest.raises(NotThere, match=r"app.example:80 of pool predict has no address yet \(app.example: not looked"):
        bench.live.server(bench.pool, "app.example:80")
    assert bench.live.server(bench.pool, "unix:/run/app.sock") is bench.b


def test_a_server_is_also_found_by_its_address(bench: Bench) -> None:
    [server] = bench.live.add(bench.pool, {"address": "10.0.0.9:80", "name": "nine"}, CI)
    assert bench.live.server(bench.pool, "nine") is server
    assert bench.live.server(bench.pool, "10.0.0.9:80") is server


def test_an_added_server_waits_for_its_first_check(bench: Bench) -> None:
    asked = {"address": "10.0.0.9:80", "name": "nine", "weight": 3, "max_inflight": 2, "backup": True}
    [server] = bench.live.add(bench.pool, asked, CI)
    assert (server.name, server.key, server.weight, server.max_inflight, server.backup) == (
        "nine",
        "10.0.0.9:80",
        3,
        2,
        True,
    )
    assert server in bench.pool.servers and server.shown == "down" and server not in bench.pool.eligible()
    told = bench.live.told(server, bench.now)
    assert told["source"] == "live" and bench.sources(server)["weight"]["by"] == "ci from 192.0.2.1"
    bench.pool.set_health(bench.a, Health.DOWN, "refused", "", bench.now)
    bench.pool.set_health(bench.b, Health.DOWN, "refused", "", bench.now)
    assert bench.pool.eligible() == (), "not even where the pool fails open"
    bench.pool.set_health(server, Health.UP, "", "", bench.now)
    assert bench.pool.eligible() == (server,)


def test_without_checks_an_added_server_is_used_at_once() -> None:
    bench = Bench(is_checked=False)
    bench.change(bench.a, max_inflight=1)
    bench.change(bench.b, admin="drain")
    bench.take()
    waiting = bench.wait()
    [server] = bench.live.add(bench.pool, {"address": "10.0.0.9:80"}, CI)
    assert [lease.server for lease in waiting] == [server]


def test_a_range_is_several_servers(bench: Bench) -> None:
    assert [server.name for server in bench.live.add(bench.pool, {"address": "10.0.0.9:80-82"}, CI)] == [
        "10.0.0.9:80",
        "10.0.0.9:81",
        "10.0.0.9:82",
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "address: is required"),
        ({"address": "10.0.0.9"}, "address: "),
        ({"address": "10.0.0.9:80", "weigth": 2}, "weigth: unknown key; did you mean weight?"),
        ({"address": "10.0.0.9:80", "weight": 70000}, "weight: expected a whole number from 0 to 65535, got 70000"),
        ({"address": "10.0.0.9:80", "name": "a b"}, "name: expected a name"),
        ({"address": "10.0.0.9:80", "backup": 1}, "backup: "),
        ({"address": "app.example:80"}, "address: app.example has 0 addresses"),
    ],
)
def test_a_server_is_added_by_the_rules_of_the_file(bench: Bench, asked: dict[str, object], said: str) -> None:
    with pytest.raises(Refused) as refused:
        bench.live.add(bench.pool, asked, CI)
    assert [problem.startswith(said) for problem in refused.value.problems] == [True], refused.value.problems
    assert bench.pool.servers == [bench.a, bench.b]


@pytest.mark.parametrize(
    "asked",
    [
        {"address": "10.0.0.1:80"},
        {"address": "10.0.0.1:79-81"},
        {"address": "10.0.0.9:1", "name": "10.0.0.1:80"},
        {"address": "unix:/run/app.sock"},
    ],
)
def test_a_name_and_an_address_stand_once_in_a_pool(bench: Bench, asked: dict[str, object]) -> None:
    with pytest.raises(Conflict, match="of pool predict has this"):
        bench.live.add(bench.pool, asked, CI)
    assert bench.pool.servers == [bench.a, bench.b]


def test_a_removed_server_drains_and_goes(bench: Bench) -> None:
    assert bench.live.remove(bench.pool, bench.b, CI)
    assert bench.pool.servers == [bench.a]
    lease = bench.take()
    assert not bench.live.remove(bench.pool, bench.a, CI)
    assert not bench.live.remove(bench.pool, bench.a, CI), "again is the same"
    assert bench.live.told(bench.a, bench.now)["leaving"] and bench.a.shown == "drain"
    bench.live.remove_drained()
    assert bench.pool.servers == [bench.a]
    lease.release(Outcome.SUCCESS, bench.now)
    bench.live.remove_drained()
    assert bench.pool.servers == []


def test_ready_takes_a_removed_server_back(bench: Bench) -> None:
    lease = bench.take()
    bench.live.remove(bench.pool, lease.server, CI)
    with pytest.raises(Conflict, match="it is being removed, and `ready` takes it back"):
        bench.live.add(bench.pool, {"address": lease.server.key}, CI)
    assert bench.change(lease.server, admin="ready") == {"admin": Change("drain", "ready")}
    lease.release(Outcome.SUCCESS, bench.now)
    bench.live.remove_drained()
    assert lease.server in bench.pool.servers and lease.server.is_usable
    assert bench.sources(lease.server)["admin"]["source"] == "file"


def from_dns(host: str) -> Source:
    async def resolve(name: str) -> list[str]:
        raise OSError(name)

    return NameSource(Name(host, 0.0), [], 5.0, 1.0, resolve, lambda: 0.0, lambda: None)


def test_servers_from_dns_are_drained_but_not_removed(bench: Bench) -> None:
    bench.sources_of[bench.a] = from_dns("app.example")
    assert bench.live.told(bench.a, bench.now)["source"] == "dns"
    bench.change(bench.a, admin="drain")
    with pytest.raises(Conflict, match=r"comes from DNS \(app.example\), which would bring it back"):
        bench.live.remove(bench.pool, bench.a, CI)
    assert bench.a in bench.pool.servers


def test_what_dns_lets_go_is_not_made_ready(bench: Bench) -> None:
    bench.sources_of[bench.a] = from_dns("app.example")
    bench.lost.add(bench.a)
    bench.pool.set_admin(bench.a, Admin.DRAIN, "", bench.now)
    bench.now += 5.0
    with pytest.raises(Conflict, match=r"leaves the pool: app\.example no longer has this address"):
        bench.change(bench.a, admin="ready", weight=3)
    assert bench.a.weight == 1
    assert bench.sources(bench.a)["admin"] == {"source": "dns", "by": None, "since": 5.0, "given": None}


def test_a_weight_of_a_source_is_in_force_at_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    lease = bench.take()
    with caplog.at_level(logging.INFO):
        bench.live.give(bench.pool, bench.a, "weight", 3)
        bench.live.give(bench.pool, bench.a, "weight", 3)
        bench.live.give(bench.pool, bench.a, "max_inflight", 8)
    assert (bench.a.weight, bench.a.max_inflight, lease.is_out) == (3, 8, True)
    assert caplog.messages == [
        "pool predict: server 10.0.0.1:80: weight: 1 -> 3",
        "pool predict: server 10.0.0.1:80: max_inflight: off -> 8",
    ]
    assert bench.sources(bench.a)["weight"]["source"] == "file"


def test_a_live_value_stands_over_what_a_source_says(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.change(bench.a, weight=7)
    with caplog.at_level(logging.INFO):
        bench.live.give(bench.pool, bench.a, "weight", 3)
    assert bench.a.weight == 7 and caplog.messages == [
        "pool predict: server 10.0.0.1:80: weight: 1 -> 3; the live value 7 stands"
    ]
    assert bench.sources(bench.a)["weight"]["given"] == 3
    bench.change(bench.a, weight="file")
    assert bench.a.weight == 3


def test_a_higher_limit_of_a_source_lets_who_waits_in(bench: Bench) -> None:
    for server in (bench.a, bench.b):
        bench.change(server, max_inflight=1)
        bench.change(server, max_inflight="file")
        bench.live.give(bench.pool, server, "max_inflight", 1)
    bench.take(), bench.take()
    leases = bench.wait()
    assert leases == []
    bench.live.give(bench.pool, bench.a, "max_inflight", 2)
    assert len(leases) == 1


def test_the_values_of_a_server_of_a_file_are_the_file_s(bench: Bench) -> None:
    class File(Source):
        kind = values_from = "servers_file"

    bench.sources_of[bench.a] = File("servers_file:a.yaml", "servers_file a.yaml")
    told = bench.live.told(bench.a, bench.now)
    assert told["source"] == "servers_file" and bench.sources(bench.a)["weight"]["source"] == "servers_file"


def test_each_change_is_an_event(bench: Bench) -> None:
    bench.change(bench.a, admin="drain", max_inflight=3)
    [added] = bench.live.add(bench.pool, {"address": "10.0.0.9:80"}, HERE)
    bench.live.remove(bench.pool, added, HERE)
    told = [json.loads(event.text) for event in bench.events.after(0)]
    assert {(event["kind"], event["pool"]) for event in told} == {("live", "predict")}
    assert [(event["server"], event["text"].rpartition(": ")[0], event["by"]) for event in told[1:]] == [
        ("10.0.0.9:80", "pool predict: server 10.0.0.9:80", "127.0.0.1"),
        ("10.0.0.9:80", "pool predict: server 10.0.0.9:80", "127.0.0.1"),
        ("10.0.0.9:80", "pool predict: server 10.0.0.9:80", None),
    ]
    assert [event["text"].rpartition(": ")[2] for event in told[1:]] == ["added", "is removed when it is idle", "gone"]
    first = told[0]
    assert first["text"] == ("pool predict: server 10.0.0.1:80: admin: ready -> drain, max_inflight: off -> 3")
    assert (first["by"], first["old"], first["new"]) == (
        "ci from 192.0.2.1",
        {"admin": "ready", "max_inflight": None},
        {"admin": "drain", "max_inflight": 3},
    )


def test_what_changes_nothing_is_no_event(bench: Bench) -> None:
    bench.change(bench.a, admin="ready")
    assert bench.events.last == 0


def test_maintenance_may_have_an_end_for_what_is_in_flight(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.take()
    busy = bench.a if bench.a.inflight else bench.b
    assert bench.change(busy, admin="maint", after="30s") == {
        "admin": Change("ready", "maint"),
        "after": Change(None, 30.0),
    }
    assert busy.cut_at == bench.now + 30.0
    bench.now += 10.0
    assert bench.pool.why(busy, bench.now).endswith("; what is in flight is cut in 20 s")
    assert bench.change(busy, admin="maint", after=5) == {"after": Change(20.0, 5.0)}
    bench.now += 5.0
    bench.live.tell_cuts()
    bench.live.tell_cuts()
    told = f"pool predict: server {busy.name}: the time for what was in flight is over: 1 left, to be cut"
    assert caplog.messages.count(told) == 1


def test_a_name_becomes_a_server_for_each_of_its_addresses(bench: Bench) -> None:
    assert hosts_in("10.0.0.7:80") == []
    assert hosts_in("model:80-81") == ["model"]
    found = bench.live.add(bench.pool, {"address": "model:80", "weight": 3}, CI, {"model": ["10.0.0.7", "::1"]})
    assert [(s.name, s.key, s.host, s.weight) for s in found] == [
        ("model:80/10.0.0.7", "10.0.0.7:80", "model", 3),
        ("model:80/::1", "[::1]:80", "model", 3),
    ]
    with pytest.raises(Conflict, match="has this address"):
        bench.live.add(bench.pool, "model:80", CI, {"model": ["10.0.0.7"]})


@pytest.mark.parametrize("n", [0, MAX_ADDRESSES + 1])
def test_a_name_with_no_address_or_too_many_is_refused(bench: Bench, n: int) -> None:
    addresses = {"model": [f"10.0.1.{number}" for number in range(n)]}
    with pytest.raises(Refused, match=f"address: model has {n} addresses, and 1 to 64 are taken"):
        bench.live.add(bench.pool, "model:80", CI, addresses)
    assert len(bench.pool.servers) == 2


@pytest.mark.parametrize("change", [{"admin": "maint", "after": "off"}, {"admin": "drain"}, {"admin": "ready"}])
def test_what_was_to_be_cut_is_spared(
    bench: Bench, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    bench.change(bench.a, admin="maint", after=5)
    bench.live.change(bench.pool, bench.a, change, CI)
    assert bench.a.cut_at == float("inf")
    bench.now += 10.0
    bench.live.tell_cuts()
    assert "is over" not in caplog.text


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"admin": "drain", "after": 5}, "after: it belongs to `admin: maint`"),
        ({"after": 5}, "after: it belongs to `admin: maint`"),
        ({"admin": "maint", "keep_sticky": True}, "keep_sticky: it belongs to `admin: drain`"),
        ({"keep_sticky": True}, "keep_sticky: it belongs to `admin: drain`"),
        ({"admin": "drain", "keep_sticky": "yes"}, "keep_sticky: expected true or false, got 'yes'"),
        ({"admin": "maint", "after": -1}, "after: "),
        ({"admin": "maint", "after": "soon"}, "after: "),
        ({"admin": "maint", "after": True}, "after: "),
    ],
)
def test_an_end_that_makes_no_sense_changes_nothing(bench: Bench, wanted: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        bench.live.change(bench.pool, bench.a, wanted, CI)
    assert bench.a.admin is Admin.READY


def test_a_drain_may_keep_who_sticks_until_the_next_word() -> None:
    bench = Bench()
    kept, said = Change(False, True), Change("ready", "drain")
    assert bench.change(bench.a, admin="drain", keep_sticky=True) == {"admin": said, "keep_sticky": kept}
    assert bench.a.keep_sticky and bench.a.keeps_its_own and bench.a.why.endswith("; who sticks to it stays")
    assert bench.change(bench.a, admin="drain", keep_sticky=True) == {}
    assert bench.change(bench.a, weight=2) == {"weight": Change(1, 2)} and bench.a.keep_sticky
    assert bench.change(bench.a, admin="drain") == {"keep_sticky": Change(True, False)}
    assert not bench.a.keeps_its_own
    bench.change(bench.a, admin="drain", keep_sticky=True)
    assert bench.change(bench.a, admin="ready") == {
        "admin": Change("drain", "ready"),
        "keep_sticky": Change(True, False),
    }
