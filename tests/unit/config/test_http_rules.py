"""Models of what is said about single requests: how each key is read, and that nothing is set that nobody wrote."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from lbproxy.config.http_rules import (
    HeaderEdits,
    HeaderRules,
    Match,
    PoolTimeoutsOverride,
    Redirect,
    Respond,
    RetryCause,
    RetryOverride,
    Rewrite,
    Route,
    off_is_no_retry,
)
from lbproxy.config.listener_model import Listener
from lbproxy.config.pool_model import PoolTimeouts, Retry

SECTIONS = (HeaderEdits, HeaderRules, Match, PoolTimeoutsOverride, Redirect, Respond, RetryOverride, Rewrite, Route)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_unknown_keys_are_refused(section: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as raised:
        section.model_validate({"location": "/x", "no_such_key": 1})
    assert ("extra_forbidden", ("no_such_key",)) in [(error["type"], error["loc"]) for error in raised.value.errors()]


@pytest.mark.parametrize(
    ("key", "written", "read"),
    [
        ("host", "API.Example.com.", "api.example.com"),
        ("host", "*.Example.com", "*.example.com"),
        ("host", "[0:0::1]", "[::1]"),
        ("host", "10.0.0.1", "10.0.0.1"),
        ("path", "/a%20b", "/a%20b"),
        ("path_prefix", "/", "/"),
        ("path_regex", r"/v[12]/.*\.bin$", r"/v[12]/.*\.bin$"),
        ("methods", "GET", ("GET",)),
        ("methods", ["GET", "PURGE"], ("GET", "PURGE")),
        ("methods", [], ()),
        ("headers", {"X-Tier": "  gold\t"}, {"X-Tier": "gold"}),
        ("query", {"a b": "*", "empty": ""}, {"a b": "*", "empty": ""}),
    ],
)
def test_a_condition_is_read(key: str, written: object, read: object) -> None:
    match = Match.model_validate({key: written})
    assert getattr(match, key) == read
    assert match.model_fields_set == {key}


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("host", "a:80"),
        ("host", "a.*.com"),
        ("host", "**"),
        ("host", ""),
        ("host", "[::g]"),
        ("path", "a"),
        ("path", "/a b"),
        ("path", "/ä"),
        ("path", "/a?b=1"),
        ("path_prefix", "/a#b"),
        ("path_prefix", ""),
        ("path_regex", "("),
        ("methods", "get"),
        ("methods", ["GET", ""]),
        ("methods", True),
        ("headers", {"X A": "b"}),
        ("headers", {"": "b"}),
        ("headers", {"X-A": "b\r\nX-B: c"}),
        ("query", ["a"]),
    ],
)
def test_a_condition_is_refused_at_its_key(key: str, written: object) -> None:
    with pytest.raises(ValidationError) as raised:
        Match.model_validate({key: written})
    assert {error["loc"][0] for error in raised.value.errors()} == {key}


def test_a_match_without_conditions_has_none() -> None:
    match = Match()
    assert (match.host, match.path, match.path_prefix, match.path_regex) == (None, None, None, None)
    assert (match.methods, dict(match.headers), dict(match.query)) == ((), {}, {})
    assert match == Match.model_validate({}) != Match(path="/")


def test_header_edits_keep_order_and_spelling() -> None:
    edits = HeaderEdits.model_validate(
        {"set": {"X-b": "1", "X-A": " 2 "}, "add": {"Via": ""}, "remove": ["X-c", "X-C"]}
    )
    assert list(edits.set.items()) == [("X-b", "1"), ("X-A", "2")]
    assert (dict(edits.add), edits.remove) == ({"Via": ""}, ("X-c", "X-C"))


@pytest.mark.parametrize(
    "written",
    [{"set": {"X:": "a"}}, {"add": {"X-A": "\0"}}, {"add": {"X-A": "€"}}, {"remove": ["a b"]}, {"remove": "X-A"}],
    ids=str,
)
def test_header_edits_let_nothing_through_that_breaks_a_head(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HeaderEdits.model_validate(written)


def test_header_rules_change_nothing_by_themselves() -> None:
    rules = HeaderRules()
    assert rules.request == rules.response == HeaderEdits()
    assert (dict(HeaderEdits().set), dict(HeaderEdits().add), HeaderEdits().remove) == ({}, {}, ())


def test_a_route_changes_the_same_timeouts_and_retries_that_a_pool_has() -> None:
    assert set(PoolTimeoutsOverride.model_fields) == set(PoolTimeouts.model_fields)
    assert set(RetryOverride.model_fields) == set(Retry.model_fields) - {"budget", "backoff"}


@pytest.mark.parametrize("section", [PoolTimeoutsOverride, RetryOverride, Rewrite])
def test_nothing_is_overridden_that_is_not_written(section: type[BaseModel]) -> None:
    assert set(section().model_dump().values()) == {None}


@pytest.mark.parametrize("key", PoolTimeoutsOverride.model_fields)
def test_timeouts_of_a_route_are_seconds(key: str) -> None:
    made = PoolTimeoutsOverride.model_validate({key: "250ms"})
    assert made.model_dump(exclude_none=True) == {key: 0.25}
    for written in ("0s", 0, "off", "soon"):
        with pytest.raises(ValidationError):
            PoolTimeoutsOverride.model_validate({key: written})


def test_off_means_no_attempt() -> None:
    assert off_is_no_retry("off") == {"attempts": 0}
    for other in ({"attempts": 3}, "on", None, 0):
        assert off_is_no_retry(other) is other


def test_retry_of_a_route() -> None:
    off = Route.model_validate({"retry": "off"}).retry
    assert off is not None
    assert off.model_dump(exclude_none=True) == {"attempts": 0}
    written = {"on": ["timeout"], "status": [100, 599], "body_bytes": "1KiB", "unacked": "off", "idempotent": False}
    made = Route.model_validate({"retry": written}).retry
    assert made is not None
    assert (made.on, made.status, made.body_bytes) == (("timeout",), (100, 599), 1024)
    assert (made.unacked, made.idempotent, made.attempts) == ("off", False, None)


@pytest.mark.parametrize("cause", get_args(RetryCause))
def test_every_cause_of_a_retry_can_be_named(cause: str) -> None:
    assert RetryOverride.model_validate({"on": [cause]}).on == (cause,)


@pytest.mark.parametrize(
    "written",
    [{"attempts": -1}, {"attempts": 11}, {"status": [99]}, {"status": [600]}, {"on": ["status"]}, {"idempotent": "on"}],
    ids=str,
)
def test_retries_out_of_range(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetryOverride.model_validate(written)


def test_redirects() -> None:
    assert Redirect.model_validate({"location": "https://b.example/?a=1#c"}).status == 302
    for status in (301, 302, 303, 307, 308):
        assert Redirect.model_validate({"location": "/x", "status": status}).status == status
    for written in (
        {},
        {"location": ""},
        {"location": "/a b"},
        {"location": "/x\n"},
        {"location": "/x", "status": 304},
    ):
        with pytest.raises(ValidationError):
            Redirect.model_validate(written)


@pytest.mark.parametrize(
    "location",
    [
        "https://{host}{path}{query}",
        "https://b.example{path}",
        "/new{path}{query}",
        "{path}",
        "https://{host}/x",
        "/x%7By",
    ],
)
def test_redirects_that_keep_what_was_asked_for(location: str) -> None:
    assert Redirect.model_validate({"location": location}).location == location


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("https://{hots}/", "'{hots}' is none of {host}, {path}, {query}"),
        ("https://{Host}/", "'{Host}' is none"),
        ("/x{}", "'{}' is none"),
        ("/x{host", "'{host' is none"),
        ("/x}", "'}' is none"),
        ("https://{{host}}/", "'{' is none"),
        ("/{path}", "begins with a slash itself"),
        ("https://{host}/{path}", "begins with a slash itself"),
        ("/x?a=1{query}", "brings its own"),
        ("/x{query}&a=1", "brings its own"),
        ("/x#a{query}", "brings its own"),
    ],
)
def test_a_location_with_something_else_in_braces_is_refused(location: str, complaint: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Redirect.model_validate({"location": location})
    assert complaint in str(raised.value)


def test_fixed_answers() -> None:
    plain = Respond()
    assert (plain.status, dict(plain.headers), plain.body) == (200, {}, "")
    assert [Respond.model_validate({"status": status}).status for status in (200, 599)] == [200, 599]
    for status in (199, 600, True, "200"):
        with pytest.raises(ValidationError):
            Respond.model_validate({"status": status})


def test_a_route_says_nothing_of_what_is_not_written() -> None:
    assert set(Route().model_dump().values()) == {None}
    with pytest.raises(ValidationError, match="not a pool name"):
        Route(pool="a b")


def test_rewrites_are_paths() -> None:
    made = Rewrite.model_validate({"strip_prefix": "/api", "path_prefix": "/v1"})
    assert (made.strip_prefix, made.path_prefix) == ("/api", "/v1")
    for key in ("strip_prefix", "path_prefix"):
        for written in ("api", "/a?b", "/a\r\nb"):
            with pytest.raises(ValidationError):
                Rewrite.model_validate({key: written})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("off", ()),
        ([], ()),
        ("WebSocket", ("websocket",)),
        (["websocket", "IRC/6.9"], ("websocket", "irc/6.9")),
    ],
)
def test_protocols_to_switch_to(written: object, read: object) -> None:
    assert Route.model_validate({"upgrade": written}).upgrade == read
    assert Listener.model_validate({"bind": ":1", "upgrade": written}).upgrade == read


def test_a_route_that_says_nothing_leaves_it_to_the_listener() -> None:
    assert Route.model_validate({}).upgrade is None
    assert Listener.model_validate({"bind": ":1"}).upgrade == ("websocket",)


@pytest.mark.parametrize("protocol", ["h2c", "H2C", "h2", "http/1.1", "HTTP/2.0", "tls/1.2", "TLS", "h3"])
def test_nothing_that_carries_requests_may_be_switched_to(protocol: str) -> None:
    with pytest.raises(ValidationError, match="would carry requests past lbproxy"):
        Route.model_validate({"upgrade": ["websocket", protocol]})


@pytest.mark.parametrize("protocol", ["", "a b", "a/", "/1", "a/1/2", "a,b", "\r\n", None, {}])
def test_protocols_are_tokens_with_a_version_or_without(protocol: object) -> None:
    with pytest.raises(ValidationError):
        Route.model_validate({"upgrade": [protocol]})
