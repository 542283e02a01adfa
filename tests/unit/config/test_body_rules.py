"""Routes by body, and splits, as they are written."""

from __future__ import annotations

import pytest

from lbproxy.config.body_rules import MOST_POINTERS, MOST_POOLS, Split
from lbproxy.config.http_rules import Match, Route
from lbproxy.config.loader import load_text
from lbproxy.config.problems import ConfigError
from lbproxy.domain import splitting

TEXT = """
listeners:
  - bind: 127.0.0.1:5000
    routes:
      - ROUTE
      - pool: a
pools:
  a: {servers: ["127.0.0.1:9001"]}
  b: {servers: ["127.0.0.1:9002"]}
"""


def complaints(route: str) -> list[str]:
    try:
        loaded = load_text(TEXT.replace("ROUTE", route), "lb.yaml", {})
    except ConfigError as error:
        return [f"{item.line}:{item.column}: {item.message}" for item in error.problems]
    return [f"warning: {item.message}" for item in loaded.warnings]


@pytest.mark.parametrize(
    ("written", "pools", "by"),
    [
        ({"stable": 95, "canary": 5}, {"stable": 95, "canary": 5}, None),
        ({"pools": {"stable": 1}}, {"stable": 1}, None),
        ({"by": "client_ip", "pools": {"a": 0, "b": 3}}, {"a": 0, "b": 3}, "client_ip"),
        ({"pools": 95, "canary": 5}, {"pools": 95, "canary": 5}, None),
    ],
)
def test_a_split_in_its_two_forms(written: object, pools: dict[str, int], by: str | None) -> None:
    split = Route.model_validate({"split": written}).split
    assert split is not None
    assert (dict(split.pools), split.by) == (pools, by)


def test_values_of_a_body_are_texts_as_json_writes_them() -> None:
    match = Match.model_validate({"json": {"/model": "llama-*", "/stream": True, "/n": 3, "/x/0/y": "*"}})
    assert match.json == {"/model": "llama-*", "/stream": "true", "/n": "3", "/x/0/y": "*"}
    assert Match().json == {}


def test_a_route_knows_the_pools_that_it_leads_to() -> None:
    assert Route.model_validate({"pool": "a"}).pools == ("a",)
    assert Route.model_validate({"split": {"a": 1, "b": 0}}).pools == ("a", "b")
    assert Route.model_validate({"respond": {}}).pools == ()


def test_a_listener_that_is_right() -> None:
    assert complaints('{name: x, match: {json: {/model: "l*"}}, split: {a: 95, b: 5}}') == []
    assert complaints('{split: {by: "header:X-User", pools: {a: 95, b: 5}}, match: {path: /x}}') == []


@pytest.mark.parametrize(
    ("route", "complaint"),
    [
        ('{match: {json: {model: "x"}}, pool: b}', "5:25: 'model' is no JSON Pointer: it begins with /"),
        (
            '{match: {json: {/a~b: "x"}}, pool: b}',
            "5:25: '/a~b' is no JSON Pointer: write ~0 for ~, and ~1 for / within a name",
        ),
        ('{match: {json: {/model: ""}}, pool: b}', "5:33: an empty text never matches"),
        ("{match: {json: {/model: {}}}, pool: b}", "5:33: expected text, got a mapping"),
        ("{match: {json: [/model]}, pool: b}", "5:24: expected a mapping, got a list"),
        ("{split: {a: 95, c: 5}}", "5:25: there is no pool c"),
        ("{split: {by: path, pools: {a: 95, c: 5}}}", "5:43: there is no pool c"),
        ("{split: {a: 0, b: 0}}", "5:17: gives no pool a share"),
        ("{split: {a: 0.5, b: 0}}", "5:21: expected a whole number from 0 to 1000000, got 0.5"),
        ("{split: {a: -1, b: 2}}", "5:21: expected a whole number from 0 to 1000000, got -1"),
        ("{split: {by: user, pools: {a: 1}}}", "5:22: expected client_ip, header:NAME"),
        ("{split: {by: path, a: 1}}", "5:28: unknown key"),
        ("{split: {}}", "5:17: names no pool"),
        ("{split: a}", "5:17: expected pools with their shares, or a mapping, got 'a'"),
        ("{split: {a: 1}, pool: b}", "5:9: has `pool` and `split`, but a route does one thing"),
        ("{name: 3, pool: b, match: {path: /}}", "5:16: would be taken for the position of a route"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(route: str, complaint: str) -> None:
    found = complaints(route)
    assert any(item.startswith(complaint) for item in found), found


def test_names_of_routes_are_unique_in_a_listener() -> None:
    routes = "{name: x, match: {path: /1}, pool: b}\n      - {name: x, match: {path: /2}, pool: b}"
    assert [item for item in complaints(routes) if "the name of routes[0] already" in item]


def test_pointers_and_pools_have_a_bound() -> None:
    many = ", ".join(f"/p{number}: x" for number in range(MOST_POINTERS))
    assert complaints(f"{{match: {{json: {{{many}}}}}, pool: b}}") == []
    found = complaints(f"{{match: {{json: {{{many}, /q: x}}}}, pool: b}}")
    assert [item for item in found if f"one pointer more than the {MOST_POINTERS}" in item], found
    pools = ", ".join(f"p{number}: 1" for number in range(MOST_POOLS + 1))
    assert [item for item in complaints(f"{{split: {{{pools}}}}}") if "16 are the most" in item]


def test_a_split_is_for_http() -> None:
    text = """
listeners: [{bind: "127.0.0.1:5000", mode: tcp, routes: [{name: x, split: {a: 1, b: 1}}]}]
pools: {a: {servers: ["127.0.0.1:9001"]}, b: {servers: ["127.0.0.1:9002"]}}
"""
    with pytest.raises(ConfigError) as raised:
        load_text(text, "lb.yaml", {})
    assert str(raised.value).count("is not possible on a TCP listener") == 2


def test_both_sides_have_the_same_bounds() -> None:
    assert MOST_POOLS == splitting.MOST_POOLS
    with pytest.raises(ValueError, match="whole number"):
        Split.model_validate({"pools": {"a": splitting.MOST_SHARE + 1}})
    assert Split.model_validate({"pools": {"a": splitting.MOST_SHARE}}).pools == {"a": splitting.MOST_SHARE}
