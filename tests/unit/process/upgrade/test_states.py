"""What one process knows of its servers, and what another makes of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from lbproxy.address import parse_address
from lbproxy.config.model import Config
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.source import Source
from lbproxy.control.event_log import EventLog
from lbproxy.control.live import LiveControl
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.process.upgrade.states import Restoring, snapshot

CI = Caller("ci", "192.0.2.1")
NAMES = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")


class Side:
    """One of the two processes. names: the servers that its file has. weight: their weight there."""

    def __init__(self, *names: str, weight: int = 1, now: float = 100.0) -> None:
        self.now = now
        strategy = LeastConnections({}, random.Random(1))
        self.config = Config.model_validate(
            {
                "listeners": [{"bind": "127.0.0.1:5000", "pool": "p"}],
                "pools": {"p": {"servers": list(names)}},
            }
        )
        servers = [Server(name, parse_address(name), weight=weight) for name in names]
        self.pool = Pool("p", servers, strategy, strategy, breaker=BreakerPolicy())
        self.pools = {"p": self.pool}
        self.live = LiveControl(
            self.pools, self, self, lambda pool, server: None, lambda: self.now, EventLog(lambda: self.now)
        )
        self.restoring = Restoring({}, self.pools, self.live, self.remove, lambda: self.now)

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server, self.now)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server)
        self.live.left(server)

    def source_of(self, server: Server) -> Source | None:
        return None

    def keeper_of(self, server: Server) -> Source | None:
        return None

    def is_leaving(self, server: Server) -> bool:
        return False

    def server(self, number: int) -> Server:
        return next(server for server in self.pool.servers if server.name == NAMES[number])

    def told(self) -> Any:
        return json.loads(json.dumps(snapshot(self.config, self.pools, self.live, self.now)))

    def takes(self, told: object) -> None:
        self.restoring = Restoring(told, self.pools, self.live, self.remove, lambda: self.now)
        self.restoring.restore()


def test_health_goes_on_with_its_reason_and_its_age() -> None:
    old, new = Side(*NAMES), Side(*NAMES, now=5000.0)
    old.pool.set_health(old.server(0), Health.UP, "", "answered 200", 60.0)
    old.pool.set_health(old.server(1), Health.DOWN, "refused", "connection refused", 90.0)
    old.pool.set_health(old.server(2), Health.UP, "", "", 10.0)
    old.pool.set_health(old.server(2), Health.DOWN, "fail", "answered 500", 95.0)
    new.takes(old.told())
    up, refused, failed, unknown = (new.server(number) for number in range(4))
    assert (up.health, up.why, up.changed_at, up.was_up) == (Health.UP, "answered 200", 4960.0, True)
    assert (refused.health, refused.down_reason, refused.was_up) == (Health.DOWN, "refused", False)
    assert (failed.health, failed.why, failed.was_up) == (Health.DOWN, "answered 500", True)
    assert unknown.health is Health.UNKNOWN and not unknown.was_up


def test_an_ejection_goes_on_for_the_time_that_is_left() -> None:
    old, new = Side(*NAMES), Side(*NAMES, now=5000.0)
    circuit = old.server(0).circuit
    assert circuit is not None
    old.pool.resume_ejection(
        old.server(0), "consecutive_failures", "5 consecutive answers 503", 1, old.now + 7.0, old.now
    )
    old.now += 3.0
    new.takes(old.told())
    taken = new.server(0)
    assert taken.shown == "ejected" and taken.circuit is not None
    assert (taken.circuit.open_until, taken.circuit.what) == (5004.0, "5 consecutive answers 503")
    new.pool.sweep(5004.5)
    assert taken.shown == "probing"


def test_a_pool_that_can_spare_nobody_ejects_nobody() -> None:
    old, new = Side(*NAMES), Side(NAMES[0])
    old.pool.resume_ejection(old.server(0), "error_rate", "3 of 4 requests failed", 1, old.now + 7.0, old.now)
    new.takes(old.told())
    assert new.server(0).shown == "up"


def test_what_operators_set_stands_with_who_set_it() -> None:
    old, new = Side(*NAMES), Side(*NAMES)
    old.live.change(old.pool, old.server(0), {"admin": "drain", "weight": 5, "max_inflight": 3}, CI)
    new.takes(old.told())
    taken = new.server(0)
    assert (taken.admin, taken.weight, taken.max_inflight) == (Admin.DRAIN, 5, 3)
    sources: Any = new.live.told(taken, new.now)["sources"]
    assert sources["weight"] == {"source": "live", "by": "ci from 192.0.2.1", "since": 0.0, "given": 1}


def test_the_file_s_word_is_the_newer_one_if_it_has_changed() -> None:
    old, new = Side(*NAMES), Side(*NAMES, weight=2)
    old.live.change(old.pool, old.server(0), {"admin": "maint", "weight": 5}, CI)
    new.takes(old.told())
    assert (new.server(0).admin, new.server(0).weight) == (Admin.MAINT, 2)
    new.restoring.operators(old.told())
    assert new.server(0).weight == 2, "nothing has been set since"


def test_servers_that_operators_added_or_removed() -> None:
    old, new = Side(*NAMES[:3]), Side(*NAMES[:3])
    old.live.add(old.pool, {"address": NAMES[3], "weight": 4, "max_inflight": 2}, CI)
    old.pool.set_health(old.server(3), Health.UP, "", "", old.now)
    old.live.remove(old.pool, old.server(1), CI)
    new.takes(old.told())
    assert [server.name for server in new.pool.servers] == [NAMES[0], NAMES[2], NAMES[3]]
    added = new.server(3)
    assert (added.weight, added.max_inflight, added.health) == (4, 2, Health.UP)
    assert new.live.was_added(added)


def test_what_is_set_while_the_new_process_gets_ready() -> None:
    old, new = Side(*NAMES), Side(*NAMES)
    old.live.change(old.pool, old.server(0), {"weight": 5}, CI)
    old.live.change(old.pool, old.server(1), {"admin": "drain"}, CI)
    new.takes(old.told())
    old.live.change(old.pool, old.server(0), {"weight": "file", "admin": "drain"}, CI)
    old.live.change(old.pool, old.server(1), {"admin": "ready"}, CI)
    old.live.add(old.pool, {"address": "10.0.0.9:80"}, CI)
    new.restoring.operators(old.told())
    assert (new.server(0).weight, new.server(0).admin, new.server(1).admin) == (1, Admin.DRAIN, Admin.READY)
    assert new.pool.servers[-1].name == "10.0.0.9:80"


def test_a_server_that_comes_later_gets_its_state_then() -> None:
    old, new = Side(*NAMES), Side(NAMES[1])
    old.pool.set_health(old.server(0), Health.UP, "", "", 60.0)
    new.takes(old.told())
    new.pool.add(Server(NAMES[0], parse_address(NAMES[0])))
    new.restoring.restore()
    assert new.server(0).health is Health.UP
    new.pool.set_health(new.server(0), Health.DOWN, "fail", "", 200.0)
    new.restoring.restore()
    assert new.server(0).health is Health.DOWN, "what this process found out itself is newer"


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"p": None},
        {"p": {"servers": 1, "removed": 2}},
        {"p": {"servers": [1, {}, {"name": "10.0.0.1:80", "address": "10.0.0.1:80", "health": "sick"}]}},
        {"p": {"servers": [{"name": "10.0.0.1:80", "address": "10.0.0.1:80", "live": {"weight": [1], "x": 1}}]}},
        {"p": {"servers": [{"name": "10.0.0.1:80", "address": "10.0.0.1:80", "live": {"weight": ["x", "y", None]}}]}},
        {"p": {"servers": [{"name": "z", "address": "nowhere", "added": {}}]}},
        {"other": {"servers": []}},
    ],
)
def test_what_is_odd_is_left_out(told: object) -> None:
    new = Side(*NAMES)
    new.takes(told)
    new.restoring.operators(told)
    assert [server.shown for server in new.pool.servers] == ["up"] * 4
    assert [server.weight for server in new.pool.servers] == [1] * 4
