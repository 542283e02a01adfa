"""Who may take a request, and that every lease comes back: by example, and against a model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Admin, Breaker, Health
from lbproxy.domain.strategies.base import PickContext

CTX = PickContext("192.0.2.1")


class First:
    """Picks the first of what it is offered, and remembers the offers."""

    hash_on = ""

    def __init__(self) -> None:
        self.offers: list[str] = []
        self.members = ""

    def rebuild(self, servers: Sequence[Server]) -> None:
        self.members = names(servers)

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        self.offers.append(names(eligible))
        return eligible[0]


class Broken(First):
    """A plug-in with every defect that a plug-in can have."""

    def __init__(self, stranger: Server | None = None) -> None:
        super().__init__()
        self.stranger = stranger

    def rebuild(self, servers: Sequence[Server]) -> None:
        raise ZeroDivisionError("rebuild")

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        if self.stranger is None:
            raise ZeroDivisionError("pick")
        return self.stranger


def make(name: str, **options: int) -> Server:
    server = Server(name, Address("10.0.0.1", ord(name)))
    for key, value in options.items():
        setattr(server, key, value)
    return server


def pool_of(*servers: Server, fail_open: float | None = None, passive_retry_s: float | None = None) -> Pool:
    return Pool("app", servers, First(), First(), fail_open=fail_open, passive_retry_s=passive_retry_s)


def names(servers: Sequence[Server]) -> str:
    return "".join(server.name for server in servers)


def down(pool: Pool, server: Server, reason: str = "check") -> None:
    """After it was up."""
    pool.set_health(server, Health.UP, "", "", 0.5)
    pool.set_health(server, Health.DOWN, reason, "said the test", 1.0)


def acquired(pool: Pool, *tried: Server) -> str:
    lease = pool.acquire(CTX, tried, 0.0)
    return lease.server.name if isinstance(lease, Lease) else ""


# --- eligibility ----------------------------------------------------------------------------------------------------


def test_unknown_up_and_busy_take_requests_and_the_rest_does_not() -> None:
    servers = [make(name) for name in "abcdefg"]
    pool = pool_of(*servers)
    a, b, c, d, e, f, g = servers
    pool.set_health(b, Health.UP, "", "", 0.0)
    pool.set_health(c, Health.BUSY, "", "", 0.0)
    down(pool, d)
    pool.set_admin(e, Admin.DRAIN, "", 0.0)
    pool.set_admin(f, Admin.MAINT, "", 0.0)
    g.weight = 0
    assert pool.eligible() == (a, b, c)


def test_the_tuple_is_made_anew_only_after_a_change() -> None:
    a, b = make("a"), make("b")
    pool = pool_of(a, b)
    before = pool.eligible()
    assert pool.eligible() is before
    pool.set_health(a, Health.UP, "", "", 0.0)
    assert pool.eligible() == before
    down(pool, a)
    assert pool.eligible() == (b,)
    pool.set_health(a, Health.UP, "", "", 0.0)
    assert pool.eligible() == (a, b)


def test_an_empty_pool_has_no_lease() -> None:
    assert acquired(pool_of()) == ""
    assert acquired(pool_of(fail_open=1.0)) == ""


def near_and_far(n_near: int, n_far: int) -> tuple[Pool, list[Server]]:
    """A pool with servers a, b, ... in this zone and x, y, ... in another."""
    servers = [Server(name, Address("10.0.0.1", ord(name))) for name in "abcdef"[:n_near] + "uvwxyz"[:n_far]]
    pool = pool_of(*servers)
    for server in servers[n_near:]:
        pool.set_far(server, True, 1.0)
    return pool, servers


def test_servers_of_this_zone_come_first_while_half_of_them_are_usable() -> None:
    pool, (a, b, c, d, *_) = near_and_far(4, 2)
    assert names(pool.eligible()) == "abcd"
    for server, eligible in ((a, "bcd"), (b, "cd"), (c, "duv"), (d, "uv")):
        pool.set_health(server, Health.DOWN, REFUSED, "", 2.0)
        assert names(pool.eligible()) == eligible
    pool.set_health(a, Health.UP, "", "", 3.0)
    assert names(pool.eligible()) == "auv"
    pool.set_health(b, Health.UP, "", "", 3.0)
    assert names(pool.eligible()) == "ab"


def test_who_is_not_wanted_in_this_zone_does_not_count() -> None:
    """What an operator, or a platform, takes out is missed by nobody."""
    pool, (a, b, c, d, *_) = near_and_far(4, 2)
    pool.set_admin(a, Admin.DRAIN, "", 2.0)
    pool.set_admin(b, Admin.MAINT, "", 2.0)
    pool.set_weight(c, 0, 2.0)
    assert names(pool.eligible()) == "d"
    pool.set_admin(d, Admin.DRAIN, "", 2.0)
    assert names(pool.eligible()) == "uv"


def test_backups_of_this_zone_are_no_servers_of_it() -> None:
    pool, (a, b, *_) = near_and_far(2, 2)
    pool.set_backup(b, True, 2.0)
    assert names(pool.eligible()) == "a"
    pool.set_health(a, Health.DOWN, REFUSED, "", 2.0)
    assert names(pool.eligible()) == "uv"


def test_zones_that_nobody_prefers_change_nothing() -> None:
    pool, servers = near_and_far(2, 2)
    for server in servers[2:]:
        pool.set_far(server, False, 2.0)
    assert names(pool.eligible()) == "abuv"


def test_backups_serve_when_nobody_else_does() -> None:
    a, b = make("a"), make("b")
    b.backup = True
    pool = pool_of(a, b)
    assert pool.eligible() == (a,)
    down(pool, a)
    assert pool.eligible() == (b,)
    down(pool, b)
    assert pool.eligible() == ()


@pytest.mark.parametrize(
    ("share", "n_down", "eligible"),
    [
        (None, 4, ""),
        (0.0, 3, "d"),
        (0.0, 4, "abcd"),
        (0.25, 2, "cd"),
        (0.25, 3, "abcd"),
        (0.5, 1, "bcd"),
        (0.5, 2, "abcd"),
        (1.0, 1, "abcd"),
    ],
)
def test_fail_open_disbelieves_checks_at_its_share(share: float | None, n_down: int, eligible: str) -> None:
    servers = [make(name) for name in "abcd"]
    pool = pool_of(*servers, fail_open=share)
    for server in servers[:n_down]:
        down(pool, server)
    assert names(pool.eligible()) == eligible
    assert pool.is_failing_open is (len(eligible) > 4 - n_down)


def test_fail_open_is_for_servers_that_were_up_once() -> None:
    """One that never passed a check is as likely still loading, or the wrong program."""
    a, b = make("a"), make("b")
    pool = pool_of(a, b, fail_open=0.5)
    for server in (a, b):
        pool.set_health(server, Health.DOWN, "status", "answered 503", 1.0)
    assert pool.eligible() == () and not pool.is_failing_open
    pool.set_health(a, Health.UP, "", "", 2.0)
    assert pool.eligible() == (a,) and not pool.is_failing_open, "b is as before, whatever the share"
    pool.set_health(a, Health.DOWN, "status", "answered 503", 3.0)
    assert pool.eligible() == (a,) and pool.is_failing_open


def test_a_pool_is_proven_by_a_server_in_use_that_has_passed() -> None:
    a, b = make("a"), make("b")
    pool = pool_of(a, b, fail_open=0.0)
    assert pool.eligible() == (a, b) and not pool.is_proven
    pool.set_health(b, Health.BUSY, "", "it works, but not on checks", 1.0)
    assert pool.is_proven
    down(pool, b, REFUSED)
    assert pool.eligible() == (a,) and not pool.is_proven, "who has passed is gone"
    pool.set_health(a, Health.UP, "", "", 2.0)
    assert pool.is_proven
    assert pool_of(make("a"), passive_retry_s=1.0).is_proven, "without checks nobody can pass one"


def test_fail_open_never_takes_what_is_certainly_gone_or_unwanted() -> None:
    a, b, c, d, e = (make(name) for name in "abcde")
    pool = pool_of(a, b, c, d, e, fail_open=0.0)
    down(pool, a)
    down(pool, b, REFUSED)
    pool.set_admin(c, Admin.DRAIN, "", 0.0)
    d.weight = 0
    e.breaker = Breaker.EJECTED
    assert pool.eligible() == (a,)
    assert pool.is_failing_open
    pool.set_health(a, Health.UP, "", "", 0.0)
    assert pool.eligible() == (a,) and not pool.is_failing_open


# --- picking --------------------------------------------------------------------------------------------------------


def test_one_server_needs_no_strategy() -> None:
    pool = Pool("app", [make("a")], Broken(), First())
    assert acquired(pool) == "a"


def test_tried_and_full_servers_are_passed_over_with_a_second_pick_at_most() -> None:
    a, b, c = make("a", max_inflight=1), make("b"), make("c")
    pool = pool_of(a, b, c)
    strategy = pool.picker.strategy
    assert isinstance(strategy, First)
    assert acquired(pool) == "a"
    assert acquired(pool) == "b"
    assert acquired(pool, b) == "c"
    assert strategy.offers == ["abc", "abc", "bc", "abc", "c"]


def test_a_tried_server_is_used_when_there_is_no_other() -> None:
    a, b = make("a"), make("b")
    pool = pool_of(a, b)
    assert acquired(pool, a, b) == "a"
    down(pool, a)
    assert acquired(pool, b) == "b"


def test_no_lease_when_all_are_full() -> None:
    pool = pool_of(make("a", max_inflight=1), make("b", max_inflight=1))
    lease = pool.acquire(CTX, (), 0.0)
    assert isinstance(lease, Lease) and acquired(pool) == "b" and acquired(pool) == ""
    lease.release(Outcome.SUCCESS, 1.0)
    assert acquired(pool) == "a"


def test_a_full_server_alone_gives_no_lease() -> None:
    pool = pool_of(make("a", max_inflight=1))
    assert acquired(pool) == "a" and acquired(pool) == ""


@pytest.mark.parametrize("stranger", [None, make("x")])
def test_a_strategy_that_fails_is_reported_and_the_fallback_picks(stranger: Server | None) -> None:
    errors: list[Exception] = []
    a, b = make("a"), make("b")
    pool = Pool("app", [a, b], Broken(stranger), First(), strategy_failed=errors.append)
    assert acquired(pool) == "a"
    assert acquired(pool, a) == "b"
    assert [type(error) for error in errors] == [ZeroDivisionError] + [
        LookupError if stranger is not None else ZeroDivisionError
    ] * 3


def test_a_strategy_that_answers_with_a_member_that_is_down_is_a_stranger() -> None:
    errors: list[Exception] = []
    a, b, c = make("a"), make("b"), make("c")
    pool = Pool("app", [a, b, c], Broken(a), First(), strategy_failed=errors.append)
    down(pool, a)
    assert acquired(pool) == "b"
    assert isinstance(errors[-1], LookupError)


# --- members and flips ----------------------------------------------------------------------------------------------


def test_members_join_and_leave_while_leases_are_out() -> None:
    a, b = make("a"), make("b")
    pool = pool_of(a)
    lease = pool.acquire(CTX, (), 0.0)
    assert isinstance(lease, Lease)
    pool.add(b)
    strategy = pool.picker.strategy
    assert isinstance(strategy, First) and pool.eligible() == (a, b) and strategy.members == "ab"
    pool.remove(a)
    assert pool.eligible() == (b,) and strategy.members == "b"
    assert a.inflight == 1
    lease.release(Outcome.SUCCESS, 1.0)
    assert a.inflight == 0


def test_flips_are_told_with_old_and_new() -> None:
    a = make("a")
    pool = pool_of(a)
    seen: list[tuple[str, str, str]] = []
    pool.on_flip(lambda server, old, new: seen.append((server.name, old, new)))
    assert pool.set_health(a, Health.UP, "", "", 1.0)  # unknown and up are both shown as up
    assert not pool.set_health(a, Health.UP, "", "still", 2.0)
    down(pool, a)
    assert pool.server_refused(a, 3.0)  # news, but down already
    assert not pool.server_refused(a, 4.0)
    assert pool.set_admin(a, Admin.MAINT, "", 5.0)
    assert not pool.set_admin(a, Admin.MAINT, "", 6.0)
    assert pool.set_admin(a, Admin.READY, "", 7.0)
    assert pool.set_health(a, Health.UP, "", "", 8.0)
    assert seen == [("a", "up", "down"), ("a", "down", "maint"), ("a", "maint", "down"), ("a", "down", "up")]
    assert a.changed_at == 8.0 and a.down_reason == ""


def test_without_checks_a_refused_server_gets_another_chance() -> None:
    a, b = make("a"), make("b")
    pool = pool_of(a, b, passive_retry_s=10.0)
    pool.server_refused(a, 100.0)
    pool.sweep(109.0)
    assert pool.eligible() == (b,)
    pool.sweep(110.0)
    assert pool.eligible() == (a, b) and a.health is Health.UNKNOWN
    with_checks = pool_of(b)
    with_checks.server_refused(b, 0.0)
    with_checks.sweep(1e9)
    assert with_checks.eligible() == ()


# --- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_feeds_the_records_of_its_server() -> None:
    a = make("a")
    pool = pool_of(a)
    Lease(pool, a, 10.0).release(Outcome.SUCCESS, 10.5)
    assert (a.requests, a.errors, a.progress_at, a.latency(10.5)) == (1, 0, 10.5, 0.5)
    Lease(pool, a, 11.0).release(Outcome.FAILURE, 19.0)
    Lease(pool, a, 11.0).release(Outcome.NEUTRAL, 19.0)
    assert (a.requests, a.errors, a.progress_at, a.inflight) == (3, 1, 10.5, 0)


def test_a_lease_is_released_once() -> None:
    a = make("a")
    pool = pool_of(a)
    lease = Lease(pool, a, 0.0)
    lease.release(Outcome.SUCCESS, 1.0)
    with pytest.raises(RuntimeError, match="released twice"):
        lease.release(Outcome.SUCCESS, 1.0)
    assert a.inflight == 0


# --- against a model ------------------------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "acquire", "release", "up", "down", "refused", "drain", "ready", "add", "remove"]),
        st.integers(0, 30),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(
    OPERATIONS,
    st.sampled_from([None, 0.0, 0.5]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_history_agrees_with_the_model(
    operations: list[tuple[str, int]],
    fail_open: float | None,
    kinds: list[tuple[int, int, bool]],
    breaks: bool,
) -> None:
    everybody = [
        Server(str(i), Address("10.0.0.1", i), weight=weight, max_inflight=limit, backup=backup)
        for i, (weight, limit, backup) in enumerate(kinds)
    ]
    pool = Pool("app", everybody, Broken() if breaks else First(), First(), fail_open=fail_open)
    out: list[Lease] = []
    for number, (what, index) in enumerate(operations):
        now = float(number)
        server = pool.servers[index % len(pool.servers)] if pool.servers else None
        if what == "acquire":
            tried = tuple(item for bit, item in enumerate(pool.servers) if index >> bit & 1)
            lease = pool.acquire(CTX, tried, now)
            free = [item for item in model_eligible(pool) if not 0 < item.max_inflight <= item.inflight]
            if isinstance(lease, Refusal):
                assert not free
                assert lease is (Refusal.FULL if model_eligible(pool) else Refusal.NO_SERVER)
            else:
                lease.server.inflight -= 1
                free = [item for item in model_eligible(pool) if not 0 < item.max_inflight <= item.inflight]
                lease.server.inflight += 1
                assert lease.server in free
                if lease.server in tried:
                    assert set(free) <= set(tried)
                out.append(lease)
        elif what == "release" and out:
            out.pop(index % len(out)).release(list(Outcome)[index % 3], now)
        elif what == "add":
            server = Server(f"new{number}", Address("10.0.0.2", number))
            everybody.append(server)
            pool.add(server)
        elif server is not None:
            change(pool, server, what, now)
        assert pool.eligible() == tuple(model_eligible(pool))
        assert sum(item.inflight for item in everybody) == len(out)
        assert all(item.inflight == sum(lease.server is item for lease in out) for item in everybody)
    for lease in out:
        lease.release(Outcome.SUCCESS, 1e6)
    assert all(item.inflight == 0 for item in everybody)


def change(pool: Pool, server: Server, what: str, now: float) -> None:
    if what == "up":
        pool.set_health(server, Health.UP, "", "", now)
    elif what == "down":
        pool.set_health(server, Health.DOWN, "check", "", now)
    elif what == "refused":
        pool.server_refused(server, now)
    elif what == "remove":
        pool.remove(server)
    elif what in ("drain", "ready"):
        pool.set_admin(server, Admin(what), "", now)


def model_eligible(pool: Pool) -> list[Server]:
    """The contract's words, without the pool's memory."""
    ready = [item for item in pool.servers if item.admin is Admin.READY and item.weight > 0]
    usable = [item for item in ready if item.health is not Health.DOWN]
    if pool.members.fail_open is not None and len(usable) <= pool.members.fail_open * len(pool.servers):
        believed = [item for item in ready if item.was_up and item.down_reason != REFUSED]
        usable = [item for item in ready if item.health is not Health.DOWN or item in believed]
    return [item for item in usable if not item.backup] or usable
