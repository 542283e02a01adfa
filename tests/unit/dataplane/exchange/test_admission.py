"""Rate limits: what is too many, and what is said of it; with buckets here and with those of a fleet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproxy.dataplane.guard import Fleet, Limit
from lbproxy.telemetry.slots import LIMIT, PROCESS
from tests.support.fake_transport import FakeLb, Peer, ok, post, status_of
from tests.support.http2_client import Http2Client

LIMITED = LIMIT.column("rate_limited_total")
DEFECTS = PROCESS.column("internal_errors_total")


def config(limits: str, routes: str = "[{pool: app}]") -> str:
    return f"""
access_log: {{path: /dev/null}}
trusted_proxies: [127.0.0.9]
rate_limits: {limits}
listeners: [{{name: web, bind: "127.0.0.1:5000", routes: {routes}}}]
pools:
  app: {{servers: ["127.0.0.1:9001"], health_check: off}}
"""


ONE = config("[{key: client_ip, rate: 10/s, burst: 2}]")


def asked(lb: FakeLb, client: Peer, *fields: str, target: str = "/a", body: bytes = b"") -> bytes:
    client.send(post(body, *fields, target=target))
    return answered(lb, client)


def answered(lb: FakeLb, client: Peer) -> bytes:
    while lb.loop.dials:
        lb.accept()
    for server in lb.servers:
        if not server.transport.is_lost and server.got():
            server.send(ok())
    return client.got()


def limits_of(lb: FakeLb) -> tuple[Limit, ...]:
    guard = lb.listener.runtime.guard
    assert guard is not None
    return guard.limits


def test_who_asks_too_much_is_told_when_to_come_again() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        assert [status_of(asked(lb, client)) for _ in range(2)] == [200, 200]
        refused = asked(lb, client)
        assert status_of(refused) == 429 and b"Retry-After: 1\r\n" in refused
        assert b'RateLimit-Policy: "client_ip";q=2;w=1\r\n' in refused and b'RateLimit: "client_ip";r=0;t=1' in refused
        assert b"urn:lbproxy:fault:rate_limited" in refused and b"client_ip is used up" in refused
        assert client.is_open, "it may come again on the same connection"
        assert (lb.ends[-1], lb.log[-1]["pool"]) == ("rate_limited", "app")
        assert limits_of(lb)[0].row[LIMITED] == 1 == lb.of_listener("rejected_total", "rate_limited")
        lb.advance(0.1)
        assert [status_of(asked(lb, client)) for _ in range(2)] == [200, 429]
        assert status_of(asked(lb, lb.connect(("10.0.0.2", 1)))) == 200, "another client has its own bucket"


def test_a_trusted_proxy_says_whose_request_it_is() -> None:
    with FakeLb(ONE) as lb:
        proxy = lb.connect(("127.0.0.9", 1))
        found = [status_of(asked(lb, proxy, f"X-Forwarded-For: 192.0.2.{n % 2}")) for n in range(6)]
        assert found == [200, 200, 200, 200, 429, 429]
        sixes = [f"2001:db8::{n}" for n in range(3)]  # one /64
        assert [status_of(asked(lb, proxy, f"X-Forwarded-For: {ip}")) for ip in sixes] == [200, 200, 429]


def test_only_what_matches_counts_and_all_limits_must_be_passed() -> None:
    limits = """
- {name: posts, key: all, rate: 1/m, burst: 3, match: {path_prefix: /a}}
- {name: tenants, key: "header:X-Tenant", rate: 1/h, burst: 1, status: 503}
"""
    with FakeLb(config(limits)) as lb:
        client = lb.connect()
        assert status_of(asked(lb, client, "X-Tenant: t")) == 200
        for _ in range(5):  # refused by the second limit: the first one gets its token back
            refused = asked(lb, client, "X-Tenant: t")
            assert status_of(refused) == 503 and b"Retry-After: 3600" in refused
        assert [status_of(asked(lb, client)) for _ in range(3)] == [200, 200, 429]
        assert status_of(asked(lb, client, target="/b")) == 200
        assert [limit.row[LIMITED] for limit in limits_of(lb)] == [1, 5]


def test_no_way_to_write_a_path_goes_past_a_limit() -> None:
    with FakeLb(config("[{key: all, rate: 1/m, burst: 1, match: {path_prefix: /predict}}]")) as lb:
        client = lb.connect()
        assert status_of(asked(lb, client, target="/predict/a")) == 200
        for path in ("/x/../predict", "/%70redict", "/x%2f..%2fpredict", "/predict//"):
            assert status_of(asked(lb, client, target=path)) == 429, path
        assert status_of(asked(lb, client, target="/other")) == 200


def test_what_lbproxy_answers_itself_counts_too() -> None:
    routes = "[{match: {path: /r}, respond: {body: x}}]"
    with FakeLb(config("[{key: all, rate: 1/m, burst: 2}]", routes)) as lb:
        client = lb.connect()
        assert [status_of(asked(lb, client, target=target)) for target in ("/r", "/none", "/r", "/none")] == [
            200,
            404,
            429,
            429,
        ]


def test_http2_likewise() -> None:
    with FakeLb(ONE) as lb:
        client = Http2Client(lb)
        numbers = [client.begin() for _ in range(3)]
        assert client.answer(numbers[2]).status == 429
        assert client.answer(numbers[2]).fields["retry-after"] == "1"
        while lb.loop.dials:
            lb.accept().send(ok())


# --- the fleet --------------------------------------------------------------------------------------------------------


class FakeFleet(Fleet):
    """answers: what it says at once, then -1 for ever."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.waiting: list[Callable[[int], None]] = []

    def take(self, limit: Limit, key: bytes, told: Callable[[int], None]) -> int:
        self.asked.append(key)
        if self.answers:
            return self.answers.pop(0)
        self.waiting.append(told)
        return -1


def with_fleet(lb: FakeLb, *answers: int) -> FakeFleet:
    fleet = FakeFleet(*answers)
    limits_of(lb)[0].fleet = fleet
    return fleet


def test_the_fleet_may_know_at_once() -> None:
    with FakeLb(ONE) as lb:
        with_fleet(lb, 0, 2_500_000_000, 0)
        client = lb.connect()
        assert status_of(asked(lb, client)) == 200
        refused = asked(lb, client)
        assert status_of(refused) == 429 and b"Retry-After: 3" in refused
        assert status_of(asked(lb, client)) == 200, "the local token came back"


def test_the_request_waits_for_the_fleet() -> None:
    with FakeLb(ONE) as lb:
        fleet = with_fleet(lb)
        client = lb.connect()
        client.send(post(b"hello")[:-2])
        client.send(b"lo", post(b"next"))
        assert fleet.asked == [b"192.0.2.7"] and not lb.loop.dials and not client.got()
        fleet.waiting[0](0)
        server = lb.accept()
        assert server.got().endswith(b"hello")
        server.send(ok())
        assert status_of(client.got()) == 200 and len(fleet.waiting) == 2
        fleet.waiting[1](1)
        assert status_of(client.got()) == 429
        assert lb.ends == ["ok", "rate_limited"]


def test_a_long_body_does_not_grow_meanwhile() -> None:
    with FakeLb(ONE) as lb:
        fleet = with_fleet(lb)
        client = lb.connect()
        client.send(post(b"x" * 300_000)[:100_000])
        assert client.transport.is_paused
        fleet.waiting[0](0)
        server = lb.accept()
        assert not client.transport.is_paused
        client.send(post(b"x" * 300_000)[100_000:])
        assert server.got().count(b"x") >= 300_000
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_body_that_was_held_up_meanwhile_goes_on_for_its_key() -> None:
    """Memory was short while the fleet was asked, and is not any more."""
    pool = 'strategy: {name: consistent_hash, key: "json:/model"}'
    text = config("[{key: client_ip, rate: 1/m, burst: 9}]").replace("health_check: off", f"health_check: off, {pool}")
    assert pool in text
    with FakeLb(text) as lb:
        fleet = with_fleet(lb)
        client = lb.connect()
        whole = post(b'{"prompt": "x", "model": "m"}')
        client.send(whole[:-20])
        lb.services.pressure.is_holding = True
        client.send(whole[-20:-15])
        assert client.transport.is_paused
        lb.services.pressure.is_holding = False
        fleet.waiting[0](0)
        assert not client.transport.is_paused, "its model is still to come"
        client.send(whole[-15:])
        assert status_of(answered(lb, client)) == 200


@pytest.mark.parametrize("wait", [0, 5])
def test_who_left_while_the_fleet_was_asked_is_forgotten(wait: int) -> None:
    with FakeLb(ONE) as lb:
        fleet = with_fleet(lb)
        client = lb.connect()
        client.send(post(b"hello"))
        client.reset()
        fleet.waiting[0](wait)
        assert lb.ends == ["client_abort"] and not lb.loop.dials
        assert lb.of_pool("client_aborts_total", "queued") == 1


def test_a_defect_behind_the_fleet_is_that_request_s_alone() -> None:
    with FakeLb(ONE) as lb:
        fleet = with_fleet(lb)
        client = lb.connect()
        client.send(post(b""))
        real, failures = lb.services.clock, [RuntimeError("a defect")]

        def clock() -> float:
            if failures:
                raise failures.pop()
            return real()

        lb.services.clock = clock
        fleet.waiting[0](5)  # and whoever says so goes on to the next one
        assert status_of(client.got()) == 500 and lb.ends == ["internal_error"]
        lb.services.row[DEFECTS] -= 1  # as expected
