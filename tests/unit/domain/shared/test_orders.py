"""What the controller says of a server is what each worker has, from the next request on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.orders import follow, tell
from lbproxy.domain.shared.plan import CHANGED, Plan
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies import create
from tests.unit.domain.shared.test_waiting import CTX, Site

PLAN = Plan(0, n_workers=1, n_servers=2, n_rows=0, n_places=0)


def make() -> Server:
    return Server("a", Address("10.0.0.1", 1), weight=3, max_inflight=2)


@given(
    admin=st.sampled_from(Admin),
    health=st.sampled_from(Health),
    reason=st.sampled_from([REFUSED, "checks"]),
    weight=st.integers(0, 256),
    limit=st.integers(0, 10_000),
    idle_ms=st.integers(0, 100_000),
)
def test_whatever_is_told_is_followed(
    admin: Admin, health: Health, reason: str, weight: int, limit: int, idle_ms: int
) -> None:
    cells = [0] * PLAN.end
    told, heard = make(), make()
    told.admin, told.health, told.down_reason = admin, health, reason if health is Health.DOWN else ""
    told.weight, told.max_inflight, told.idle_timeout.learned_s = weight, limit, idle_ms / 1000
    tell(cells, PLAN, told, 1)
    assert cells[CHANGED] == 1
    books = SharedBooks(cells, PLAN, 0, {heard: 1}, Guard(), lambda worker: None)
    fallback = create("round_robin", {}, None)  # type: ignore[arg-type]
    follow(Pool("p", [heard], fallback, fallback), heard, books, 1.0)
    for name in ("admin", "health", "down_reason", "weight", "max_inflight"):
        assert getattr(heard, name) == getattr(told, name), name
    assert heard.idle_timeout.learned_s == pytest.approx(told.idle_timeout.learned_s, abs=1e-8)


def test_what_was_never_told_is_as_the_config_says() -> None:
    server = make()
    books = SharedBooks([0] * PLAN.end, PLAN, 0, {server: 0}, Guard(), lambda worker: None)
    fallback = create("round_robin", {}, None)  # type: ignore[arg-type]
    follow(Pool("p", [server], fallback, fallback), server, books, 1.0)
    assert (server.admin, server.health, server.weight, server.max_inflight) == (Admin.READY, Health.UNKNOWN, 3, 2)


def test_a_higher_limit_serves_who_waits_when_its_worker_is_woken() -> None:
    site = Site(n_servers=2)
    for pool in site.pools:
        pool.set_admin(pool.servers[1], Admin.DRAIN, "", 0.0)
    site.fill()
    site.wait(1, "waits", 0.1)
    back = Server("s1", Address("10.0.0.1", 2), max_inflight=1)
    tell(site.cells, site.plan, back, 1)
    assert site.heard == []
    site.pools[1].collect(1.0)
    assert site.heard == ["waits"]
    assert site.pools[0].acquire(CTX, (), 1.0) is not None
    assert site.pools[0].servers[1].admin is Admin.READY
