"""Why a request would go where it would go: told from objects that are wired as the daemon wires them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from lbproxy.api_keys import hash_of
from lbproxy.control.explaining import Asked, Moment, chosen, explain, explain_record, peer_address
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import FAULTS
from tests.support.listeners import wiring_of

CONFIG = """
trusted_proxies: [10.0.0.0/8]
listeners:
  - bind: ':2'
    name: db
    mode: tcp
    pool: one
  - bind: ':1'
    name: web
    methods: [GET, POST]
    deadline_header: X-Timeout
    limits: {body_bytes: 10, head_bytes: 2KiB}
    routes:
      - {match: {path_prefix: /beta, methods: [POST]}, pool: one, rewrite: {strip_prefix: /beta, path_prefix: /v2}}
      - {match: {path: /old}, redirect: {status: 301, location: 'https://{host}{path}{query}'}}
      - {match: {host: fixed.example}, respond: {status: 204}}
      - {match: {path_prefix: /api}, pool: many, timeouts: {read: 9s, total: 20s}, retry: {idempotent: true}}
  - {bind: ':3', name: plain, pool: many}
pools:
  one: {servers: ['127.0.0.1:5000'], health_check: off}
  many:
    servers: ['127.0.0.1:5001-5003']
    strategy: round_robin
    max_inflight: 1
    queue: {size: 1, timeout: 3s}
"""
NOW = 1000.0
Told = dict[str, Any]


class Site:
    """The listeners and pools of CONFIG."""

    def __init__(self, text: str = CONFIG) -> None:
        wiring, self.listeners = wiring_of(text)
        self.pools: dict[str, Pool] = {name: runtime.pool for name, runtime in wiring.pools.items()}
        for pool in self.pools.values():
            for server in pool.servers:
                pool.set_health(server, Health.UP, "", "", NOW - 60)

    def listener(self, name: str) -> ListenerRuntime:
        return chosen(self.listeners, name)

    def told(self, path: str = "/", listener: str = "web", *, refusing: str | None = None, **asked: Any) -> Told:
        moment = Moment(NOW, random.Random(1), refusing)
        return explain(self.listener(listener), Asked(path=path, **asked), moment)


def test_each_route_up_to_the_one_that_matches() -> None:
    told = Site().told("//api/%61?q=1")
    assert told["route"] == 3
    assert [(item["asked"], item["matches"], item["why"]) for item in told["routes"]] == [
        (True, False, "the method is GET, not POST"),
        (True, False, "the path is /api/a, not /old"),
        (True, False, "the host is localhost, not fixed.example"),
        (True, True, ""),
    ]
    assert told["path"] == {"received": "//api/%61", "sent": "/api/a?q=1"}
    assert told["answer"] is None
    assert (told["pool"]["name"], told["pool"]["strategy"], told["pool"]["usable"]) == ("many", "round_robin", 3)
    assert told["pick"] == {
        "server": "127.0.0.1:5001",
        "probe": False,
        "among": [],
        "why": "",
        "sticky": None,
        "hash": None,
    }


def test_a_rewritten_path() -> None:
    told = Site().told("/beta/x?q", method="POST")
    assert (told["route"], told["path"]["sent"], told["pick"]["server"]) == (0, "/v2/x?q", "127.0.0.1:5000")
    assert [item["why"] for item in told["routes"][1:]] == ["not asked: an earlier route matches"] * 3


def test_a_route_behind_one_that_takes_everything() -> None:
    text = CONFIG.replace("- {bind: ':3', name: plain, pool: many}", "- {bind: ':3', name: plain, routes: [ROUTES]}")
    routes = "{match: {path: /a}, pool: one}, {pool: many}, {match: {path: /b}, pool: one}"
    told = Site(text.replace("ROUTES", routes)).told("/b", "plain")
    assert told["routes"][2]["why"] == "never asked: it stands behind a route that takes every request"
    assert (told["route"], told["routes"][1]["match"]) == (1, "any request")


@pytest.mark.parametrize(
    ("asked", "status", "end", "why"),
    [
        ({"path": "/nowhere"}, 404, "no_route", "no route for GET /nowhere"),
        ({"path": "/api/../x"}, 400, "bad_path", "the path has a '..' segment"),
        ({"path": "/api", "method": "DELETE"}, 405, "method_not_allowed", "DELETE is not among the methods of this"),
        ({"path": "/api x"}, 400, "bad_request", ""),
        ({"path": "/api", "host": "a b"}, 400, "bad_host", ""),
        ({"path": "/api", "headers": (("content-length", "11"),)}, 413, "body_too_large", "Content-Length 11 is over"),
        ({"path": "/api", "headers": (("x", "y" * 2048),)}, 431, "header_too_large", "the head has 2"),
        ({"path": "/old?q=1", "host": "a.example"}, 301, "ok", "redirected to https://a.example/old?q=1"),
        ({"path": "/x", "host": "fixed.example"}, 204, "ok", "the route has an answer of its own (respond)"),
        ({"path": "/api", "headers": (("max-forwards", "0"),), "method": "OPTIONS"}, 405, "method_not_allowed", ""),
    ],
)
def test_what_lbproxy_itself_answers(asked: dict[str, Any], status: int, end: str, why: str) -> None:
    told = Site().told(**asked)
    answer = told["answer"]
    assert (answer["status"], answer["end"]) == (status, end)
    assert answer["why"].startswith(why)
    assert told["pick"] is None and told["pool"] is None
    if end != "ok":
        assert answer["hint"] == FAULTS[end].hint


def test_a_request_for_lbproxy_itself() -> None:
    told = Site().told("/", "plain", method="OPTIONS", headers=(("Max-Forwards", "0"),))
    assert (told["answer"]["status"], told["pick"]) == (200, None)


def test_a_bad_path_says_which_routes_had_been_asked() -> None:
    told = Site().told("/api/../x")
    assert [item["asked"] for item in told["routes"]] == [True, False, False, False]
    assert told["routes"][1]["why"] == "not asked: the path has a '..' segment"


def test_what_a_trusted_proxy_says_is_believed_and_what_others_say_is_not() -> None:
    site = Site()
    headers = (("X-Forwarded-For", "192.0.2.7"), ("X-Timeout", "2"))
    believed = site.told("/api", peer="10.0.0.1", headers=headers)
    assert believed["request"]["trusted"] and believed["request"]["client"] == "192.0.2.7"
    assert believed["timeouts"]["total"] == 2.0
    stranger = site.told("/api", peer="192.0.2.1", headers=headers)
    assert not stranger["request"]["trusted"] and stranger["request"]["client"] == "192.0.2.1"
    assert stranger["timeouts"]["total"] == 20.0
    late = site.told("/api", peer="10.0.0.1", headers=(("X-Timeout", "0"),))
    assert (late["answer"]["status"], late["answer"]["end"]) == (504, "total_timeout")


def test_why_each_server_may_or_may_not() -> None:
    site = Site()
    pool = site.pools["many"]
    first, second, _ = pool.servers
    pool.set_health(first, Health.DOWN, REFUSED, "connection refused", NOW - 12)
    pool.set_admin(second, Admin.DRAIN, "", NOW - 3)
    gone = Name("gone.example", NOW)
    gone.servers = ("gone.example:80",)
    gone.failed("no such name", NOW)
    pool.names.append(gone)
    told = site.told("/api")
    assert [(item["name"], item["may_take"], item["why"]) for item in told["pool"]["servers"]] == [
        ("127.0.0.1:5001", False, "down since 12 s: connection refused"),
        ("127.0.0.1:5002", False, "drained since 3 s"),
        ("127.0.0.1:5003", True, ""),
        ("gone.example:80", False, "the name gone.example has no address: no such name"),
    ]
    assert told["pick"]["server"] == "127.0.0.1:5003"


def test_a_full_pool_makes_it_wait_then_refuses() -> None:
    site = Site()
    pool = site.pools["many"]
    for _ in pool.servers:
        pool.acquire(PickContext("x"), (), NOW)
    told = site.told("/api")
    assert told["answer"] is None
    assert (told["pick"]["server"], told["pick"]["why"]) == (
        None,
        "every server that may take it is at its limit: it waits, behind 0 others, for 3 s at most",
    )
    pool.books.joined()
    full = site.told("/api")
    assert (full["answer"]["end"], full["pool"]["queue"]["depth"]) == ("queue_full", 1)
    for server in pool.servers:
        pool.set_admin(server, Admin.DRAIN, "", NOW)
    assert site.told("/api")["answer"]["end"] == "no_server"
    assert site.told("/api", refusing="overloaded")["answer"] == {
        "status": 503,
        "end": "overloaded",
        "why": "overloaded",
        "hint": FAULTS["overloaded"].hint,
        "closes": True,
    }


def test_a_deadline_that_the_queue_cannot_keep() -> None:
    site = Site()
    pool = site.pools["many"]
    for server in pool.servers:
        server.observe_service(30.0)
        pool.acquire(PickContext("x"), (), NOW)
    assert site.told("/api")["answer"]["end"] == "deadline_unreachable"  # the route allows 20 s


def test_nothing_changes_by_asking() -> None:
    site = Site()
    pool = site.pools["many"]
    assert {site.told("/api")["pick"]["server"] for _ in range(5)} == {"127.0.0.1:5001"}
    assert [server.inflight for server in pool.servers] == [0, 0, 0]
    names = []
    for _ in pool.servers:
        names.append(site.told("/api")["pick"]["server"])
        lease = pool.acquire(PickContext("x"), (), NOW)
        assert getattr(lease, "server").name == names[-1]  # noqa: B009 - a refusal has none, and fails here
    assert names == ["127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"]
    assert all(not any(listener.row) for listener in site.listeners)


def test_chance_is_told_as_such() -> None:
    site = Site(CONFIG.replace("round_robin", "random"))
    pick = site.told("/api")["pick"]
    assert (pick["server"], pick["why"], len(pick["among"])) == (None, "by chance", 3)
    assert sum(item["chance"] for item in pick["among"]) == pytest.approx(1.0, abs=0.02)


def test_time_outs_limits_and_retries() -> None:
    told = Site().told("/api", method="POST")
    assert (told["timeouts"]["read"], told["timeouts"]["total"], told["timeouts"]["connect"]) == (9.0, 20.0, 3.0)
    assert told["timeouts"]["request_head"] == 10.0
    assert told["listener"]["limits"]["body_bytes"] == 10
    retry = told["retry"]
    assert (retry["attempts"], retry["idempotent"], retry["budget"]) == (2, True, {"ratio": 0.2, "min": 3, "active": 0})
    causes = {item["end"]: item["retried"] for item in retry["causes"]}
    assert causes["reset"] and causes["connect_refused"] and not causes["response_timeout"]
    plain = {item["end"]: item for item in Site().told("/", "plain", method="POST")["retry"]["causes"]}
    assert plain["reset"]["why"] == "POST may have been executed (retry.idempotent)"


def test_a_listener_without_routes() -> None:
    told = Site().told("/x", "plain")
    assert told["routes"] == [{"route": 0, "match": "any request", "asked": True, "matches": True, "why": ""}]
    assert (told["route"], told["path"]["sent"], told["pool"]["name"]) == (0, "/x", "many")


def test_connections() -> None:
    site = Site()
    told = site.told(listener="db", peer="192.0.2.1")
    assert (told["request"], told["pick"]["server"]) == ({"from": "192.0.2.1", "client": "192.0.2.1"}, "127.0.0.1:5000")
    assert set(told["timeouts"]) == {"connect", "tls_handshake", "write", "tunnel", "half_closed"}
    assert {item["end"] for item in told["retry"]["causes"]} == {
        "connect_refused",
        "connect_unreachable",
        "connect_timeout",
        "connect_error",
    }
    assert told["retry"]["body_bytes"] is None
    site.pools["one"].set_admin(site.pools["one"].servers[0], Admin.DRAIN, "", NOW)
    closed = site.told(listener="db", refusing="overloaded")
    assert (closed["answer"]["status"], closed["answer"]["end"]) == (None, "no_server")


@pytest.mark.parametrize("field", ["method", "path", "host"])
@pytest.mark.parametrize("char", ["\r", "\n", "\0"])
def test_nobody_asks_about_two_requests_at_once(field: str, char: str) -> None:
    with pytest.raises(ValueError, match="a line break or NUL"):
        Site().told(**{"path": "/", field: f"/a{char}b"})


def test_a_header_with_a_line_break() -> None:
    with pytest.raises(ValueError, match="a line break or NUL"):
        Site().told(headers=(("a", "b\nc: d"),))


def test_the_host_may_be_among_the_headers() -> None:
    assert Site().told("/x", headers=(("Host", "fixed.example"),))["answer"]["status"] == 204
    assert Site().told("/api", host="a", headers=(("Host", "b"),))["answer"]["end"] == "bad_host"


def test_text_of_any_kind_is_read() -> None:
    assert Site().told("/api/é\ud800")["answer"]["status"] == 400


def test_which_listener() -> None:
    site = Site()
    assert chosen(site.listeners, None).name == "web"
    assert chosen(site.listeners[:1], None).name == "db"
    with pytest.raises(LookupError, match="there is no listener dc; there is db, web, plain"):
        chosen(site.listeners, "dc")


def test_whom_a_connection_comes_from() -> None:
    assert peer_address("unix") == "unix"
    assert peer_address("2001:DB8::1") == "2001:db8::1"
    with pytest.raises(ValueError, match="'here' is neither an IP address nor unix"):
        peer_address("here")


def test_a_record_in_words() -> None:
    tries = [{"server": "a", "reason": "reset", "ms": 1.0}, {"server": "b", "reason": "ok", "ms": 2.0}]
    told = explain_record({"end": "ok", "server": "b", "tries": tries})
    assert told["end"] == "The server's answer was delivered whole."
    assert told["blamed"] is None
    assert told["tries"] == [
        {**tries[0], "why": FAULTS["reset"].hint},
        {**tries[1], "why": "The server's answer was delivered whole."},
    ]
    assert explain_record({"end": "ok", "server": ""})["end"] == "It is what the route or the request asks."
    assert explain_record({"end": "later"})["end"] == "This word is not one of this version."
    for word, fault in FAULTS.items():
        assert explain_record({"end": word}) == {
            "record": {"end": word},
            "end": fault.hint,
            "blamed": fault.side.value,
            "tries": [],
        }


BY_BODY = """
listeners:
  - bind: ':1'
    name: web
    routes:
      - {name: llama, match: {path: /x, json: {/model: 'llama-*'}}, pool: a}
      - {match: {path: /x}, split: {by: 'header:X-User', pools: {a: 1, b: 1}}}
      - {split: {a: 1, b: 3}}
pools:
  a: {servers: ['127.0.0.1:5000'], health_check: off}
  b: {servers: ['127.0.0.1:5001'], health_check: off}
"""


def test_what_the_body_says_and_why_it_does_not() -> None:
    site = Site(BY_BODY)
    told = site.told("/x", method="POST", body='{"model": "llama-3"}')
    assert (told["route"], told["pool"]["name"], told["split"]) == (0, "a", None)
    assert told["routes"][0]["match"] == "path /x, json /model llama-*"
    told = site.told("/x", method="POST", body='{"model": "gpt"}', headers=(("X-User", "u"),))
    assert told["routes"][0]["why"] == "/model of the body is gpt, not llama-*"
    assert told["route"] == 1
    assert told["split"]["pool"] == told["pool"]["name"]
    told = site.told("/x")
    assert told["routes"][0]["why"] == "the body has no /model to go by"
    assert (told["route"], told["split"]["pool"]) == (1, None)
    assert told["split"]["why"] == "the request has no header:X-User: it goes by chance"


def test_a_split_by_chance_is_told_as_such_and_without_asking_it() -> None:
    site = Site(BY_BODY)
    told = site.told("/y")
    assert (told["route"], told["pool"]["name"]) == (2, "b")
    assert told["split"]["shown"] == "b"
    assert [item["chance"] for item in told["split"]["pools"]] == [0.25, 0.75]


def test_who_asks_and_which_limits_count_it(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"team-a {hash_of('secret')}\n")
    site = Site(f"""
api_keys: {{file: "{tmp_path}/keys"}}
rate_limits:
  - {{name: each, key: client_ip, rate: 1/h}}
  - {{name: teams, key: api_key, rate: 1/h}}
  - {{name: other, key: all, rate: 1/h, match: {{path: /other}}}}
listeners: [{{bind: ':1', name: web, pool: one}}]
pools: {{one: {{servers: ['127.0.0.1:5000'], health_check: off}}}}
""")
    for _ in range(3):  # nothing is taken
        told = site.told("/", headers=(("X-API-Key", "secret"),))
        assert (told["api_key"], told["rate_limits"]) == ("team-a", ["each", "teams"])
        assert told["answer"] is None
    told = site.told("/other")
    assert (told["api_key"], told["rate_limits"], told["answer"]["status"]) == (None, ["each", "other"], 401)


def test_by_what_a_request_would_have_turns() -> None:
    queue = "queue: {size: 1, timeout: 3s, fair_by: 'header:X-Tenant', priority: {from: any}}"
    site = Site(CONFIG.replace("queue: {size: 1, timeout: 3s}", queue))
    pool = site.pools["many"]
    for _ in pool.servers:
        pool.acquire(PickContext("x"), (), NOW)
    told = site.told("/api", headers=(("X-Tenant", "blue"), ("X-Priority", "high")))
    waits = told["pool"]["queue"]
    assert (waits["class"], waits["key"], waits["classes"]) == ("high", "blue", {"high": 0, "normal": 0, "low": 0})
    assert told["pick"]["why"] == (
        "every server that may take it is at its limit: "
        "it waits, by the turns of its class and its key, for 3 s at most"
    )
    assert pool.queue is not None
    assert pool.queue.push(Ticket(PickContext("x"), enqueued_at=NOW), NOW)
    assert site.told("/api")["answer"]["end"] == "queue_full"
    assert site.told("/api", headers=(("X-Priority", "low"),))["answer"]["end"] == "queue_full"
    assert site.told("/api", headers=(("X-Priority", "high"),))["answer"] is None, "it is of a class that has less"
