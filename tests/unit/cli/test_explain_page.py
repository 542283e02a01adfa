"""What `lbproxy explain` prints: the first line is the answer, the rest is why."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.cli.explain_page import page, past
from lbproxy.control.explaining import explain_record
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies.base import PickContext
from tests.support.build import ROOT
from tests.support.pages import blocks
from tests.unit.control.test_explaining import CONFIG, NOW, Site

RECORD = {
    "ts": "2026-11-23T22:55:33.398Z",
    "request_id": "a2",
    "client": "10.1.2.3",
    "listener": "web",
    "method": "POST",
    "host": "models.example",
    "target": "/predict",
    "status": 200,
    "bytes_in": 37,
    "bytes_out": 142,
    "pool": "predict",
    "server": "b",
    "attempts": 2,
    "queue_ms": 0.0,
    "connect_ms": None,
    "ttfb_ms": 1.4,
    "total_ms": 2.006,
    "end": "ok",
    "tries": [{"server": "a", "reason": "reset", "ms": 0.5}, {"server": "b", "reason": "ok", "ms": 1.5}],
}


def lines(path: str, site: Site | None = None, **asked: Any) -> list[str]:
    return page((site or Site()).told(path, **asked)).splitlines()


def test_a_request_that_goes_to_a_server() -> None:
    site = Site()
    pool = site.pools["many"]
    pool.set_health(pool.servers[1], Health.DOWN, REFUSED, "connection refused", NOW - 3)
    assert lines("//api/x", site, method="POST", peer="192.0.2.1") == [
        "POST //api/x goes to many/127.0.0.1:5001",
        "listener web (http), from 192.0.2.1",
        "routes",
        "  0  no   methods POST, path_prefix /beta  (the path /api/x is not /beta or below it)",
        "  1  no   path /old  (the path is /api/x, not /old)",
        "  2  no   host fixed.example  (the host is localhost, not fixed.example)",
        "  3  yes  path_prefix /api",
        "path: //api/x is sent as /api/x",
        "pool many (round_robin): 2 of 3 usable; queue: 0 of 1 waiting",
        "  SERVER          TAKES IT  IN FLIGHT  WHY",
        "  127.0.0.1:5001  next            0/1",
        "  127.0.0.1:5002  no              0/1  down since 3 s: connection refused",
        "  127.0.0.1:5003  yes             0/1",
        "time-outs towards the client: request_head 10 s, request_body 30 s, keep_alive 75 s, write 30 s",
        "time-outs towards the server: connect 3 s, response_head 60 s, read 9 s, write 30 s, total 20 s, "
        "tunnel 600 s, half_closed 30 s",
        "limits: head 2 KiB, request line 8 KiB, body 10 bytes",
        "retries: 2 attempts more, with a body of at most 1 MiB; of all requests at most 20 %, but 3",
        "  after connect_refused, connect_unreachable, connect_timeout, connect_error, closed_early, reset, "
        "closed_unsent, closed_unacked, upstream_closed_reused_conn, maintenance",
        "  not after response_timeout: retry.on has no timeout",
    ]


def test_a_request_that_lbproxy_answers() -> None:
    assert lines("/nowhere")[:2] == [
        "GET /nowhere is answered by lbproxy itself with 404 (no_route): no route for GET /nowhere",
        "  No route matches this request; check host, path and method.",
    ]
    told = lines("/old")
    assert told[0] == "GET /old is answered by lbproxy itself with 301: redirected to https://localhost/old"
    assert told[-1] == "  2 to 3  not asked: an earlier route matches"
    assert lines("/api/../x")[-1] == "  1 to 3  not asked: the path has a '..' segment"


def test_a_request_that_waits_and_one_that_cannot() -> None:
    site = Site()
    for _ in range(3):
        site.pools["many"].acquire(PickContext("x"), (), NOW)
    assert lines("/api", site)[0] == (
        "GET /api goes to pool many: every server that may take it is at its limit: it waits, behind 0 others, for 3 s "
        "at most"
    )
    site.pools["many"].books.joined()
    refused = lines("/api", site)
    assert refused[0].startswith("GET /api is answered by lbproxy itself with 503 (queue_full): pool many is at its")
    assert "  127.0.0.1:5001  no              1/1  full: 1 of 1 in flight" in refused


def test_chance_is_a_list_with_shares() -> None:
    told = lines("/api", Site(CONFIG.replace("round_robin", "random")))
    assert told[0].startswith("GET /api goes to many/127.0.0.1:500")
    assert told[0].endswith(" %): by chance")
    assert told[0].count("(about 3") == 3


def test_connections_have_no_routes() -> None:
    told = lines("/", listener="db")
    assert told[:3] == [
        "a connection goes to one/127.0.0.1:5000",
        "listener db (tcp), from 127.0.0.1",
        "pool one (least_connections): 1 of 1 usable; queue: 0 of 1024 waiting",
    ]
    assert told[-2:] == [
        "retries: 2 attempts more; of all requests at most 20 %, but 3",
        "  after connect_refused, connect_unreachable, connect_timeout, connect_error",
    ]


def test_without_retries() -> None:
    told = lines("/", Site(CONFIG.replace("max_inflight: 1", "retry: off")), listener="plain")
    assert "retries: none" in told
    assert told[-1].endswith(": retry is off")


def test_a_client_behind_a_proxy() -> None:
    told = lines("/api", peer="10.0.0.1", headers=(("X-Forwarded-For", "192.0.2.7"),))
    assert told[1] == "listener web (http), from 10.0.0.1, a trusted proxy, for the client 192.0.2.7"


DOCUMENTED = """
listeners:
  - bind: 0.0.0.0:5000
    routes:
      - {match: {headers: {x-model: a}}, pool: large}
      - {match: {path_prefix: /v1}, pool: predict, rewrite: {strip_prefix: /v1}}
pools:
  large: {servers: ['10.0.0.8:5001']}
  predict: {servers: ['10.0.0.7:5001-5004'], max_inflight: 2}
"""


def test_the_pages_of_the_manual_are_what_is_printed() -> None:
    site = Site(DOCUMENTED)
    pool = site.pools["predict"]
    down, full, drained, _ = pool.servers
    pool.set_health(down, Health.DOWN, REFUSED, "connection refused", NOW - 12)
    pool.set_admin(drained, Admin.DRAIN, "", NOW - 90)
    for _ in range(2):
        assert pool.acquire_at(full, NOW) is not None
    told = site.told("/v1/predict", "0.0.0.0:5000", method="POST", headers=(("x-model", "b"),))
    shown = [block.text for block in blocks((ROOT / "docs/cli.md").read_text())]
    assert f"$ lbproxy explain POST /v1/predict -H 'x-model: b'\n{page(told)}\n" in shown
    assert f"{past({'records': [explain_record(RECORD)]})}\n" in shown


def test_what_came_of_a_request() -> None:
    told = {"records": [explain_record(RECORD)]}
    assert past(told).splitlines() == [
        "POST /predict ended with 200 (ok): The server's answer was delivered whole.",
        "at 2026-11-23T22:55:33.398Z, from 10.1.2.3, listener web, host models.example",
        "went to predict/b, 2 attempts",
        "time: 2.006 ms in all, 0 ms in the queue, 1.4 ms to the first byte",
        "bytes: 37 in, 142 out",
        "tries",
        "  1  a: reset after 0.5 ms. The server reset the connection; see its log.",
        "  2  b: ok after 1.5 ms. The server's answer was delivered whole.",
    ]


def test_what_came_of_one_that_went_nowhere() -> None:
    record = {**RECORD, "pool": "", "server": "", "attempts": 0, "status": 404, "end": "no_route", "tries": None}
    told = past({"records": [explain_record(record)] * 2})
    assert told.count("went to no pool: lbproxy itself answered") == 2
    assert told.startswith("POST /predict ended with 404 (no_route): No route matches this request;")
    waited = {**record, "pool": "predict", "end": "queue_timeout"}
    assert "went to pool predict, no server, 0 attempts" in past({"records": [explain_record(waited)]})
    tcp = {**RECORD, "method": None, "target": None, "host": None, "status": None, "end": "reset", "tries": None}
    assert past({"records": [explain_record(tcp)]}).startswith("a connection ended with reset: The server reset the")


@pytest.mark.parametrize("told", [{}, {"pool": 1, "routes": "x"}, {"records": [1, {"tries": [{}]}]}])
def test_the_answer_of_another_version_is_no_defect(told: dict[str, Any]) -> None:
    assert page(told).startswith("a connection goes to pool None")
    assert past(told).count("a connection ended with None") == len([x for x in told.get("records", ()) if x != 1])


SPLIT = """
listeners:
  - bind: ':1'
    name: web
    routes:
      - {match: {path: /x}, split: {by: 'header:X-User', pools: {stable: 95, canary: 5}}}
      - {split: {stable: 1, canary: 3}}
pools:
  stable: {servers: ['127.0.0.1:5000'], health_check: off}
  canary: {servers: ['127.0.0.1:5001'], health_check: off}
"""


def test_a_split_and_where_it_leads() -> None:
    page = lines("/x", Site(SPLIT), headers=(("X-User", "u"),))
    [told] = [line for line in page if line.startswith("split ")]
    assert told.startswith("split by header:X-User (stable 95 %, canary 5 %): u goes to ")
    assert told.endswith(page[0].partition(" goes to ")[2].partition("/")[0])
    page = lines("/x", Site(SPLIT))
    assert (
        "split by chance (stable 95 %, canary 5 %); the request has no header:X-User: it goes by chance; what follows "
        "is about stable"
    ) in page
    assert "split by chance (stable 25 %, canary 75 %); what follows is about canary" in lines("/y", Site(SPLIT))


def test_who_asks_and_which_limits_count_it() -> None:
    told = Site().told("/api")
    assert not [line for line in page(told).splitlines() if line.startswith(("API key", "rate limits"))]
    told |= {"api_key": "team-a", "rate_limits": ["each", "teams"]}
    said = page(told).splitlines()
    assert "API key: that of team-a" in said
    assert "rate limits: it needs a token of each, teams" in said
