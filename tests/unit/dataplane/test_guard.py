"""API keys: who is let in, what they are called, and that a key stands nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.api_keys import KeyRing, hash_of, read_keys
from lbproxy.dataplane.guard import BAD_KEY, GOOD_KEY, NO_KEY, Check, Guard, KeyRules, Limit
from lbproxy.domain.buckets import own_buckets
from lbproxy.errors import RATE_LIMITED
from lbproxy.protocol.http1 import RequestHead, parse_request_head
from lbproxy.request_key import read_key
from lbproxy.telemetry.slots import LIMIT
from tests.support.fake_transport import FakeLb, ok, post, status_of
from tests.support.http2_client import Http2Client

KEY, OTHER = "lbp_0123456789abcdefghij_first", "lbp_0123456789abcdefghij_other"
RING = read_keys(f"team-a {hash_of(KEY)}\nteam-b {hash_of(OTHER)}\n")


def head(*fields: str, target: str = "/a") -> RequestHead:
    raw = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *fields, "", ""]).encode()
    return parse_request_head(raw, max_fields=100)


@pytest.mark.parametrize(
    ("header", "query", "fields", "target", "found"),
    [
        ("X-API-Key", "", [f"X-Api-KEY:  {KEY} "], "/", GOOD_KEY),
        ("X-API-Key", "", [f"X-API-Key: {KEY}x"], "/", BAD_KEY),
        ("X-API-Key", "", ["X-API-Key:"], "/", BAD_KEY),
        ("X-API-Key", "", [f"X-Other: {KEY}", f"X-X-API-Key: {KEY}"], "/", NO_KEY),
        ("X-API-Key", "", [f"X-API-Key: {KEY}", f"X-API-Key: {OTHER}"], "/", BAD_KEY),
        ("X-API-Key", "", [f"X-API-Key: {KEY}", f"X-API-Key: {KEY}"], "/", BAD_KEY),
        ("X-API-Key", "", [], f"/?key={KEY}", NO_KEY),
        ("X-API-Key", "key", [], f"/?a=1&key={KEY}&b=2", GOOD_KEY),
        ("X-API-Key", "key", [], f"/?key={KEY.replace('_', '%5F')}", GOOD_KEY),
        ("X-API-Key", "key", [], f"/?monkey={KEY}", NO_KEY),
        ("X-API-Key", "key", [f"X-API-Key: {KEY}"], f"/?key={KEY}", BAD_KEY),
        ("Authorization", "", [f"Authorization: Bearer {KEY}"], "/", GOOD_KEY),
        ("Authorization", "", [f"authorization: bearer  {KEY}"], "/", GOOD_KEY),
        ("Authorization", "", ["Authorization: Basic dTpw"], "/", NO_KEY),
        ("Authorization", "", [f"Authorization: Bearer x{KEY}"], "/", BAD_KEY),
    ],
)
def test_where_keys_are_found(header: str, query: str, fields: list[str], target: str, found: int) -> None:
    request = head(*fields, target=target)
    assert KeyRules(RING, header, query).identify(request) == found
    assert request.key_name == ("team-a" if found == GOOD_KEY else "")
    assert request.headers.get(":api-key") == ("team-a" if found == GOOD_KEY else None)


def test_what_is_hidden() -> None:
    rules = KeyRules(KeyRing({}), "X-API-Key", "k.y")
    assert rules.hidden("/a?b=1&k.y=secret&c=2") == "/a?b=1&k.y=***&c=2"
    assert rules.hidden("/a?k.y=secret&k.y=x") == "/a?k.y=***&k.y=***"
    assert rules.hidden("/a?kXy=1") == "/a?kXy=1"
    assert KeyRules(KeyRing({}), "X-API-Key", "").hidden("/a?k=1") == "/a?k=1"


# --- whole requests ---------------------------------------------------------------------------------------------------

ROUTES = """
    - {match: {path: /open}, pool: app, api_keys: off}
    - {match: {path: /maybe}, pool: app, api_keys: optional}
    - {match: {path: /b}, pool: app, api_keys: [team-b]}
    - {match: {path: /own, api_key: team-b}, respond: {body: b}}
    - {match: {path: /own, api_key: "*"}, respond: {body: any}}
    - {match: {path: /own}, respond: {body: nobody}, api_keys: off}
    - {pool: app}
"""


def config(folder: Path, more: str = "query: key") -> str:
    (folder / "keys").write_text(f"team-a {hash_of(KEY)}\nteam-b {hash_of(OTHER)}\n")
    return f"""
access_log: {{path: /dev/null}}
api_keys: {{file: "{folder}/keys", {more}}}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  routes:{ROUTES}
pools:
  app: {{servers: ["127.0.0.1:9001"], health_check: off}}
"""


def asked(lb: FakeLb, target: str, *fields: str) -> bytes:
    client = lb.connect()
    client.send(post(b"", *fields, target=target))
    if lb.loop.dials:
        lb.accept()
    for server in lb.servers:
        if not server.transport.is_lost and server.got():
            server.send(ok())
    return client.got()


@pytest.mark.parametrize(
    ("target", "key", "status", "end", "name"),
    [
        ("/a", None, 401, "key_missing", None),
        ("/a", "nobody's", 401, "key_unknown", None),
        ("/a", KEY, 200, "ok", "team-a"),
        ("/a", OTHER, 200, "ok", "team-b"),
        ("/b", KEY, 403, "key_refused", "team-a"),
        ("/b", OTHER, 200, "ok", "team-b"),
        ("/b", None, 401, "key_missing", None),
        ("/open", None, 200, "ok", None),
        ("/open", "nobody's", 200, "ok", None),
        ("/maybe", None, 200, "ok", None),
        ("/maybe", "nobody's", 401, "key_unknown", None),
    ],
)
def test_who_is_let_in(tmp_path: Path, target: str, key: str | None, status: int, end: str, name: str | None) -> None:
    with FakeLb(config(tmp_path)) as lb:
        by_header, by_query = ((f"X-API-Key: {key}",), target), ((), f"{target}?key={key}")
        for fields, place in (by_header, by_query) if key is not None else (((), target),):
            for _ in range(3):  # the third time the head is remembered
                answer = asked(lb, place, *fields)
                assert status_of(answer) == status
                assert lb.log[-1]["end"] == end
                assert lb.log[-1].get("key") == name
                assert (b"WWW-Authenticate: ApiKey" in answer) == (status == 401)
        if end != "ok":
            assert lb.of_listener("rejected_total", end) == lb.ends.count(end)
        if key is not None:
            said = "".join(lb.writer.lines)
            assert key not in said
            assert f'"target":"{target}?key=***"' in said


def test_routes_go_by_name(tmp_path: Path) -> None:
    with FakeLb(config(tmp_path)) as lb:
        found = [asked(lb, "/own", *fields) for fields in ([f"X-API-Key: {OTHER}"], [f"X-API-Key: {KEY}"], [])]
        assert [answer.rpartition(b"\r\n")[2] for answer in found] == [b"b", b"any", b"nobody"]
        forged = asked(lb, "/own", ":api-key: team-b")
        assert status_of(forged) == 400


def test_a_key_stands_nowhere_when_its_request_is_refused(tmp_path: Path) -> None:
    with FakeLb(config(tmp_path)) as lb:
        for request in (
            post(b"", "Bad Name: x", target=f"/a?key={KEY}"),
            post(b"", target=f"/..%2f?x=1&key={KEY}&y=2"),
            post(b"", target=f"/a?key={KEY}").replace(b"HTTP/1.1", b"HTTP/3.0"),
        ):
            client = lb.connect()
            client.send(request)
            answer = client.got()
            assert status_of(answer) >= 400 and KEY.encode() not in answer
        assert KEY not in "".join(lb.writer.lines)
        assert [line["target"].partition("?")[2] for line in lb.log] == ["key=***", "x=1&key=***&y=2", "key=***"]


def test_keys_may_only_name_clients(tmp_path: Path) -> None:
    with FakeLb(config(tmp_path, "required: false, header: Authorization")) as lb:
        assert status_of(asked(lb, "/a")) == 200
        assert status_of(asked(lb, "/a", f"Authorization: Bearer {KEY}")) == 200
        assert lb.log[-1]["key"] == "team-a"
        answer = asked(lb, "/a", "Authorization: Bearer x")
        assert status_of(answer) == 401 and b'WWW-Authenticate: Bearer realm="lbproxy"' in answer


def test_http2_likewise(tmp_path: Path) -> None:
    with FakeLb(config(tmp_path)) as lb:
        client = Http2Client(lb)
        first, second = client.begin(), client.begin("GET", "/own", f"x-api-key: {KEY}")
        assert [client.answer(number).status for number in (first, second)] == [401, 200]
        assert [line.get("key") for line in lb.log] == [None, "team-a"]


# --- which limits hold ------------------------------------------------------------------------------------------------


def limit(name: str, key: str | None) -> Limit:
    row = [0] * LIMIT.width
    return Limit(name, None if key is None else read_key(key), None, 1000, 5, own_buckets(), RATE_LIMITED, row)


def test_what_has_a_bucket_of_its_own() -> None:
    limits = [limit(text, text) for text in ("client_ip", "header:x-tenant", "api_key", "path")] + [limit("all", None)]
    guard = Guard(None, limits)

    def keys(request: RequestHead) -> dict[str, bytes]:
        return {check.limit.name: check.key for check in guard.checks(request, request.headers) or ()}

    assert keys(head()) == {"client_ip": b"", "path": b"/a", "all": b"*"}
    request = head("X-Tenant: t")
    request.key_name = "team-a"
    assert keys(request)["header:x-tenant"] == b"t" and keys(request)["api_key"] == b"team-a"
    assert Guard(None, ()).checks(head(), {}) is None


def test_marks_differ_by_limit_and_key() -> None:
    marks = {limit(name, None).mark_of(key) for name in ("a", "b") for key in (b"x", b"y", b"a\0x")}
    assert len(marks) == 6 and 0 not in marks
    assert Check(limit("a", "client_ip"), b"").mark == 0
    names = {limit(name, None).shared_name(key) for name in ("a", "b") for key in (b"x", b"y")}
    assert len(names) == 4 and all(name.startswith(b"lbproxy:") for name in names)
