from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.routing import (
    BadPath,
    MatchSpec,
    PathRules,
    Router,
    RouteSpec,
    normalise_host,
    normalise_path,
    rewrite_path,
)


def find(
    router: Router,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "example.org",
    query: str = "",
    headers: Mapping[str, str] | None = None,
) -> int | None:
    return router.choose(method, host, path, query, headers or {}).index


def router_of(*matches: MatchSpec | None) -> Router:
    return Router.compile([RouteSpec(match) for match in matches])


# --- order ----------------------------------------------------------------------------------------------------------


def test_first_match_wins() -> None:
    router = router_of(MatchSpec(path_prefix="/a"), MatchSpec(path_prefix="/a/b"), None)
    assert find(router, "/a/b") == 0
    assert find(router, "/c") == 2


def test_no_route_without_default() -> None:
    assert find(router_of(MatchSpec(path="/a")), "/b") is None
    assert find(router_of(), "/b") is None


def test_routes_behind_the_default_are_never_reached() -> None:
    router = router_of(MatchSpec(path="/a"), None, MatchSpec(path="/b"))
    assert find(router, "/b") == 1
    assert find(router_of(MatchSpec(), MatchSpec(path="/b")), "/b") == 0


def test_pure_default_looks_at_nothing() -> None:
    class Untouchable(Mapping[str, str]):
        def __getitem__(self, key: str) -> str:
            raise AssertionError(key)

        __iter__ = __len__ = None  # type: ignore[assignment]

    router = router_of(None)
    assert router.choose("GET", "h", "/", "", Untouchable()).index == 0


def test_all_keys_of_a_match_must_hold() -> None:
    router = router_of(
        MatchSpec(host="a.org", path_prefix="/v1", methods=("POST",), headers={"X-A": "1"}, query={"q": "2"})
    )
    whole = {"method": "POST", "host": "a.org", "query": "q=2"}
    assert find(router, "/v1/x", headers={"x-a": "1"}, **whole) == 0
    assert find(router, "/v2/x", headers={"x-a": "1"}, **whole) is None
    assert find(router, "/v1/x", headers={"x-a": "2"}, **whole) is None
    for key, other in (("method", "GET"), ("host", "b.org"), ("query", "q=3")):
        assert find(router, "/v1/x", headers={"x-a": "1"}, **{**whole, key: other}) is None


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "host", "matches"),
    [
        ("example.org", "EXAMPLE.org:8080", True),
        ("Example.Org.", "example.org", True),
        ("example.org", "example.org.", True),
        ("example.org", "example.org.:80", True),
        ("example.org", "a.example.org", False),
        ("example.org", "", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "A.example.org:80", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "aexample.org", False),
        ("[::1]", "[::1]:80", True),
        ("[::1]", "[::1]", True),
        ("[::1]", "[::2]:80", False),
    ],
)
def test_host(wanted: str, host: str, matches: bool) -> None:
    assert (find(router_of(MatchSpec(host=wanted)), host=host) == 0) is matches


@pytest.mark.parametrize(
    ("prefix", "path", "matches"),
    [
        ("/api", "/api", True),
        ("/api", "/api/", True),
        ("/api", "/api/x", True),
        ("/api", "/apix", False),
        ("/api", "/ap", False),
        ("/api", "/x/api", False),
        ("/api/", "/api/x", True),
        ("/api/", "/api", False),
        ("/", "/anything", True),
        ("/caf\u00e9", "/caf%C3%A9/x", True),
        ("/%7euser", "/~user", True),
    ],
)
def test_path_prefix_ends_at_a_segment(prefix: str, path: str, matches: bool) -> None:
    assert (find(router_of(MatchSpec(path_prefix=prefix)), path) == 0) is matches


def test_path_is_the_whole_path() -> None:
    router = router_of(MatchSpec(path="/predict"))
    assert find(router, "/predict") == 0
    for other in ("/predict/", "/predic", "/predict/x", "/Predict"):
        assert find(router, other) is None


@pytest.mark.parametrize(
    ("expression", "path", "matches"),
    [
        ("/v[0-9]+/predict", "/v12/predict", True),
        ("/v[0-9]+/predict", "/v12/predict/more", True),
        ("/v[0-9]+/predict$", "/v12/predict/more", False),
        ("/v[0-9]+", "/x/v1", False),
        (r".*\.png$", "/a/b.png", True),
    ],
)
def test_path_regex_is_anchored_at_the_start_only(expression: str, path: str, matches: bool) -> None:
    assert (find(router_of(MatchSpec(path_regex=expression)), path) == 0) is matches


def test_bad_expression_and_bad_path_are_told() -> None:
    with pytest.raises(ValueError, match="'\\(' is not a regular expression"):
        router_of(MatchSpec(path_regex="("))
    with pytest.raises(ValueError, match="segment"):
        router_of(MatchSpec(path="/a/../b"))


def test_methods() -> None:
    router = router_of(MatchSpec(methods=("GET", "post")))
    assert [find(router, method=method) for method in ("GET", "POST", "PUT")] == [0, 0, None]


@pytest.mark.parametrize("method", ["PURGE", "purge", "Purge"])
def test_methods_are_compared_without_case(method: str) -> None:
    assert find(router_of(MatchSpec(methods=("PURGE",))), method=method) == 0


def test_get_stands_for_head() -> None:
    router = router_of(MatchSpec(path="/a", methods=("GET",)), MatchSpec(methods=("POST",)), None)
    assert [find(router, "/a", method=method) for method in ("GET", "HEAD", "POST")] == [0, 0, 1]


def test_get_does_not_stand_for_head_where_the_same_match_lists_it() -> None:
    router = router_of(
        MatchSpec(path="/a", methods=("GET",)),
        MatchSpec(path="/b", methods=("GET",)),
        MatchSpec(path="/a", methods=("HEAD", "POST")),
        None,
    )
    assert [find(router, "/a", method=method) for method in ("GET", "HEAD", "POST")] == [0, 2, 2]
    assert [find(router, "/b", method=method) for method in ("GET", "HEAD", "POST")] == [1, 1, 3]
    both = router_of(MatchSpec(methods=("GET", "HEAD")), None)
    assert [find(both, method=method) for method in ("GET", "HEAD")] == [0, 0]


# --- when the path is looked at -------------------------------------------------------------------------------------


def test_the_path_is_looked_at_when_a_rule_asks_for_it() -> None:
    router = router_of(MatchSpec(host="a"), MatchSpec(methods=("PUT",), path="/x"), None)
    by_host = router.choose("GET", "a", "/x%2Fy/../z", "", {})
    assert (by_host.index, by_host.path) == (0, None)
    not_asked = router.choose("GET", "b", "/x%2Fy", "", {})
    assert (not_asked.index, not_asked.path) == (2, None)
    with pytest.raises(BadPath):
        router.choose("PUT", "b", "/x%2Fy", "", {})
    asked = router.choose("PUT", "b", "//%78", "", {})
    assert asked.index == 1 and asked.path is not None and asked.path.sent == "/x"


def test_strict_looks_at_every_path() -> None:
    router = Router.compile([RouteSpec()], PathRules("strict"))
    with pytest.raises(BadPath):
        router.choose("GET", "a", "//x", "", {})
    assert router.choose("GET", "a", "/x", "", {}).index == 0


def test_raw_compares_what_was_sent() -> None:
    router = Router.compile([RouteSpec(MatchSpec(path_prefix="/a!")), RouteSpec()], PathRules("raw"))
    indexes = [router.choose("GET", "a", path, "", {}).index for path in ("/a!", "/a%21", "//a!", "/a!/../b")]
    assert indexes == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("path", "index"), [("/api/x;v=1", 0), ("/other;v=1", 1), ("/api;x", None), ("/;x/api", None), ("/x;/api", 1)]
)
def test_parameters_are_refused_where_they_make_a_difference(path: str, index: int | None) -> None:
    router = router_of(MatchSpec(path_prefix="/api"), None)
    if index is None:
        with pytest.raises(BadPath, match="several ways"):
            find(router, path)
    else:
        assert find(router, path) == index


@pytest.mark.parametrize(
    ("wanted", "path"), [("/a!b", "/a%21b"), ("/a%21b", "/a!b"), ("/[x]", "/[x]"), ("/[x]", "/%5bx]")]
)
def test_a_character_has_one_spelling(wanted: str, path: str) -> None:
    for match in (MatchSpec(path=wanted), MatchSpec(path_prefix=wanted)):
        assert find(router_of(match), path) == 0
    assert find(router_of(MatchSpec(path_regex="/v1/[a-z]+:predict$")), "/v1/m%3Apredict") == 0


def test_headers_by_value_or_presence() -> None:
    router = router_of(MatchSpec(headers={"X-Tier": "gold"}), MatchSpec(headers={"X-Tier": "*"}))
    assert find(router, headers={"x-tier": "gold"}) == 0
    assert find(router, headers={"x-tier": "Gold"}) == 1
    assert find(router, headers={"x-tier": ""}) == 1
    assert find(router) is None


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("model=a", 0),
        ("x=1&model=a", 0),
        ("model=b&model=a", 0),
        ("m%6fdel=%61", 0),
        ("model=a+b", 1),
        ("model=", 1),
        ("model", 1),
        ("models=a", None),
        ("", None),
        ("x=model=a", None),
    ],
)
def test_query_by_value_or_presence(query: str, index: int | None) -> None:
    router = router_of(MatchSpec(query={"model": "a"}), MatchSpec(query={"model": "*"}))
    assert find(router, query=query) == index


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/plain/path", "/plain/path"),
        ("/%61dmin", "/admin"),
        ("/%7Euser/%2d%5F%2E%30", "/~user/-_.0"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%3ab", "/a%3Ab"),
        ("/a%252e%252e/b", "/a%252e%252e/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/...", "/a/..."),
        ("/a/..b", "/a/..b"),
        ("/a.%2e", "/a.."),
        ("//a//b", "/a/b"),
        ("*", "*"),
    ],
)
def test_only_unreserved_characters_are_decoded(raw: str, path: str) -> None:
    assert normalise_path(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        "/a/../b",
        "/..",
        "/a/.",
        "/./a",
        "/a/%2e%2e/b",
        "/a/.%2E",
        "/%2e",
        "/a/..;x=1/b",
        "/a/%2e%2e;/b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a\x00b",
        "/a%00b",
        "/a%",
        "/a%4",
        "/a%zz",
        "/%%32e%%32e/b",
    ],
)
def test_ambiguous_paths_are_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        normalise_path(raw)


PATHS = st.text(st.sampled_from("/.%2eEfF5cC0~;\\aZ\x00"), max_size=12).map("/".__add__)


@given(PATHS)
def test_what_passes_cannot_be_read_as_another_path(raw: str) -> None:
    try:
        path = normalise_path(raw)
    except BadPath:
        return
    assert normalise_path(path) == path
    decoded = unquote(path)
    assert decoded.count("/") == path.count("/") and "//" not in path
    assert "\\" not in decoded and "\0" not in decoded
    assert not {".", ".."} & set(decoded.split("/"))
    assert re.sub("/+", "/", unquote(raw)) == decoded


@pytest.mark.parametrize(
    ("path", "strip_prefix", "path_prefix", "result"),
    [
        ("/api/x", "/api", None, "/x"),
        ("/api", "/api", None, "/"),
        ("/api/", "/api", None, "/"),
        ("/apix", "/api", None, "/apix"),
        ("/api//evil.org", "/api", None, "/evil.org"),
        ("/api/x", "/api/", None, "/x"),
        ("/x", None, "/v2", "/v2/x"),
        ("/x", None, "/v2/", "/v2/x"),
        ("/api/x", "/api", "/v2", "/v2/x"),
        ("/api", "/api", "/v2", "/v2"),
        ("/api/", "/api", "/v2", "/v2/"),
        ("/other", "/api", "/v2", "/v2/other"),
        ("/x", "/", "/", "/x"),
        ("/", None, "/", "/"),
        ("/caf%C3%A9/x", "/caf\u00e9", None, "/x"),
        ("/x", None, "/caf\u00e9", "/caf%C3%A9/x"),
        ("*", "/api", "/v2", "*"),
        ("/x", None, None, "/x"),
    ],
)
def test_rewrite(path: str, strip_prefix: str | None, path_prefix: str | None, result: str) -> None:
    assert rewrite_path(path, strip_prefix, path_prefix) == result


@given(PATHS, st.sampled_from([None, "/", "/a", "/a/", "/a/Z"]), st.sampled_from([None, "/", "/v2", "/v2/"]))
def test_rewritten_path_is_absolute(path: str, strip_prefix: str | None, path_prefix: str | None) -> None:
    assert rewrite_path(path, strip_prefix, path_prefix).startswith("/")


def test_host_without_closing_bracket_is_left_alone() -> None:
    assert normalise_host("[::1") == "[::1"


# --- what the body must hold ----------------------------------------------------------------------------------------


def by_body(*routes: MatchSpec | None) -> Router:
    return Router.compile([RouteSpec(match) for match in routes])


def found(router: Router, path: str = "/v1", *, has_body: bool = True) -> tuple[tuple[int, ...], int | None]:
    choice = router.choose("POST", "h", path, "", {}, has_body=has_body)
    return choice.by_body, choice.index


def test_routes_that_depend_on_the_body_are_named_in_their_order() -> None:
    one, other = MatchSpec(path_prefix="/v1", json={"/m": "a"}), MatchSpec(json={"/m": "b"})
    router = by_body(one, MatchSpec(path="/v1/x"), other, None)
    assert found(router) == ((0, 2), 3)
    assert found(router, "/v1/x") == ((0,), 1)
    assert found(router, "/v2") == ((2,), 3)
    assert found(router, has_body=False) == ((), 3)
    assert found(by_body(other)) == ((0,), None)
    assert found(by_body(other), has_body=False) == ((), None)


def test_a_path_of_several_readings_must_lead_to_the_same_routes_by_body_too() -> None:
    router = Router.compile(
        [RouteSpec(MatchSpec(path_prefix="/a/b", json={"/m": "x"})), RouteSpec()], PathRules(passes_slashes=True)
    )
    with pytest.raises(BadPath):
        router.choose("POST", "h", "/a%2Fb", "", {}, has_body=True)


def test_a_trace_asks_the_body_last() -> None:
    router = by_body(MatchSpec(path_prefix="/v1", json={"/m": "a", "/n": "1"}), None)
    for holds, expected in (
        (None, [(0, 1), (1, -1)]),
        (lambda pointer, wanted: pointer == "/m", [(0, 2), (1, -1)]),
        (lambda pointer, wanted: True, [(0, -1)]),
    ):
        steps: list[tuple[int, int]] = []
        router.trace("POST", "h", "/v1", "", {}, steps, holds)
        assert steps == expected
