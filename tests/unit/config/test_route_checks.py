"""What must hold between the keys of a listener and its routes, said at the place in the file."""

from __future__ import annotations

import pytest

from lbproxy.config.http_rules import HeaderRules
from lbproxy.config.listener_model import Listener
from lbproxy.config.model import Config
from lbproxy.config.route_checks import (
    ACTIONS,
    MANAGED_HEADERS,
    check_header_rules,
    check_listener_routes,
    referenced_pools,
)
from lbproxy.config.source import Document, parse


def said(document: Document) -> list[str]:
    marks = {True: "warning ", False: ""}
    return [
        f"{marks[problem.is_warning]}{problem.line}:{problem.column} {problem.path}: {problem.message}"
        for problem in document.problems
    ]


def about_listener(text: str) -> list[str]:
    document = parse("bind: ':1'\n" + text, "lb.yaml", {})
    check_listener_routes(Listener.model_validate(document.data), (), document)
    return said(document)


def about_headers(text: str) -> list[str]:
    document = parse(text, "lb.yaml", {})
    check_header_rules(HeaderRules.model_validate(document.data), (), document)
    return said(document)


def test_every_place_that_names_a_pool() -> None:
    config = Config.model_validate(
        {
            "listeners": [
                {"bind": ":1", "pool": "a"},
                {"bind": ":2", "routes": [{"pool": "b"}, {"respond": {}}, {"pool": "a"}]},
                {"bind": ":3"},
            ]
        }
    )
    assert list(referenced_pools(config)) == [
        (("listeners", 0, "pool"), "a"),
        (("listeners", 1, "routes", 0, "pool"), "b"),
        (("listeners", 1, "routes", 2, "pool"), "a"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pool: p",
        "routes: [{pool: p}]",
        "routes: [{match: {path: /a}, pool: p}, {match: {path: /b}, pool: p}, {pool: p}]",
        "routes: [{pool: p, timeouts: {read: 1s}, retry: off, rewrite: {strip_prefix: /a}}]",
        "routes: [{redirect: {location: /x}, headers: {response: {set: {X-A: b}}}}]",
        "routes: [{respond: {status: 204, headers: {X-A: b}}}]",
        "routes: [{respond: {status: 200, body: text}}]",
        "mode: tcp\npool: p",
        "mode: tcp\nroutes: [{pool: p}]",
        "mode: tcp\nroutes: [{match: {}, pool: p}]",
    ],
)
def test_nothing_is_said_about(text: str) -> None:
    assert about_listener(text) == []


def test_either_a_pool_or_routes() -> None:
    assert about_listener("pool: p\nroutes: [{pool: p}]") == ["2:1 pool: is given besides `routes`"]
    assert about_listener("name: a") == ["1:1 pool: is required, or `routes`"]
    assert about_listener("routes: []") == ["2:9 routes: needs at least one route"]


@pytest.mark.parametrize("misspelt", ["pool", "routes"])
def test_a_listener_whose_action_was_complained_about_lacks_none(misspelt: str) -> None:
    document = parse("bind: ':1'", "lb.yaml", {})
    document.blamed.add((misspelt,))
    check_listener_routes(Listener.model_validate(document.data), (), document)
    assert said(document) == []


def test_a_route_does_one_thing() -> None:
    assert about_listener("routes: [{match: {path: /a}}]") == [
        "2:10 routes[0].pool: is required, or `split`, `redirect` or `respond`"
    ]
    assert about_listener("routes: [{pool: p, respond: {}}]") == [
        "2:10 routes[0]: has `pool` and `respond`, but a route does one thing"
    ]
    assert about_listener("routes: [{respond: {}, redirect: {location: /x}, pool: p}]") == [
        "2:10 routes[0]: has `pool` and `redirect` and `respond`, but a route does one thing"
    ]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_route_whose_action_was_complained_about_lacks_none(action: str) -> None:
    document = parse("bind: ':1'\nroutes: [{match: {path: /a}}]", "lb.yaml", {})
    document.blamed.add(("routes", 0, action))
    check_listener_routes(Listener.model_validate(document.data), (), document)
    assert said(document) == []


@pytest.mark.parametrize("action", ["redirect: {location: /x}", "respond: {}"])
@pytest.mark.parametrize("key", ["timeouts: {read: 1s}", "retry: off", "rewrite: {path_prefix: /x}", "upgrade: x"])
def test_what_is_not_forwarded_has_no_forwarding_keys(action: str, key: str) -> None:
    name, chosen = key.partition(":")[0], action.partition(":")[0]
    assert about_listener(f"routes:\n  - {action}\n    {key}") == [
        f"4:5 routes[0].{name}: has no meaning in a route with `{chosen}`"
    ]


@pytest.mark.parametrize("status", [204, 205, 304])
def test_some_answers_have_no_body(status: int) -> None:
    assert about_listener(f"routes: [{{respond: {{status: {status}, body: x}}}}]") == [
        f"2:40 routes[0].respond.body: an answer with status {status} has no body"
    ]


def test_the_first_route_for_everything_hides_all_that_follow() -> None:
    first = "is never reached: routes[1] takes every request"
    text = "routes: [{match: {path: /a}, pool: p}, {match: {}, pool: p}, {match: {path: /b}, pool: p}, {pool: p}]"
    assert about_listener(text) == [f"warning 2:62 routes[2]: {first}", f"warning 2:92 routes[3]: {first}"]


def test_a_match_hides_the_same_match() -> None:
    routes = [
        "{match: {path: /a, methods: GET}, pool: p}",
        "{match: {path: /a}, pool: p}",
        "{match: {methods: [GET], path: /a}, pool: q}",
    ]
    text = "routes:\n" + "".join(f"  - {route}\n" for route in routes)
    assert about_listener(text) == ["warning 5:5 routes[2]: is never reached: routes[0] has the same match"]


def test_a_route_that_was_cut_out_hides_nothing() -> None:
    document = parse("bind: ':1'\nroutes: [7, {match: {path: /a}, pool: p}]", "lb.yaml", {})
    document.complain(("routes", 0), "expected a mapping, got 7")
    listener = Listener.model_validate({"bind": ":1", "routes": [{}, {"match": {"path": "/a"}, "pool": "p"}]})
    check_listener_routes(listener, (), document)
    assert said(document) == ["2:10 routes[0]: expected a mapping, got 7"]


@pytest.mark.parametrize(
    "key",
    [
        "match: {path: /a}",
        "redirect: {location: /x}",
        "respond: {}",
        "rewrite: {path_prefix: /x}",
        "headers: {}",
        "retry: off",
        "upgrade: off",
    ],
)
def test_a_tcp_route_names_a_pool_and_nothing_else(key: str) -> None:
    name = key.partition(":")[0]
    of_http = about_listener(f"routes:\n  - pool: p\n    {key}")
    of_tcp = about_listener(f"mode: tcp\nroutes:\n  - pool: p\n    {key}")
    complaint = f"5:5 routes[0].{name}: is not possible on a TCP listener"
    assert complaint in of_tcp
    assert not any("TCP" in line for line in of_http)


def test_what_belongs_to_one_connection_is_managed() -> None:
    """RFC 9110 section 7.6.1, and the two fields that frame a body."""
    of_a_connection = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"}
    assert of_a_connection | {"content-length", "transfer-encoding"} == MANAGED_HEADERS


@pytest.mark.parametrize("name", sorted(MANAGED_HEADERS))
def test_managed_headers_are_left_to_lbproxy(name: str) -> None:
    for side in ("request", "response"):
        for shown in (name, name.title()):
            for edit in ("set", "add"):
                assert about_headers(f"{side}: {{{edit}: {{{shown}: x}}}}") == [
                    f"1:{len(side) + 10} {side}.{edit}.{shown}: {shown} is managed by lbproxy itself"
                ]
            assert about_headers(f"{side}: {{remove: [X-A, {shown}]}}") == [
                f"1:{len(side) + 18} {side}.remove[1]: {shown} is managed by lbproxy itself"
            ]
    assert about_listener(f"routes: [{{respond: {{headers: {{{name}: x}}}}}}]") == [
        f"2:31 routes[0].respond.headers.{name}: {name} is managed by lbproxy itself"
    ]


def test_other_headers_may_be_changed_in_every_way() -> None:
    assert about_headers("request: {set: {Host: a, X-A: b}, add: {x-a: c, Via: d}, remove: [X-A, Cookie]}") == []
    assert about_headers("response: {remove: [Host, Server]}") == []


def test_a_header_stands_once_in_an_edit_whatever_its_case() -> None:
    assert about_headers("request: {set: {X-A: 1, X-B: 2, x-a: 3}}") == [
        "1:33 request.set.x-a: is the same header as X-A"
    ]


def test_a_request_keeps_its_host() -> None:
    assert about_headers("request: {remove: [X-A, hOST]}") == [
        "1:25 request.remove[1]: a request cannot be without Host"
    ]


def test_headers_of_a_route_are_looked_at() -> None:
    assert about_listener("routes: [{pool: p, headers: {response: {remove: [TE]}}}]") == [
        "2:50 routes[0].headers.response.remove[0]: TE is managed by lbproxy itself"
    ]
