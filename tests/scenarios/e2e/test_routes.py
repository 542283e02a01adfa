"""Routes, header edits and forwarding fields in front of a real Flask application."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.rig import get, post
from tests.support.servers import Gunicorn, gunicorns
from tests.support.wire import Response, Stream, read_response

Seen = dict[str, Any]


def routes() -> list[dict[str, object]]:
    return [
        {"match": {"host": "a.example", "path": "/exact"}, "pool": "one"},
        {"match": {"host": "*.wild.example"}, "pool": "one"},
        {"match": {"path_prefix": "/api", "methods": ["POST"]}, "pool": "one"},
        {"match": {"path_prefix": "/api"}, "pool": "two"},
        {"match": {"path_regex": "^/v[0-9]+/models"}, "pool": "one"},
        {"match": {"headers": {"X-Model": "large"}, "path": "/by-header"}, "pool": "one"},
        {"match": {"headers": {"X-Model": "*"}, "path": "/by-header"}, "pool": "two"},
        {"match": {"query": {"stream": "true"}, "path": "/by-query"}, "pool": "one"},
        {"match": {"query": {"any": "*"}, "path": "/by-query"}, "pool": "two"},
        {"match": {"path": "/old"}, "redirect": {"status": 308, "location": "https://new.example/x"}},
        {"match": {"path": "/found"}, "redirect": {"location": "/elsewhere"}},
        {
            "match": {"path": "/robots.txt"},
            "respond": {
                "status": 203,
                "headers": {"Content-Type": "text/plain", "X-Own": "1"},
                "body": "Disallow: /\n",
            },
        },
        {"match": {"path_prefix": "/strip"}, "pool": "one", "rewrite": {"strip_prefix": "/strip"}},
        {
            "match": {"path_prefix": "/move"},
            "pool": "one",
            "rewrite": {"strip_prefix": "/move", "path_prefix": "/new/home"},
        },
        {
            "match": {"path": "/edit"},
            "pool": "edited",
            "headers": {
                "request": {"set": {"X-Set": "route"}, "add": {"X-Add": "route"}, "remove": ["X-Secret"]},
                "response": {
                    "set": {"Cache-Control": "no-store"},
                    "add": {"X-Added": "route"},
                    "remove": ["X-Powered-By"],
                },
            },
        },
    ]


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    folder = tmp_path_factory.mktemp("routes")
    with gunicorns(folder / "one", 1, E2E_NAME="one") as (one,), gunicorns(folder / "two", 1, E2E_NAME="two") as (two,):
        local = Gunicorn(folder / "unix", E2E_NAME="unix")
        local.start(str(folder / "app.sock"))
        local.wait()
        try:
            with LbProxy(config(one, two, local, folder), folder / "lb") as daemon:
                yield daemon
        finally:
            local.kill()


def config(one: Gunicorn, two: Gunicorn, local: Gunicorn, folder: Path) -> dict[str, object]:
    edits = {
        "request": {"set": {"X-Set": "pool", "X-Pool": "edited"}, "add": {"X-Add": "pool"}},
        "response": {"add": {"X-Added": "pool"}},
    }
    pools: dict[str, dict[str, object]] = {
        "one": {"servers": [one.address]},
        "two": {"servers": [two.address]},
        "edited": {"servers": [one.address], "headers": edits},
        "named": {"servers": [f"localhost:{one.port}"], "dns": {"interval": "1s"}, "health_check": "/health"},
        "unix": {"servers": [local.address], "health_check": "/health"},
    }
    listeners = [
        {"name": "routed", "bind": "127.0.0.1:0", "routes": routes()},
        {"name": "plain", "bind": "127.0.0.1:0", "pool": "one"},
        {"name": "named", "bind": "127.0.0.1:0", "pool": "named"},
        {"name": "to-unix", "bind": "127.0.0.1:0", "pool": "unix"},
        {"name": "at-unix", "bind": f"unix:{folder}/in.sock", "pool": "one", "mode_bits": "0600"},
        {"name": "abstract", "bind": f"unix:@lbproxy-e2e-{one.port}", "pool": "one"},
    ]
    return {"listeners": listeners, "pools": pools, "trusted_proxies": ["127.0.0.9/32", "10.0.0.0/8"]}


def ask(lb: LbProxy, request: bytes, listener: str = "routed", source: str = "127.0.0.1") -> Response:
    with socket.socket() as sock:
        sock.bind((source, 0))
        sock.settimeout(10)
        sock.connect(("127.0.0.1", lb.port(listener)))
        sock.sendall(request)
        return read_response(Stream(sock), is_head=request.startswith(b"HEAD"))


def seen(answer: Response) -> Seen:
    """What the application says that it got."""
    assert answer.status == 200, (answer.status, answer.body)
    told: Seen = json.loads(answer.body)
    return told


def fields(told: Seen, name: str) -> list[str]:
    return [value for key, value in told["headers"] if key == name.lower()]


def request(target: str, *lines: str, method: str = "GET", host: str = "x.example") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


# --- matching ---

MATCHES = {
    "host and path": (request("/exact", host="a.example"), "one"),
    "host has another case and a port": (request("/exact?q=1", host="A.Example:5000"), "one"),
    "wildcard host": (request("/any/where", host="b.wild.example"), "one"),
    "method before the general route": (post("/api/x"), "one"),
    "prefix": (request("/api/x/y"), "two"),
    "prefix itself": (request("/api"), "two"),
    "regex": (request("/v12/models/7"), "one"),
    "encoded as unreserved": (request("/%61pi/x"), "two"),
    "header value": (request("/by-header", "x-model: large"), "one"),
    "header present": (request("/by-header", "X-MODEL: small"), "two"),
    "query value": (request("/by-query?a=b&stream=true"), "one"),
    "query encoded": (request("/by-query?str%65am=tru%65"), "one"),
    "query present": (request("/by-query?any="), "two"),
}
MISSES = {
    "another host": request("/exact", host="b.example"),
    "two labels for the wildcard": request("/", host="a.b.wild.example"),
    "no label for the wildcard": request("/", host="wild.example"),
    "beyond a segment": request("/apix"),
    "regex at the start only": request("/x/v1/models"),
    "no header": request("/by-header"),
    "another query": request("/by-query?stream=false"),
    "below an exact path": request("/exact/more", host="a.example"),
    "another case of the path": request("/API/x"),
}


@pytest.mark.parametrize("name", MATCHES)
def test_the_first_route_that_matches_decides(lb: LbProxy, name: str) -> None:
    sent, server = MATCHES[name]
    told = seen(ask(lb, sent))
    assert told["name"] == server
    assert told["target"] == sent.split(b" ")[1].decode().replace("%61", "a")  # as the rule has seen it


@pytest.mark.parametrize("name", MISSES)
def test_no_route_is_404(lb: LbProxy, name: str) -> None:
    answer = ask(lb, MISSES[name])
    assert answer.status == 404
    assert answer.get("content-type") == "application/problem+json"
    problem = json.loads(answer.body)
    assert (problem["status"], problem["title"]) == (404, "Not Found")
    assert problem["request_id"] == answer.get("x-request-id")
    assert answer.is_kept_alive


# --- answers of lbproxy itself ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_redirect(lb: LbProxy, method: str) -> None:
    extra = ["Content-Length: 0"] if method == "POST" else []
    for path, status, location in (("/old", 308, "https://new.example/x"), ("/found", 302, "/elsewhere")):
        answer = ask(lb, request(path, *extra, method=method))
        assert (answer.status, answer.get("location")) == (status, location)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_respond(lb: LbProxy, method: str) -> None:
    answer = ask(lb, request("/robots.txt", method=method))
    assert answer.status == 203
    assert answer.get("content-type") == "text/plain"
    assert answer.get("x-own") == "1"
    assert answer.get("content-length") == "12"
    assert answer.body == (b"" if method == "HEAD" else b"Disallow: /\n")


def test_the_body_of_a_request_that_lbproxy_answers_is_read(lb: LbProxy) -> None:
    """What follows on the connection is the next request or, where that was announced, the end: never the body."""
    with Client(lb.port("routed")) as client:
        client.send(post("/robots.txt", b"GET /old HTTP/1.1\r\nHost: a\r\n\r\n"), request("/found"))
        first = client.response()
        assert first.status == 203
        if first.is_kept_alive:
            assert client.response().status == 302
        else:
            assert client.wait_end() == "fin"


# --- edits ---

REWRITES = {
    "/strip/x?q=%20": "/x?q=%20",
    "/strip": "/",
    "/strip/": "/",
    "/strip/a%20b": "/a%20b",
    "/move/a/b?c=d": "/new/home/a/b?c=d",
    "/move": "/new/home",
}


@pytest.mark.parametrize("target", REWRITES)
def test_rewrite(lb: LbProxy, target: str) -> None:
    assert seen(ask(lb, request(target)))["target"] == REWRITES[target]


def test_header_edits(lb: LbProxy) -> None:
    answer = ask(lb, request("/edit", "X-Set: client", "X-Add: client", "X-Secret: 1", "x-secret: 2", "X-Pool: client"))
    told = seen(answer)
    assert fields(told, "x-set") == ["route"]
    assert fields(told, "x-pool") == ["edited"]
    assert [part.strip() for value in fields(told, "x-add") for part in value.split(",")] == ["client", "pool", "route"]
    assert fields(told, "x-secret") == []
    assert answer.get("cache-control") == "no-store"
    assert answer.all("x-added") == ["pool", "route"]
    assert answer.all("x-powered-by") == []


def test_without_edits_the_answer_is_the_server_s(lb: LbProxy) -> None:
    answer = ask(lb, request("/x"), "plain")
    assert answer.get("x-powered-by") == "flask"
    assert "gunicorn" in (answer.get("server") or "")


# --- who asks ---


def test_the_client_is_named(lb: LbProxy) -> None:
    told = seen(ask(lb, request("/x", host="shop.example:81"), "plain", source="127.0.0.5"))
    assert fields(told, "x-forwarded-for") == ["127.0.0.5"]
    assert fields(told, "x-forwarded-proto") == ["http"]
    assert fields(told, "x-forwarded-port") == ["81"]
    assert fields(told, "x-forwarded-host") == ["shop.example:81"]
    assert fields(told, "host") == ["shop.example:81"]
    assert fields(told, "via") == ["1.1 lbproxy"]


CLAIMS = (
    "X-Forwarded-For: 203.0.113.7, 10.1.2.3",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.example",
    "X-Forwarded-Port: 443",
    "Forwarded: for=203.0.113.7",
    "X-Real-IP: 203.0.113.7",
    "X-Request-ID: from-the-edge-1",
)


def test_claims_of_an_untrusted_peer_are_replaced(lb: LbProxy) -> None:
    answer = ask(lb, request("/untrusted", *CLAIMS), "plain", source="127.0.0.8")
    told = seen(answer)
    assert fields(told, "x-forwarded-for") == ["127.0.0.8"]
    assert fields(told, "x-forwarded-proto") == ["http"]
    assert fields(told, "x-forwarded-host") == ["x.example"]
    assert fields(told, "x-forwarded-port") == ["80"]
    assert fields(told, "forwarded") == fields(told, "x-real-ip") == []
    assert fields(told, "x-request-id") == [answer.get("x-request-id")]
    assert len(answer.get("x-request-id") or "") == 32
    entry = lb.entry("/untrusted")
    assert (entry["client"], entry["request_id"]) == ("127.0.0.8", answer.get("x-request-id"))


def test_claims_of_a_trusted_peer_are_kept(lb: LbProxy) -> None:
    answer = ask(lb, request("/trusted", *CLAIMS), "plain", source="127.0.0.9")
    told = seen(answer)
    assert fields(told, "x-forwarded-for") == ["203.0.113.7, 10.1.2.3, 127.0.0.9"]
    assert fields(told, "x-forwarded-proto") == ["https"]
    assert fields(told, "x-forwarded-host") == ["public.example"]
    assert fields(told, "x-forwarded-port") == ["443"]
    assert fields(told, "forwarded") == ["for=203.0.113.7"]
    assert fields(told, "x-request-id") == ["from-the-edge-1"] == answer.all("x-request-id")
    entry = lb.entry("/trusted")
    assert (entry["client"], entry["request_id"]) == ("203.0.113.7", "from-the-edge-1")


def test_a_claim_ends_at_the_first_untrusted_address(lb: LbProxy) -> None:
    claim = "X-Forwarded-For: 198.51.100.1, 203.0.113.7, 10.9.9.9"
    seen(ask(lb, request("/chain", claim), "plain", source="127.0.0.9"))
    assert lb.entry("/chain")["client"] == "203.0.113.7"


# --- names and unix sockets ---


def test_a_name_as_server(lb: LbProxy) -> None:
    assert seen(ask(lb, request("/"), "named"))["name"] == "one"
    names = {dict(labels)["server"] for _, labels in lb.metrics("server_up") if ("pool", "named") in labels}
    assert any(name.startswith("localhost:") and name.endswith("/127.0.0.1") for name in names), names


def test_a_unix_socket_as_server(lb: LbProxy) -> None:
    assert seen(ask(lb, post("/x", b"hello"), "to-unix"))["body"] == "hello"
    assert seen(ask(lb, post("/x", b"hello"), "to-unix"))["name"] == "unix"


@pytest.mark.parametrize("listener", ["at-unix", "abstract"])
def test_a_unix_socket_as_listener(lb: LbProxy, listener: str) -> None:
    path = lb.addresses[listener].removeprefix("unix:")
    with Client("\0" + path[1:] if path.startswith("@") else path) as client:
        for _ in range(3):
            told = seen(client.ask(get("/x")))
    assert told["name"] == "one"
    if listener == "at-unix":
        assert Path(path).stat().st_mode & 0o777 == 0o600
