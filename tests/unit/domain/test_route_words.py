"""The words for a condition that fails are about the test that fails."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lbproxy.domain.paths import BadPath, PathRules
from lbproxy.domain.route_words import ANY_REQUEST, conditions, failure_words, match_words
from lbproxy.domain.routing import MatchSpec, Router, RouteSpec, _tests

WHOLE = MatchSpec(
    host="*.example.org",
    path="/v1/predict",
    path_prefix="/v1",
    path_regex="^/v[0-9]",
    methods=("POST", "PUT"),
    headers={"X-Model": "large", "X-Any": "*"},
    query={"stream": "true", "k": "*"},
)
GOOD: Mapping[str, str] = {"x-model": "large", "x-any": "1"}


def why(
    match: MatchSpec,
    *,
    method: str = "POST",
    host: str = "a.example.org",
    path: str = "/v1/predict",
    query: str = "k=1&stream=true",
    headers: Mapping[str, str] = GOOD,
) -> str:
    """What the router says of the first test that fails, in words; "" if none does."""
    steps: list[tuple[int, int]] = []
    Router.compile([RouteSpec(match)]).trace(method, host, path, query, headers, steps)
    [(index, failed)] = steps
    assert index == 0
    if failed < 0:
        return ""
    return failure_words(match, failed, method=method, host=host, path=path, query=query, headers=headers)


def test_there_are_words_for_each_test_in_its_order() -> None:
    assert len(conditions(WHOLE)) == len(_tests(WHOLE, PathRules(), takes_head=True)) == 8
    assert why(WHOLE) == ""


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"host": "A.B.Example.Org:80"}, "the host is a.b.example.org, not *.example.org"),
        ({"host": ""}, "the host is empty, not *.example.org"),
        ({"method": "GET"}, "the method is GET, not one of POST, PUT"),
        ({"path": "/v1/x"}, "the path is /v1/x, not /v1/predict"),
        ({"headers": {"x-any": "1"}}, "there is no header x-model"),
        ({"headers": {**GOOD, "x-model": "small"}}, "the header x-model is small, not large"),
        ({"headers": {"x-model": "large"}}, "there is no header x-any"),
        ({"query": "stream=true"}, "the query has no k"),
        ({"query": "k=&stream=no&stream=x"}, "the query's stream is no, x, not true"),
        ({"query": ""}, "the query has no stream"),
    ],
)
def test_the_first_condition_that_fails_is_told(request_: dict[str, str], words: str) -> None:
    assert why(WHOLE, **request_) == words  # type: ignore[arg-type]


def test_paths() -> None:
    assert why(MatchSpec(path_prefix="/api"), path="/apix") == "the path /apix is not /api or below it"
    assert why(MatchSpec(path_regex="^/v[0-9]"), path="/x") == "the path /x does not match ^/v[0-9]"
    assert why(MatchSpec(methods=("POST",)), method="GET") == "the method is GET, not POST"


def test_a_long_text_is_cut() -> None:
    assert len(why(MatchSpec(path="/a"), path="/" + "b" * 9000)) < 250


def test_a_match_in_words() -> None:
    assert match_words(None) == match_words(MatchSpec()) == ANY_REQUEST
    assert match_words(WHOLE) == (
        "host *.example.org, methods POST, PUT, path /v1/predict, path_prefix /v1, path_regex ^/v[0-9], "
        "headers x-model large, headers x-any *, query stream=true&k=*"
    )


def test_the_trace_ends_where_the_choice_does() -> None:
    routes = [RouteSpec(MatchSpec(path="/a")), RouteSpec(MatchSpec(path="/b")), RouteSpec(), RouteSpec(MatchSpec())]
    router = Router.compile(routes)
    assert router.specs == tuple(routes)
    for path, expected in (("/a", [(0, -1)]), ("/b", [(0, 0), (1, -1)]), ("/c", [(0, 0), (1, 0), (2, -1)])):
        steps: list[tuple[int, int]] = []
        router.trace("GET", "h", path, "", {}, steps)
        assert steps == expected
        assert router.choose("GET", "h", path, "", {}).index == expected[-1][0]


def test_a_path_that_cannot_be_read_ends_the_trace_there() -> None:
    router = Router.compile([RouteSpec(MatchSpec(methods=("POST",))), RouteSpec(MatchSpec(path="/a")), RouteSpec()])
    steps: list[tuple[int, int]] = []
    with pytest.raises(BadPath):
        router.trace("GET", "h", "/../a", "", {}, steps)
    assert steps == [(0, 0)]
    strict = Router.compile([RouteSpec()], PathRules("strict"))
    with pytest.raises(BadPath):
        strict.trace("GET", "h", "//a", "", {}, steps)


def test_the_name_of_a_key() -> None:
    match = MatchSpec(headers={":api-key": "team-a", "X-B": "1"})
    assert match_words(match) == "api_key team-a, headers x-b 1"

    def why(headers: dict[str, str]) -> str:
        return failure_words(match, 0, method="GET", host="h", path="/", query="", headers=headers)

    assert why({}) == "it has no good API key"
    assert why({":api-key": "b"}) == "its API key is that of b, not of team-a"
