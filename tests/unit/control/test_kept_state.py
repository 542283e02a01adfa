"""What a process hands to the next one: nothing is lost, nothing false is believed, the file has the last word."""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import parse_address
from lbproxy.config.model import Pool as PoolConfig
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.roster import JOINING
from lbproxy.control.discovery.source import Source
from lbproxy.control.event_log import EventLog
from lbproxy.control.file_servers import FileServers, server_of
from lbproxy.control.kept_state import BELIEVED_S, SHOWN, SUCCESSION, UPGRADE, WAIT_S, KeptState
from lbproxy.control.live import LiveControl
from lbproxy.control.splits import SplitControl, SplitPlace
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.splitting import MOST_POOLS, Split
from lbproxy.domain.states import REFUSED, Admin, Breaker, Health
from lbproxy.domain.strategies.least_connections import LeastConnections

CI = Caller("ci", "192.0.2.1")
A, B, C, D = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"
START = 1_700_000_000.0


def config(*servers: object, **more: object) -> PoolConfig:
    return PoolConfig.model_validate({"servers": list(servers), **more})


class Process:
    """One life of a process: a pool `p` whose file is `config`. Both clocks are moved by hand."""

    def __init__(self, *servers: object, wall: float = START, clock: float = 1000.0, sources: bool = False) -> None:
        self.wall = wall
        self.now = clock
        strategy = LeastConnections({}, random.Random(1))
        self.config = config(*servers)
        self.pool = Pool("p", (), strategy, strategy, breaker=BreakerPolicy(), max_ejected=0.5)
        for spec in self.config.servers:
            self.pool.add(server_of(spec, self.config))
        self.pools = {"p": self.pool}
        self.named: dict[Server, Source] = {}
        self.n_changes = 0
        events = EventLog(lambda: self.wall)
        self.live = LiveControl(
            self.pools, self, self, lambda pool, server: None, lambda: self.now, events, self._changed
        )
        self.file = FileServers(self.live, self, self, lambda: self.now)
        self.places: list[SplitPlace] = []
        self.splits = SplitControl(lambda: self.places, lambda: self.now, events, self._changed)
        self.kept = KeptState(
            self.pools, self.live, self, lambda pool: sources, lambda: self.now, lambda: self.wall, self.splits
        )

    def _changed(self) -> None:
        self.n_changes += 1

    def add(self, pool: Pool, server: Server) -> None:
        self.live.joined(server)
        pool.add(server, self.now)
        self.kept.joined(pool, server)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server, self.now)
        self.live.left(server)

    def source_of(self, server: Server) -> Source | None:
        return self.named.get(server)

    keeper_of = source_of

    def is_leaving(self, server: Server) -> bool:
        return False

    def server(self, name: str) -> Server:
        return next(server for server in self.pool.servers if server.name == name)

    def change(self, name: str, **wanted: object) -> None:
        self.live.change(self.pool, self.server(name), wanted, CI)

    def snapshot(self) -> Any:
        return json.loads(json.dumps(self.kept.snapshot(), allow_nan=False))

    def next(self, *servers: object, after_s: float = 5.0, sources: bool = False) -> Process:
        """The process after this one, which begins after a while, on a machine that was started anew."""
        data = self.snapshot()
        made = Process(*servers, wall=self.wall + after_s, clock=50.0, sources=sources)
        made.kept.restore(data)
        return made

    def sources(self, name: str) -> Any:
        return self.live.told(self.server(name), self.now)["sources"]

    @property
    def names(self) -> list[str]:
        return [server.name for server in self.pool.servers]


def test_where_nothing_was_changed_there_is_nothing_to_keep() -> None:
    process = Process(A, B)
    process.pool.set_health(process.server(A), Health.UP, "", "answered", process.now)
    assert process.snapshot() == {"version": 1, "saved_at": START, "pools": {}}


def test_live_values_stand_again_with_who_set_them_and_when() -> None:
    first = Process(A, B)
    first.change(A, admin="drain", weight=7, max_inflight=3)
    first.now += 10.0
    first.wall += 10.0
    second = first.next(A, B, after_s=20.0)
    server = second.server(A)
    assert (server.admin, server.weight, server.max_inflight) == (Admin.DRAIN, 7, 3)
    told = {"source": "live", "by": "ci from 192.0.2.1", "since": 30.0}
    assert second.sources(A) == {
        "admin": {**told, "given": "ready"},
        "weight": {**told, "given": 1},
        "max_inflight": {**told, "given": None},
    }
    assert server.why == "drained by ci from 192.0.2.1"
    second.change(A, admin="file", weight="file", max_inflight="file")
    assert (server.admin, server.weight, server.max_inflight) == (Admin.READY, 1, 0)
    assert second.snapshot()["pools"] == {}


def test_what_was_kept_is_kept_again() -> None:
    first = Process(A, B)
    first.change(A, weight=7)
    first.live.add(first.pool, {"address": C, "weight": 3}, CI)
    first.live.remove(first.pool, first.server(B), CI)
    second = first.next(A, B, after_s=0.0)
    assert second.snapshot() == first.snapshot()
    assert second.next(A, B, after_s=0.0).snapshot() == first.snapshot()


def test_where_the_file_says_something_else_now_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    first = Process(A, B)
    first.change(A, weight=7, max_inflight=3)
    with caplog.at_level(logging.INFO, "lbproxy"):
        second = first.next({"address": A, "weight": 2}, B)
    assert (second.server(A).weight, second.server(A).max_inflight) == (2, 3)
    assert (
        f"pool p: server {A}: weight: the file says 2 now, which stands over 7, set before the restart by "
        "ci from 192.0.2.1" in caplog.messages
    )


def test_what_is_not_there_any_more_is_told_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    first = Process(A, B)
    first.change(A, weight=7)
    first.pool.set_health(first.server(B), Health.DOWN, REFUSED, "refused", first.now)
    with caplog.at_level(logging.INFO, "lbproxy"):
        second = first.next(C)
    assert caplog.messages == [f"state: pool p: server {A} is not there any more: weight 7 is dropped"]
    assert second.snapshot()["pools"] == {}


def test_a_pool_that_is_not_there_any_more_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    first = Process(A, B)
    first.change(A, weight=7)
    first.change(B, weight=7)
    data = first.snapshot()
    second = Process(A)
    second.pools.clear()
    with caplog.at_level(logging.INFO, "lbproxy"):
        second.kept.restore(data)
    assert caplog.messages == ["state: pool p is not there any more: what was changed of its servers is dropped"]


def test_lines_about_what_is_gone_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"10.0.1.{n}:80" for n in range(SHOWN + 30)]
    first = Process(*names)
    for name in names:
        first.change(name, weight=7)
    with caplog.at_level(logging.INFO, "lbproxy"):
        caplog.clear()
        first.next(A)
    assert len(caplog.messages) == SHOWN + 1
    assert caplog.messages[-1] == "state: 30 more pools and servers are not there any more"


def test_added_servers_are_there_again_with_what_they_were_added_with() -> None:
    first = Process(A)
    first.live.add(first.pool, {"address": C, "weight": 3, "max_inflight": 4, "name": "new", "backup": True}, CI)
    first.change("new", weight=9)
    second = first.next(A)
    server = second.server("new")
    assert (server.key, server.weight, server.max_inflight, server.backup) == (C, 9, 4, True)
    assert second.sources("new")["weight"]["given"] == 3
    assert second.live.told(server, second.now)["source"] == "live"
    assert second.sources("new")["max_inflight"]["by"] == "ci from 192.0.2.1"


def test_one_that_was_added_by_its_name_keeps_that_for_tls() -> None:
    first = Process(A)
    first.live.add(first.pool, "model:80", CI, {"model": ["10.0.0.3"]})
    second = first.next(A)
    assert second.server("model:80/10.0.0.3").host == "model"
    assert second.snapshot()["pools"] == first.snapshot()["pools"]


def test_an_added_server_that_the_file_names_now_is_the_files() -> None:
    first = Process(A)
    first.live.add(first.pool, {"address": C, "weight": 3}, CI)
    first.change(C, weight=9, admin="drain")
    second = first.next(A, {"address": C, "weight": 3})
    assert second.server(C).weight == 3
    assert second.server(C).admin is Admin.DRAIN  # as after a reload: the file says nothing of that
    assert second.live.told(second.server(C), second.now)["source"] == "file"


def test_an_added_server_whose_name_is_taken_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    first = Process(A)
    first.live.add(first.pool, {"address": C, "name": "new"}, CI)
    with caplog.at_level(logging.INFO, "lbproxy"):
        second = first.next({"address": B, "name": "new"})
    assert second.names == ["new"]
    assert caplog.messages[-1].endswith("is left out: new has its name or its address")


def test_removed_servers_stay_away_while_the_file_is_what_it_was() -> None:
    first = Process(A, B)
    first.live.remove(first.pool, first.server(B), CI)
    assert first.names == [A]
    second = first.next(A, B)
    assert second.names == [A]
    third = second.next(A, B)
    assert third.names == [A]
    assert third.next(A, {"address": B, "name": "other"}).names == [A, "other"]


def test_a_removed_server_that_is_added_again_is_there_again() -> None:
    first = Process(A, B)
    first.live.remove(first.pool, first.server(B), CI)
    first.live.add(first.pool, {"address": B}, CI)
    assert first.next(A, B).names == [A, B]


def test_one_that_is_still_leaving_is_gone_for_the_next_process() -> None:
    first = Process(A, B)
    first.server(B).inflight = 1
    first.live.remove(first.pool, first.server(B), CI)
    assert first.names == [A, B]
    assert first.next(A, B).names == [A]
    first.change(B, admin="ready")  # and here it is taken back
    assert first.next(A, B).names == [A, B]


def test_removals_are_forgotten_with_their_entry_of_the_file() -> None:
    first = Process(A, B)
    first.live.remove(first.pool, first.server(B), CI)
    first.live.file_names("p", [(A, A), (B, B)])
    assert first.snapshot()["pools"]["p"]["removed"]
    first.live.file_names("p", [(A, A)])
    assert first.snapshot()["pools"] == {}


def test_who_was_down_gets_no_request_and_the_reason_is_told_once() -> None:
    first = Process(A, B)
    first.pool.set_health(first.server(A), Health.UP, "", "", first.now)
    first.pool.set_health(first.server(A), Health.DOWN, "status", "answered 503", first.now)
    second = first.next(A, B, after_s=7.0)
    server = second.server(A)
    assert (server.health, server.was_up, server.down_reason) == (Health.DOWN, True, "status")
    assert server.why == "before the restart: answered 503"
    assert second.now - server.changed_at == pytest.approx(7.0)
    assert second.next(A, B).server(A).why == "before the restart: answered 503"


@pytest.mark.parametrize("age_s", [BELIEVED_S + 1, -BELIEVED_S - 1])
def test_old_verdicts_are_not_believed_but_the_operators_word_is(
    age_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    first = Process(A, B)
    first.pool.set_health(first.server(A), Health.DOWN, "status", "answered 503", first.now)
    first.change(B, weight=4)
    with caplog.at_level(logging.INFO, "lbproxy"):
        second = first.next(A, B, after_s=age_s)
    assert second.server(A).health is Health.UNKNOWN
    assert second.server(B).weight == 4
    assert f"state: which servers were down is not believed, as it was known {age_s:.0f} s ago" in caplog.messages


def fail(process: Process, name: str, n: int = 5) -> None:
    for _ in range(n):
        Lease(process.pool, process.server(name), process.now).release(Outcome.FAILURE, process.now, what="resets")


def test_an_ejection_goes_on_and_ends_with_a_probe() -> None:
    first = Process(A, B, C)
    fail(first, A)
    assert first.server(A).shown == "ejected"
    second = first.next(A, B, C, after_s=4.0)
    server, circuit = second.server(A), second.server(A).circuit
    assert circuit is not None and server.shown == "ejected"
    assert circuit.open_until - second.now == pytest.approx(6.0)
    assert second.pool.why(server, second.now) == "ejected 0 s ago: 5 consecutive resets, next probe in 6 s"
    second.pool.sweep(second.now + 6.1)
    assert server.shown == "probing"
    assert circuit.level == 1  # the next time it is out for longer
    third = second.next(A, B, C, after_s=60.0)
    third.pool.sweep(third.now)
    assert third.server(A).breaker is Breaker.PROBING


def test_no_more_are_out_than_the_pool_can_spare() -> None:
    first = Process(A, B, C, "10.0.0.4:80")
    fail(first, A)
    fail(first, B)
    second = first.next(A, B)
    assert [server.breaker for server in second.pool.servers] == [Breaker.EJECTED, Breaker.CLOSED]


def test_servers_of_discovery_get_what_is_known_of_them_when_they_come() -> None:
    first = Process(A, B)
    first.change(B, weight=7, admin="drain")
    first.pool.set_health(first.server(B), Health.DOWN, REFUSED, "connection refused", first.now)
    second = first.next(A, sources=True)
    assert second.snapshot()["pools"] == first.snapshot()["pools"]  # it still knows
    found = Server("model:80/10.0.0.2", parse_address(B), host="model")
    second.add(second.pool, found)
    assert (found.weight, found.admin, found.health) == (7, Admin.DRAIN, Health.DOWN)
    assert [item["name"] for item in second.snapshot()["pools"]["p"]["servers"]] == ["model:80/10.0.0.2"]


def test_servers_that_never_come_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    first = Process(A, B)
    first.change(B, weight=7)
    second = first.next(A, sources=True)
    second.now += WAIT_S - 1
    second.kept.settle()
    assert second.snapshot()["pools"]
    second.now += 1
    with caplog.at_level(logging.INFO, "lbproxy"):
        second.kept.settle()
    assert second.snapshot()["pools"] == {}
    assert caplog.messages == [f"state: pool p: server {B} is not there any more: weight 7 is dropped"]


def test_servers_that_are_well_are_told_to_who_takes_over_at_once() -> None:
    first = Process(A, B)
    first.pool.set_health(first.server(A), Health.UP, "", "answered 200", first.now)
    second = Process(A, B)
    second.kept.restore(first.kept.snapshot(with_well=True))
    assert (second.server(A).health, second.server(A).was_up) == (Health.UP, True)
    assert second.server(B).health is Health.UNKNOWN


def test_every_change_that_is_kept_is_told() -> None:
    process = Process(A, B)
    for change in (
        lambda: process.change(A, weight=7),
        lambda: process.live.add(process.pool, C, CI),
        lambda: process.live.remove(process.pool, process.server(B), CI),
        lambda: process.live.remove(process.pool, process.server(C), CI),
        lambda: process.live.give(process.pool, process.server(A), "weight", 9),
        lambda: process.live.file_says(process.pool, process.server(A), {"weight": 9}),
    ):
        before, n_before = process.snapshot(), process.n_changes
        change()
        assert process.snapshot() != before
        assert process.n_changes > n_before


def test_a_wall_clock_that_was_set_back_does_no_harm() -> None:
    first = Process(A, B)
    first.change(A, weight=7)
    second = first.next(A, B, after_s=-100.0)
    assert second.sources(A)["weight"]["since"] == 0.0


GOOD: dict[str, Any] = {
    "version": 1,
    "saved_at": START,
    "pools": {"p": {"servers": [{"name": A, "address": A, "live": {}}]}},
}


@pytest.mark.parametrize(
    "value", [{"admin": "off"}, {"weight": -1}, {"weight": 70000}, {"weight": None}, {"max_inflight": "3"}]
)
def test_values_that_no_call_could_set_are_left_out(value: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    [(key, wrong)] = value.items()
    given_now = {"admin": "ready", "weight": 1, "max_inflight": None}[key]
    item = {"name": A, "address": A, "live": {key: {"value": wrong, "given": given_now, "by": "ci", "at": START}}}
    process = Process(A)
    process.kept.restore({**GOOD, "pools": {"p": {"servers": [item]}}})
    assert process.snapshot()["pools"] == {}
    assert caplog.messages == [f"state: pool p: server {A}: {key}: {wrong!r} is no value of it"]


def test_an_added_server_with_an_impossible_address_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    added = {"by": "ci", "at": START, "weight": 1, "max_inflight": None, "backup": False}
    for address in ("10.0.0.9:0", "nonsense", "10.0.0.9:1-5", "model:80"):
        process = Process(A)
        item = {"name": "x", "address": address, "added": added}
        with caplog.at_level(logging.INFO, "lbproxy"):
            process.kept.restore({**GOOD, "pools": {"p": {"servers": [item]}}})
        assert process.names == [A]
        assert caplog.messages[-1].startswith("state: pool p: server x can't be added again: ")


ACTS = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 3), st.sampled_from(["ready", "drain", "maint", "file"])),
    st.tuples(st.just("weight"), st.integers(0, 3), st.one_of(st.integers(0, 5), st.just("file"))),
    st.tuples(st.just("limit"), st.integers(0, 3), st.one_of(st.integers(1, 5), st.just("off"), st.just("file"))),
    st.tuples(st.just("remove"), st.integers(0, 3), st.none()),
    st.tuples(st.just("add"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("down"), st.integers(0, 3), st.none()),
    st.tuples(st.just("next"), st.none(), st.none()),
)


@settings(max_examples=50)
@given(st.lists(ACTS, max_size=12))
def test_after_any_history_the_next_process_knows_the_same(acts: list[tuple[str, int, Any]]) -> None:
    process = Process(A, B, C)
    for what, index, value in acts:
        if what == "next":
            process = process.next(A, B, C, after_s=0.0)
            continue
        name = f"10.0.0.{index + 1}:80"
        if what == "add":
            if name not in process.names:
                process.live.add(process.pool, {"address": name, "weight": value}, CI)
        elif name in process.names:
            if what == "remove":
                process.live.remove(process.pool, process.server(name), CI)
            elif what == "down":
                process.pool.set_health(process.server(name), Health.DOWN, REFUSED, "refused", process.now)
            else:
                key = {"change": "admin", "weight": "weight", "limit": "max_inflight"}[what]
                process.change(name, **{key: value})
    after = process.next(A, B, C, after_s=0.0)
    assert after.snapshot() == process.snapshot()
    assert {repr(server) for server in after.pool.servers} == {repr(server) for server in process.pool.servers}


# --- a process that takes over at once --------------------------------------------------------------------------------


def handed(process: Process) -> Any:
    """What goes from the process to the one that takes over."""
    return json.loads(json.dumps(process.kept.snapshot(with_well=True), allow_nan=False))


def taken_over(process: Process, *servers: object, sources: bool = False) -> Process:
    made = Process(*servers, wall=process.wall + 1.0, clock=5000.0, sources=sources)
    made.kept.restore(handed(process), UPGRADE)
    return made


def test_an_upgrade_hands_on_verdicts_with_their_reasons_and_ages() -> None:
    old = Process(A, B, C, D)
    old.pool.set_health(old.server(A), Health.UP, "", "answered 200", old.now - 40.0)
    old.pool.set_health(old.server(B), Health.DOWN, REFUSED, "connection refused", old.now - 10.0)
    old.pool.set_health(old.server(C), Health.UP, "", "", old.now - 90.0)
    old.pool.set_health(old.server(C), Health.DOWN, "fail", "answered 500", old.now - 5.0)
    new = taken_over(old, A, B, C, D)
    up, refused, failed, unknown = (new.server(name) for name in (A, B, C, D))
    assert (up.health, up.why, up.was_up) == (Health.UP, "before the upgrade: answered 200", True)
    assert new.now - up.changed_at == pytest.approx(41.0)
    assert (refused.health, refused.down_reason, refused.was_up) == (Health.DOWN, REFUSED, False)
    assert (failed.health, failed.why, failed.was_up) == (Health.DOWN, "before the upgrade: answered 500", True)
    assert unknown.health is Health.UNKNOWN and not unknown.was_up
    assert new.next(A, B, C, D).server(C).why == "before the restart: answered 500"
    assert taken_over(new, A, B, C, D).server(C).why == "before the upgrade: answered 500"


def test_a_controller_after_another_one_finds_live_values_in_the_books_and_knows_that_they_are_live() -> None:
    first = Process(A, {"address": B, "weight": 4})
    first.change(A, admin="drain", weight=7, max_inflight=3)
    books = Process(A, {"address": B, "weight": 4}, clock=first.now)
    found = books.server(A)
    found.admin, found.weight, found.max_inflight = Admin.DRAIN, 7, 3
    books.kept.restore(first.snapshot(), SUCCESSION)
    assert (found.admin, found.weight, found.max_inflight) == (Admin.DRAIN, 7, 3)
    assert {key: (told["source"], told["given"]) for key, told in books.sources(A).items()} == {
        "admin": ("live", "ready"),
        "weight": ("live", 1),
        "max_inflight": ("live", None),
    }
    assert books.sources(B)["weight"]["source"] == "file"
    after = books.next(A, {"address": B, "weight": 4})
    assert after.server(A).weight == 7, "a restart knows of it, too"
    books.change(A, weight="file")
    assert found.weight == 1


def test_an_upgrade_is_called_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    old = Process(A, B, C)
    old.change(A, admin="drain")
    old.change(B, weight=7)
    old.live.remove(old.pool, old.server(C), CI)
    old.live.add(old.pool, {"address": D}, CI)
    with caplog.at_level(logging.INFO, "lbproxy"):
        caplog.clear()
        new = taken_over(old, A, {"address": B, "weight": 2}, C)
    assert new.names == [A, B, D]
    assert len(caplog.messages) == 4
    assert all(" before the upgrade" in message for message in caplog.messages)


def test_what_is_set_while_the_new_process_gets_ready(caplog: pytest.LogCaptureFixture) -> None:
    old = Process(A, B)
    old.change(A, weight=5)
    old.change(B, admin="drain")
    new = taken_over(old, A, B)
    old.change(A, weight="file", admin="drain")
    old.change(B, admin="ready", max_inflight=4)
    with caplog.at_level(logging.INFO, "lbproxy"):
        new.kept.update(handed(old))
    assert (new.server(A).weight, new.server(A).admin) == (1, Admin.DRAIN)
    assert (new.server(B).admin, new.server(B).max_inflight) == (Admin.READY, 4)
    assert f"pool p: server {A}: weight: 5 -> 1, given back before the upgrade" in caplog.messages
    assert new.snapshot()["pools"] == old.snapshot()["pools"]


def test_the_second_snapshot_brings_nothing_that_the_first_one_had() -> None:
    old = Process(A, B)
    old.change(A, admin="maint", weight=5)
    old.pool.set_health(old.server(B), Health.DOWN, REFUSED, "", old.now)
    new = taken_over(old, {"address": A, "weight": 2}, B)
    new.pool.set_health(new.server(B), Health.UP, "", "answered 200", new.now)
    new.kept.update(handed(old))
    assert (new.server(A).admin, new.server(A).weight) == (Admin.MAINT, 2), "the file's word is the newer one"
    assert new.server(B).health is Health.UP, "what this process has found out itself is newer"


def test_servers_that_come_and_go_by_command_while_the_new_process_gets_ready() -> None:
    old = Process(A, B)
    old.live.add(old.pool, {"address": C, "weight": 3}, CI)
    old.server(B).inflight = 1
    old.live.remove(old.pool, old.server(B), CI)
    new = taken_over(old, A, B)
    assert new.names == [A, C]
    old.change(B, admin="ready", weight=6)
    old.live.remove(old.pool, old.server(C), CI)
    old.live.add(old.pool, {"address": D, "weight": 4}, CI)
    old.live.remove(old.pool, old.server(A), CI)
    new.kept.update(handed(old))
    assert sorted(new.names) == [B, D]
    assert (new.server(B).weight, new.server(D).weight) == (6, 4)
    assert new.snapshot()["pools"] == old.snapshot()["pools"]


def test_who_is_ejected_while_the_new_process_gets_ready_is_not_used() -> None:
    old = Process(A, B)
    new = taken_over(old, A, B)
    fail(old, A)
    new.kept.update(handed(old))
    assert new.server(A).shown == "ejected"


def test_servers_of_discovery_get_the_newer_word_when_they_come() -> None:
    old = Process(A, B)
    old.change(B, weight=7, admin="drain")
    old.pool.set_health(old.server(B), Health.UP, "", "", old.now)
    new = taken_over(old, A, sources=True)
    old.change(B, weight=8, admin="file")
    new.kept.update(handed(old))
    found = Server("model:80/10.0.0.2", parse_address(B), host="model")
    found.health, found.down_reason = Health.DOWN, JOINING
    new.add(new.pool, found)
    assert (found.weight, found.admin) == (8, Admin.READY)
    assert found.health is Health.UP, "it has passed its checks in the process before"


def test_servers_of_discovery_that_are_well_are_waited_for_but_not_kept() -> None:
    old = Process(A, B)
    old.pool.set_health(old.server(B), Health.UP, "", "", old.now)
    new = taken_over(old, A, sources=True)
    assert new.snapshot()["pools"] == {}
    assert [item["name"] for item in handed(new)["pools"]["p"]["servers"]] == [B]
    new.now += BELIEVED_S + 1
    found = Server("model:80/10.0.0.2", parse_address(B), host="model")
    new.add(new.pool, found)
    assert found.health is Health.UNKNOWN, "by now it may be another one"


def test_a_process_before_that_is_gone_has_nothing_new_to_say() -> None:
    old = Process(A, B)
    old.change(A, weight=5)
    new = taken_over(old, A, B)
    new.kept.update(None)
    assert new.server(A).weight == 5
    new.kept.update(handed(Process(A, B)))
    assert new.server(A).weight == 5, "that was the last word"


def test_after_any_changes_meanwhile_the_new_process_knows_what_the_old_one_does() -> None:
    rng = random.Random(7)
    names = [A, B, C, D]
    for _ in range(60):
        old = Process(A, B, C)
        act(old, rng, names)
        new = taken_over(old, A, B, C)
        act(old, rng, names)
        new.kept.update(handed(old))
        assert in_order(new) == in_order(old)
        assert sorted(new.names) == sorted(old.names)


def in_order(process: Process) -> dict[str, list[Any]]:
    """What is kept, whatever the order in which servers have joined."""
    pool = process.snapshot()["pools"].get("p", {})
    return {part: sorted(pool.get(part, ()), key=lambda item: str(item["name"])) for part in ("servers", "removed")}


def act(process: Process, rng: random.Random, names: list[str]) -> None:
    """Some random calls of operators."""
    for _ in range(rng.randrange(8)):
        name = rng.choice(names)
        if name not in process.names:
            process.live.add(process.pool, {"address": name, "weight": rng.randrange(1, 4)}, CI)
        elif rng.random() < 0.3:
            process.live.remove(process.pool, process.server(name), CI)
        else:
            process.change(name, **{rng.choice(["weight", "max_inflight"]): rng.choice([1, 2, "file"])})


# --- splits -----------------------------------------------------------------------------------------------------------


def with_split(process: Process, *given: int, told: str = "chat") -> Split:
    split = Split(("stable", "canary"), given, None, [0] * MOST_POOLS, 0)
    process.places.append(SplitPlace("web", 0, told, told, split))
    return split


def shared_out(*shares: int) -> tuple[Process, Any]:
    """A process in which somebody has set these shares, and what it says of itself."""
    process = Process(A)
    with_split(process, 95, 5)
    process.splits.change(process.places[0], dict(zip(("stable", "canary"), shares, strict=True)), CI)
    return process, process.snapshot()


def test_shares_of_splits_stand_again_with_who_set_them_and_when() -> None:
    _, data = shared_out(90, 10)
    assert data["splits"] == [
        {
            "listener": "web",
            "route": "chat",
            "pools": ["stable", "canary"],
            "shares": [90, 10],
            "given": [95, 5],
            "by": str(CI),
            "at": START,
        }
    ]
    later = Process(A, wall=START + 5, clock=50.0)
    split = with_split(later, 95, 5)
    later.kept.restore(data)
    assert split.shares() == (90, 10)
    assert later.splits.told_of(later.places[0])["live"] == {"by": str(CI), "since": 5.0}
    assert later.snapshot()["splits"] == data["splits"]


def test_other_shares_in_the_file_and_splits_that_are_gone_are_told(caplog: pytest.LogCaptureFixture) -> None:
    _, data = shared_out(90, 10)
    later = Process(A, wall=START + 5)
    split = with_split(later, 80, 20)
    with caplog.at_level(logging.INFO):
        later.kept.restore(data)
    assert split.shares() == (80, 20)
    assert "split web/chat: the file gives it other shares now, which stand over those set by ci" in caplog.text
    gone = Process(A, wall=START + 5)
    with caplog.at_level(logging.INFO):
        gone.kept.restore(data)
    assert "there is no such split of chat any more: stable 90, canary 10 is dropped" in caplog.text


def test_what_changes_while_another_process_takes_over_is_taken_up() -> None:
    process, data = shared_out(90, 10)
    new = Process(A, wall=START)
    split = with_split(new, 95, 5)
    new.kept.restore(data, UPGRADE)
    process.splits.change(process.places[0], {"canary": 20}, CI)
    new.kept.update(process.snapshot())
    assert split.shares() == (90, 20)

    new = Process(A, wall=START)
    split = with_split(new, 95, 5)
    new.kept.restore(data, UPGRADE)
    process.splits.change(process.places[0], "file", CI)
    new.kept.update(process.snapshot())
    assert split.shares() == (95, 5)
    assert "splits" not in process.snapshot()
